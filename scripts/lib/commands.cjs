// Runs the commands that documents show, as their reader would: in the root of the repository, with `farthing` on the path.

const { spawnSync } = require("node:child_process");
const { dirname, join, resolve } = require("node:path");

const root = resolve(__dirname, "../..");
/** No command in a document should keep its reader longer than this. */
const TIMEOUT_MS = 10 * 60_000;

function farthingDir() {
  const bin = process.env.FARTHING_BIN ?? join(resolve(root, process.env.CARGO_TARGET_DIR ?? "target"), "release/farthing");
  return dirname(bin);
}

/** Whether the command ended well; prints one line, and its output if it did not. */
function run(command, note, { atLeastOneTest = false } = {}) {
  const start = Date.now();
  const { status, signal, stdout, stderr, error } = spawnSync("bash", ["-euo", "pipefail", "-c", command], {
    cwd: root,
    env: { ...process.env, PATH: `${farthingDir()}:${process.env.PATH}` },
    stdio: ["ignore", "pipe", "pipe"],
    encoding: "utf8",
    timeout: TIMEOUT_MS,
    maxBuffer: 64 * 1024 * 1024,
  });
  const found = !atLeastOneTest || /^test result: ok\. [1-9]/m.test(stdout);
  const good = status === 0 && found;
  const [first] = command.split("\n");
  console.log(`${good ? "ok  " : "FAIL"} ${String(Date.now() - start).padStart(7)} ms  ${first}  (${note})`);
  if (!good) {
    console.log(`     ${error?.message ?? (found ? `ended with ${signal ?? status}` : "it ran no test")}`);
    // What failed comes first, for readers who see the beginning alone.
    const lines = `${stdout}\n${stderr}`.trim().split("\n");
    const failed = lines.filter((line) => line.startsWith("FAIL"));
    for (const line of [...failed, ...lines.slice(-40)]) console.log(`     | ${line}`);
  }
  return good;
}

module.exports = { root, run };

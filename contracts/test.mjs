// Tests of the escrow, on a real EVM with Circle's USDC and Uniswap's Permit2.
//
//   node contracts/test.mjs                    all of it
//   node contracts/test.mjs --gas              writes snapshots/ anew
//   node contracts/test.mjs -- ARGUMENTS       gives forge other arguments, such as --match-test settle -vvvv
//
// Every leaf of spec/*.tree names the test that shows it: a leaf without a passing test fails, and so does a test that no
// leaf names. `npm ci` here and in ../interop comes first.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { cacheDir } from "../interop/support/paths.mjs";
import { writeFixtures } from "./scripts/fixtures.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const PACKAGE = "@foundry-rs/forge-linux-amd64";

/**
 * Forge's own executable: `FORGE_BIN`, else the one that npm installed, else the one in the cache, else downloaded there.
 * npm leaves an optional package out that asks for a newer node; the program in it needs no node at all.
 */
function forgeBin() {
  if (process.env.FORGE_BIN) return process.env.FORGE_BIN;
  const installed = join(here, "node_modules", PACKAGE, "bin/forge");
  if (existsSync(installed)) return installed;
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error("forge for this platform is not pinned here: install it and set FORGE_BIN");
  }
  const { version, integrity } = JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8")).packages[`node_modules/${PACKAGE}`];
  const cached = join(cacheDir(), `forge-${version}`);
  if (existsSync(cached)) return cached;
  mkdirSync(cacheDir(), { recursive: true });
  const scratch = mkdtempSync(join(cacheDir(), "forge-"));
  try {
    const archive = run("npm", ["pack", "--silent", `${PACKAGE}@${version}`], { cwd: scratch }).trim();
    const hash = `sha512-${createHash("sha512").update(readFileSync(join(scratch, archive))).digest("base64")}`;
    if (hash !== integrity) throw new Error(`${PACKAGE}@${version} is not the one of package-lock.json`);
    run("tar", ["-xzf", archive, "package/bin/forge"], { cwd: scratch });
    chmodSync(join(scratch, "package/bin/forge"), 0o755);
    // Two processes may do this at once; the rename is atomic.
    renameSync(join(scratch, "package/bin/forge"), cached);
  } finally {
    rmSync(scratch, { recursive: true });
  }
  return cached;
}

function run(program, words, options) {
  const { status, stdout, stderr, error } = spawnSync(program, words, { encoding: "utf8", ...options });
  if (error) throw error;
  if (status !== 0) throw new Error(`${program} failed: ${stderr}`);
  return stdout;
}

function forge(words, options = {}) {
  return spawnSync(forgeBin(), ["test", ...words], { cwd: here, encoding: "utf8", maxBuffer: 1 << 28, ...options });
}

/** Test names by leaf: `└── it … [test_name]`. */
function leaves() {
  const named = new Map();
  const dir = join(here, "spec");
  for (const file of readdirSync(dir).filter((name) => name.endsWith(".tree")).sort()) {
    const lines = readFileSync(join(dir, file), "utf8").trimEnd().split("\n");
    lines.forEach((line, i) => {
      const depth = (text) => text?.search(/[^│├└─ ]/) ?? -1;
      const test = line.match(/\[(test\w+)\]$/)?.[1];
      const isLeaf = i > 0 && depth(lines[i + 1]) <= depth(line);
      if (isLeaf && !test) throw new Error(`${file}:${i + 1}: a leaf names no test`);
      if (!test) return;
      if (named.has(test)) throw new Error(`${file}:${i + 1}: ${test} is named twice`);
      named.set(test, `${file}:${i + 1}`);
    });
  }
  return named;
}

/** Where the gas of a function is not what `snapshots/` says. Forge compares only in a run that reports no JSON. */
function gasDifferences() {
  const { status, stdout, stderr } = forge(["--match-contract", "GasTest"]);
  if (status === 0) return [];
  return [`${stdout}${stderr}\nthe gas of a function has changed; if so it shall be: node contracts/test.mjs --gas`];
}

function report({ status: exit, stdout, stderr }) {
  let suites;
  try {
    suites = JSON.parse(stdout);
  } catch {
    throw new Error(`forge did not report:\n${stdout}${stderr}`);
  }
  const named = leaves();
  let passed = 0;
  const failures = [];
  for (const [suite, { test_results: tests }] of Object.entries(suites).sort()) {
    const kinds = [];
    let good = 0;
    for (const [signature, { status, reason, kind, counterexample }] of Object.entries(tests)) {
      const name = signature.replace(/\(.*/, "");
      if (status !== "Success") {
        failures.push(`${name}: ${reason ?? status}${counterexample ? ` ${JSON.stringify(counterexample)}` : ""}`);
        continue;
      }
      good += 1;
      if (kind.Invariant) kinds.push(`${kind.Invariant.runs} runs, ${kind.Invariant.calls} calls, ${kind.Invariant.reverts} reverts`);
      if (kind.Fuzz) kinds.push(`${name}: ${kind.Fuzz.runs} runs`);
      if (!kind.Invariant && !named.delete(name)) failures.push(`${name}: no leaf of spec/*.tree names it`);
    }
    passed += good;
    console.log(`${suite.replace(/^.*:/, "").padEnd(15)} ${String(good).padStart(3)} passed${kinds.length ? `  (${kinds.join("; ")})` : ""}`);
  }
  if (exit !== 0 && failures.length === 0) failures.push(`forge ended with ${exit}:\n${stderr}`);
  failures.push(...gasDifferences());
  for (const [test, place] of named) failures.push(`${place}: ${test} has not passed`);
  for (const failure of failures) console.log(`FAILED ${failure}`);
  console.log(`\n${passed} passed, ${failures.length} failed`);
  return failures.length === 0;
}

const words = process.argv.slice(2);
writeFixtures();
if (words[0] === "--") {
  process.exit(forge(words.slice(1), { stdio: "inherit" }).status ?? 1);
} else if (words[0] === "--gas") {
  const env = { ...process.env, FORGE_SNAPSHOT_CHECK: "false" };
  process.exit(forge(["--match-contract", "GasTest"], { stdio: "inherit", env }).status ?? 1);
} else if (words.length > 0) {
  console.error(`unknown option ${words[0]}`);
  process.exit(2);
}
console.log(run(forgeBin(), ["--version"]).split("\n")[0]);
process.exit(report(forge(["--json"])) ? 0 : 1);

// Our gateway with a folder and books of its own, in front of a service that knows nothing of payments; and the way in
// which cases are run.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { indent, start } from "./bench.mjs";
import { farthingBin } from "./paths.mjs";
import { stopAll } from "./process.mjs";
import { freePort } from "./world.mjs";

/** A service that counts how often it is asked for each path. `answer` gives a status and what is said as JSON. */
async function upstream(answer) {
  const calls = new Map();
  const service = createServer((req, res) => {
    const { pathname } = new URL(req.url, "http://upstream");
    let body = "";
    req.on("data", (chunk) => (body += chunk));
    req.on("end", () => {
      calls.set(pathname, (calls.get(pathname) ?? 0) + 1);
      const [status, said] = answer(pathname, body, req.headers);
      res.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(said));
    });
  });
  await new Promise((done) => service.listen(0, "127.0.0.1", done));
  return { port: service.address().port, calls: (path) => calls.get(path) ?? 0, close: () => service.close() };
}

/** A gateway that can be ended and started on the same books. Its environment is `env`. */
export class Gateway {
  async prepare(answer) {
    this.dir = mkdtempSync(join(tmpdir(), "farthing-interop-"));
    this.service = await upstream(answer);
    this.port = await freePort();
    this.url = `http://127.0.0.1:${this.port}`;
    this.store = join(this.dir, "gateway.db");
  }

  /** Writes its configuration: `gateway` is more of that section, `sections` are the others. */
  configure(gateway, sections) {
    writeFileSync(join(this.dir, "farthing.toml"), `
[gateway]
listen = "127.0.0.1:${this.port}"
upstream = "http://127.0.0.1:${this.service.port}"
${gateway}
[store]
path = "${this.store}"
${sections}`);
  }

  async start() {
    const args = ["gateway", "-c", join(this.dir, "farthing.toml")];
    this.program = await start(farthingBin(), "our gateway", this.env, this.url, args);
  }

  async restart() {
    await this.program.stop();
    await this.start();
  }

  async close() {
    await this.program.stop();
    this.service.close();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** What our books say was settled, once their own check says that they are sound; with the gateway stopped. */
  settled() {
    const ledger = (...words) =>
      JSON.parse(execFileSync(farthingBin(), ["ledger", ...words, "--store", this.store, "--json"], { encoding: "utf8" }));
    if (!ledger("check").sound) throw new Error("the books should be sound");
    const payments = ledger("payments", "--limit", "1000").filter(({ state }) => state === "settled");
    return payments.reduce((sum, { atoms }) => sum + BigInt(atoms), 0n);
  }
}

/** A whole script of cases: `run` gets the names that are asked for, and returns how many held and how many did not. */
export async function script(cases, run) {
  const words = process.argv.slice(2);
  const filter = words.includes("--filter") ? words[words.indexOf("--filter") + 1] : "";
  const names = Object.keys(cases).filter((name) => name.includes(filter));
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => stopAll().then(() => process.exit(130)));
  if (words.includes("--list")) return console.log(names.join("\n"));
  try {
    const { passed, failed } = await run(names).finally(stopAll);
    console.log(`${passed} passed, ${failed} failed`);
    process.exitCode = failed === 0 && passed === names.length + 1 ? 0 : 1;
  } catch (error) {
    console.error(error.stack);
    process.exitCode = 1;
  }
}

/** Runs cases one after the other, and then compares what the books have with what is there, which is `least` or more. */
export async function runCases(cases, names, subject, gateway, { there, unit, least = 0n }) {
  const counts = { passed: 0, failed: 0 };
  for (const name of names) {
    const started = Date.now();
    try {
      await cases[name](subject);
      counts.passed++;
      console.log(`ok   ${name} ${Date.now() - started} ms`);
    } catch (error) {
      counts.failed++;
      console.log(`FAIL ${name}\n     ${error.stack.slice(0, 2_000)}`);
      console.log(indent(gateway.program.output().slice(-2_000)));
    }
  }
  const had = BigInt(await there());
  await gateway.program.stop();
  const booked = gateway.settled();
  const equal = booked === had && had >= least;
  counts[equal ? "passed" : "failed"]++;
  console.log(`${equal ? "ok  " : "FAIL"} the books have ${booked} ${unit}, and there are ${had}`);
  return counts;
}

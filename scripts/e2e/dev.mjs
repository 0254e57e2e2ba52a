#!/usr/bin/env node
// `farthing dev`: what it prints works, the published `@x402/fetch` included, and it leaves nothing behind.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

import { check, read, repo, rpc, run, same, script, service, until, usdc } from "./support.mjs";

/** Runs a script as if it lay where the published packages are installed. */
function runModule(text) {
  // Node 18 has the Web Crypto that the package wants only on request.
  const crypto = globalThis.crypto ? [] : ["--experimental-global-webcrypto"];
  const child = spawn(process.execPath, [...crypto, "--input-type=module", "-"], { cwd: join(repo, "interop"), stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(text);
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (chunk) => (stdout += chunk));
  return new Promise((done) => child.once("close", (code) => done({ code, stdout })));
}

await script(async () => {
  const dev = await service(["dev"]);
  const [, agent, , , , , stratus] = await rpc(dev.rpc, "eth_accounts");
  const [before, earned] = [await usdc(dev.rpc, agent), await usdc(dev.rpc, stratus)];

  const bought = await run(["fetch", `${dev.environment.STRATUS}/today`, "--max", "0.01"], dev.environment);
  same("farthing fetch buys", bought.code, 0);
  same("the agent paid", before - (await usdc(dev.rpc, agent)), 2500n);

  const text = read(dev.script);
  same("the script has ten lines", text.trim().split("\n").length, 10);
  const paid = await runModule(text);
  check("@x402/fetch buys as well", paid.code === 0 && /^200 /.test(paid.stdout), paid.stdout);
  same("the seller earned twice", (await usdc(dev.rpc, stratus)) - earned, 5000n);

  const story = spawn("sh", [join(repo, "examples/hire.sh")], {
    env: { ...process.env, ...dev.environment, FARTHING_HOME: dev.wallets.researcher, PATH: `${join(dev.script, "../bin")}:${process.env.PATH}` },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const code = await new Promise((done) => story.once("close", done));
  same("a story runs in it", code, 0);

  await dev.stop();
  check("afterwards its files are gone", !existsSync(dev.script));
  await until("the end of the chain", () => rpc(dev.rpc, "eth_chainId").then(() => false, () => true));
  check("and its processes", true);
});

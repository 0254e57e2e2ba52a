// Starting and ending what is measured, and asking our own measuring commands, for both reports.

import { rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

import { Program, runToEnd, stopAll } from "../../interop/support/process.mjs";
import { NETWORK, freePort } from "../../interop/support/world.mjs";
import { BENCH, FARTHING, gatewayConfig } from "./contestants.mjs";

/** A machine with more than this to do already measures the others. */
export const QUIET_LOAD = 0.7;
/** The longest that one measurement may take. */
const TIMEOUT_MS = 3_600_000;

export const note = (text) => console.error(text);

/** What a program says on its last line. */
export async function json(program, args, env = process.env) {
  const { code, stdout, stderr } = await runToEnd(program, args.map(String), { env, timeoutMs: TIMEOUT_MS });
  if (code !== 0) throw new Error(`${args.join(" ")} failed: ${stderr}${stdout}`);
  return JSON.parse(stdout.trim().split("\n").at(-1));
}

/** One of our own measuring commands. */
export const bench = (args, env) => json(BENCH, args, env);

/** `{ a: 1, b: true }` as `--a 1 --b`. */
export const options = (of) => Object.entries(of).flatMap(([name, value]) => (value === true ? [`--${name}`] : [`--${name}`, value]));

/** How a contestant is started. */
export async function launch(contestant, world, { rpcUrl = world.rpcUrl, relayer = contestant.relayer, store } = {}) {
  const port = await freePort();
  const key = world.accounts[relayer].privateKey;
  const { PATH, HOME } = process.env;
  const env = { PATH, HOME, PORT: String(port), EVM_PRIVATE_KEY: key, EVM_NETWORK: NETWORK, EVM_RPC_URL: rpcUrl, NODE_ENV: "production" };
  return { url: `http://127.0.0.1:${port}`, command: contestant.command({ port, rpcUrl, key, store }), env };
}

/** The same, started and ready. The caller stops its `server`. */
export async function start(contestant, world, how) {
  const { url, command: [program, ...args], env } = await launch(contestant, world, how);
  const began = performance.now();
  const server = new Program(program, args, env, contestant.name);
  try {
    await server.ready(`${url}/health`);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return { contestant, name: contestant.name, url, server, startedMs: performance.now() - began };
}

/** A gateway that settles by itself, before a service that says hello. `work` gets its URL and process. */
export async function selling(world, { relayer, scratch }, work) {
  const upstream = createServer((_req, res) => res.end("sunny\n"));
  await new Promise((done) => upstream.listen(0, "127.0.0.1", done));
  const port = await freePort();
  const file = join(scratch, `gateway-${port}.toml`);
  writeFileSync(file, gatewayConfig({
    port, upstream: `http://127.0.0.1:${upstream.address().port}`, payTo: world.accounts[9].address,
    store: join(scratch, `gateway-${port}.db`), rpcUrl: world.rpcUrl,
  }));
  const keys = { RELAYER_KEY: world.accounts[relayer].privateKey, PAYEE_KEY: world.accounts[9].privateKey };
  const gateway = new Program(FARTHING, ["gateway", "-c", file], { ...process.env, ...keys }, "gateway");
  try {
    const url = `http://127.0.0.1:${port}`;
    await gateway.ready(`${url}/health`);
    return await work({ url, server: gateway });
  } finally {
    await gateway.stop();
    upstream.closeAllConnections?.();
    upstream.close();
  }
}

/** Runs a report, and leaves nothing behind but what it wrote, however it ends. */
export async function run(main, scratch) {
  const end = async (code) => {
    await stopAll();
    rmSync(scratch, { recursive: true, force: true });
    process.exit(code);
  };
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => end(130));
  try {
    await main();
    await end(0);
  } catch (error) {
    console.error(error);
    await end(1);
  }
}

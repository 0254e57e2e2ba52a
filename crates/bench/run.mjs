#!/usr/bin/env node
// Our servers beside their peers, on one machine, in one run. `scripts/bench` builds what this needs and starts it.
//
//   node crates/bench/run.mjs [--quick] [--only functions,verify,…] [--report FILE]
//
// Programs: FARTHING_BIN and FARTHING_BENCH_BIN, else the release builds; X402_RS_BIN, x402-rs' own facilitator, is
// left out when it is not set. Everything listens on loopback, and everything that is paid is worth nothing.

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, statSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

import { repo } from "../../interop/support/paths.mjs";
import { Program, runToEnd } from "../../interop/support/process.mjs";
import { USDC, erc20, freePort, startWorld } from "../../interop/support/world.mjs";
import {
  BENCH, FARTHING, REVERTS, X402_RS, X402_RS_VALIDATOR, all, memoryOf, nodePid, processorOf, target,
} from "./contestants.mjs";
import { QUIET_LOAD, bench, launch, note, options, run, selling, start } from "./programs.mjs";
import { Table } from "./table.mjs";

const STEPS = ["functions", "decisions", "claims", "authorize", "start", "verify", "delayed", "settle", "sessions", "memory", "builds"];
/** What nothing of ours but the money in it needs: tests of these must be quick to have. */
const CORE = ["primitives", "wire", "evm", "ledger", "policy", "payment", "rails"];
const BLOCK_SECONDS = 2;
const RPC_DELAY_MS = 25;
/** One call to the node, and hardly more. */
const DELAYED_MOST_MS = 30;
const PRICE = 1_000n;
/** What every buyer has: enough for every payment of a run. */
const FUNDS = 1_000_000_000n;

/** By how much memory may grow over many requests and still be called flat: what an allocator keeps varies. */
const FLAT = 1.1;
/** What the store's page cache may come to hold of the payments, and no more. */
const STORE_CACHE_MIB = 64;
const CLAIMS_IN_FLIGHT = [256, 1024];
const WARM_CONNECTIONS = [1, 32, 128];

/** How much is done of everything; `quick` only shows that it works. */
const FULL = {
  payers: 10_000, coldSeconds: 300, turns: 3, turnSeconds: 5, mostRequests: 150_000, functionSeconds: 4, claims: 40_960, past: [0, 10_000, 100_000], authorizeSeconds: 10,
  starts: 20,
  settle: { 1: 10, 50: 300, 200: 1_200 }, settleSeconds: 90, memory: 100_000, memoryPaid: 2_000,
  sessions: { channels: [1, 32, 128], vouchers: 8_000, rounds: 3 },
};
const QUICK = {
  payers: 1_000, coldSeconds: 10, turns: 1, turnSeconds: 1.5, mostRequests: 20_000, functionSeconds: 0.5, claims: 4_096, past: [0, 1_000], authorizeSeconds: 2,
  starts: 5,
  settle: { 1: 2, 200: 200 }, settleSeconds: 20, memory: 5_000, memoryPaid: 50,
  sessions: { channels: [8], vouchers: 1_000, rounds: 1 },
};

const arguments_ = readArguments(process.argv.slice(2));
const size = arguments_.quick ? QUICK : FULL;
const scratch = mkdtempSync(join(tmpdir(), "farthing-bench-"));
const table = new Table();

const { ours, x402rs, typescript } = all(scratch);

function contestants() {
  const found = [typescript];
  if (X402_RS) found.push(x402rs);
  else table.omit("x402-rs", "X402_RS_BIN does not name its facilitator's binary");
  if (has("facilitator")) found.push(ours);
  else table.omit("farthing's facilitator", `${FARTHING} has no such command`);
  return found;
}

/** Whether our program knows a command. */
function has(command) {
  return existsSync(FARTHING) && spawnSync(FARTHING, [command, "--help"], { stdio: "ignore" }).status === 0;
}

/** Starts all of `found` before `rpcUrl`. `work` gets them with their URLs and processes; those not asked rest. */
async function serving(found, world, rpcUrl, work) {
  const servers = [];
  try {
    for (const contestant of found) {
      servers.push(await start(contestant, world, { rpcUrl }));
    }
    return await work(servers);
  } finally {
    await Promise.all(servers.map(({ server }) => server.stop()));
  }
}

async function load(kind, url, of) {
  const said = await bench(["load", kind, "--url", url, ...options(of)]);
  const wrong = Object.entries(said.wrong);
  if (wrong.length > 0) {
    note(`    not right: ${wrong.map(([why, count]) => `${count} × ${why}`).join(", ")}`);
    for (const sample of said.samples) note(`      ${sample}`);
  }
  return said;
}

const ms = (number) => number.toFixed(number < 10 ? 2 : 1);
const describe = (said) =>
  `${said.good} good, ${Math.round(said.rate)} a second, p50 ${ms(said.p50_ms)} ms, p99 ${ms(said.p99_ms)} ms, max ${ms(said.max_ms)} ms`;
const wrongs = (said) => Object.values(said.wrong).reduce((sum, count) => sum + count, 0);

// ---------------------------------------------------------------------------------------------------------------------
// What is measured.

const steps = {
  async functions() {
    const rows = await bench(["functions", "--seconds", size.functionSeconds]);
    const title = {
      recover: "recovering a signer", check: "a payment's fields and signature", parse: "reading a /verify body",
      "parse-check": "from bytes to a checked payment",
    };
    const aim = { recover: 0.85, check: 0.85 };
    for (const { name, rate, peer, peer_rate, ratio } of rows) {
      table.row(title[name], { ours: rate, unit: "/s", peers: { [peer]: { value: peer_rate, ratio } }, aim: aim[name] && [peer, aim[name]] });
    }
  },

  async decisions() {
    const rivals = join(repo, "crates/bench/rivals/Cargo.toml");
    const said = JSON.parse(execFileSync("cargo", ["run", "--quiet", "--release", "--locked", "--manifest-path", rivals], { encoding: "utf8", env: { ...process.env, CARGO_TARGET_DIR: join(target, "rivals") } }));
    const beside = (part) => Object.fromEntries(["cedar", "cel"].map((name) => [name, { value: said[name][part], ratio: said[name][part] / said.ours[part] }]));
    table.row(`a decision by ${said.rules} rules and four budgets, p50`, { ours: said.ours.p50_us, unit: "µs", peers: beside("p50_us") });
    table.row(`a decision by ${said.rules} rules and four budgets, p99`, { ours: said.ours.p99_us, unit: "µs", peers: beside("p99_us"), most: 5 });
  },

  async claims() {
    const dir = dirname(arguments_.report);
    mkdirSync(dir, { recursive: true });
    for (const inFlight of CLAIMS_IN_FLIGHT) {
      const said = await bench(["claims", "--dir", dir, "--in-flight", inFlight, "--count", size.claims]);
      note(`  ${inFlight} in flight: ${Math.round(said.engine)} claims a second, ${said.group} a commit`);
      table.row(`durable claims through the engine, ${inFlight} in flight`, {
        ours: said.engine, unit: "/s", peers: { "raw SQLite": { value: said.sqlite, ratio: said.ratio } },
        aim: ["raw SQLite", 0.6], least: 20_000,
      });
    }
  },

  async authorize() {
    const dir = dirname(arguments_.report);
    mkdirSync(dir, { recursive: true });
    const said = await bench(["authorize", "--dir", dir, "--past", size.past.join(","), "--rate", 1_000, "--seconds", size.authorizeSeconds]);
    for (const { past, done, p99_ms } of said.rows) {
      note(`  after ${past} payments: ${Math.round(done)} a second, p99 ${p99_ms.toFixed(2)} ms; the disk syncs in ${said.sync.p99_ms.toFixed(2)} ms`);
      table.row(`from intent to durable signature at 1,000/s after ${past} payments, p99`, {
        ours: p99_ms, unit: "ms", peers: { "one sync, p99": { value: said.sync.p99_ms, ratio: said.sync.p99_ms / p99_ms } },
        most: said.sync.p99_ms + 1,
      });
    }
  },

  async start({ world, found }) {
    if (!existsSync(FARTHING)) return table.omit("start-up", `no program at ${FARTHING}`);
    const version = await bench(["start", "--times", size.starts, "--", FARTHING, "--version"]);
    table.row("farthing --version", { ours: version.median_ms, unit: "ms", most: 100 });
    const first = {};
    for (const contestant of found) {
      const { url, command, env } = await launch(contestant, world);
      const args = ["start", "--url", `${url}/health`, "--times", size.starts, "--", ...command];
      first[contestant.name] = (await bench(args, env)).median_ms;
    }
    table.compare("facilitator: from start to /health", first, { unit: "ms", less: true, most: 100 });
    table.row("size of the program", { ours: statSync(FARTHING).size / 2 ** 20, unit: "MiB", peers: sizes() });
  },

  async verify({ world, found }) {
    await serving(found, world, world.rpcUrl, async (servers) => {
      const memory = {};
      for (const { name, server } of servers) note(`  ${name}: ${ms(memoryOf(server))} MiB at the start`);
      await verifyRuns(servers, "/verify", { 32: { "x402-rs": 3, TypeScript: 30 } });
      for (const { name, server } of servers) memory[name] = memoryOf(server);
      table.compare("facilitator: memory after these", memory, { unit: "MiB", less: true });
    });
  },

  async delayed({ world, found }) {
    const { host } = new URL(world.rpcUrl);
    const port = await freePort();
    const proxy = new Program(BENCH, ["delay", "--to", host, "--ms", String(RPC_DELAY_MS), "--listen", `127.0.0.1:${port}`], process.env);
    try {
      await serving(found, world, `http://127.0.0.1:${port}`, async (servers) => {
        const { cold, warm } = await verifyRuns(servers, `/verify, RPC +${RPC_DELAY_MS} ms`, {}, 128);
        for (const [title, said] of [["cold", cold.farthing], ["warm", warm[128].farthing]]) {
          if (!said) continue;
          table.row(`/verify, RPC +${RPC_DELAY_MS} ms, 128 connections, ${title}: p50`, { ours: said.p50_ms, unit: "ms", most: DELAYED_MOST_MS });
        }
      });
    } finally {
      await proxy.stop();
    }
  },

  async settle({ found }) {
    const world = await startWorld({ blockTime: BLOCK_SECONDS });
    try {
      await prepare(world);
      await serving(found, world, world.rpcUrl, async (servers) => {
        for (const [inFlight, requests] of Object.entries(size.settle)) {
          const runs = {};
          for (const server of servers) runs[server.name] = await settleRun(world, server, Number(inFlight), requests);
          settleRows(`/settle, ${BLOCK_SECONDS} s blocks, ${inFlight} in flight`, runs, requests, inFlight === "1");
        }
        for (const server of servers) {
          const fit = await stillSettles(world, server);
          if (server.contestant === ours) table.fact("200 in flight on one key: no stuck nonce, and it still settles", fit);
          else note(`  ${server.name}: afterwards ${fit ? "no stuck nonce" : "a stuck nonce"}`);
        }
      });
    } finally {
      await world.stop();
    }
  },

  /** Each request paid by a voucher, durably, in turns with the same requests free of charge. */
  async sessions({ world }) {
    if (!has("gateway")) return table.omit("sessions", `${FARTHING} has no gateway`);
    const { channels, vouchers, rounds } = size.sessions;
    let first = 0;
    for (const count of channels) {
      await selling(world, { relayer: ours.relayer, scratch }, async ({ url, server }) => {
        const before = processorOf(server.pid);
        const said = await bench([
          "session", "--url", `${url}/unit`, "--free", `${url}/free`, "--channels", count, "--first-payer", first,
          "--seconds", size.turnSeconds, "--rounds", rounds, "--vouchers", Math.ceil(vouchers / Math.sqrt(count)),
        ]);
        first += count;
        const own = ((processorOf(server.pid) - before) * 1000) / (said.paid.good + said.free.good);
        note(`  ${count} channels: ${Math.round(said.paid.rate)} paid a second, ${Math.round(said.free.rate)} free, ${said.wrong} wrong; ${Math.round(own)} µs of the processor for each`);
        for (const sample of said.samples) note(`      ${sample}`);
        const title = `paid by voucher, ${count} channel${count === 1 ? "" : "s"}`;
        table.row(title, {
          ours: said.paid.rate, unit: "/s", peers: { "free of charge": { value: said.free.rate, ratio: said.ratio } },
          aim: count === 32 ? ["free of charge", 0.5] : undefined,
        });
        const theirs = (await mppxSession(count, Math.ceil(1_000 / count) + 100)).paid.rate;
        table.row(`${title}, beside unlike rails`, {
          ours: said.paid.rate, unit: "/s", peers: { "mppx on Tempo, in memory": { value: theirs, ratio: said.paid.rate / theirs } },
          aim: count === 32 ? ["mppx on Tempo, in memory", 10] : undefined,
        });
        table.row(`${title}: p99`, { ours: said.paid.p99_ms, unit: "ms", peers: { "free of charge": { value: said.free.p99_ms, ratio: said.free.p99_ms / said.paid.p99_ms } } });
        table.row(`${title}: opening one, one after the other`, { ours: said.open_ms, unit: "ms" });
        table.fact(`${title}: every answer was right`, said.wrong === 0 && said.paid.good > 0);
      });
    }
  },

  async memory({ world }) {
    if (has("gateway")) await gatewayRun(world);
    else table.omit("the gateway's memory", `${FARTHING} has no gateway`);
  },

  /** From an empty clone, with the packages downloaded before. */
  async builds() {
    if (arguments_.quick) return table.omit("builds from an empty clone", "they take minutes, and this run is quick");
    const clone = join(scratch, "clone");
    const { code, stderr } = await runToEnd("git", ["clone", "-q", repo, clone], { env: process.env, timeoutMs: 120_000 });
    if (code !== 0) throw new Error(`cannot clone: ${stderr}`);
    const core = CORE.flatMap((name) => ["-p", `farthing-${name}`]);
    const tests = await cargo(clone, "core", ["test", "--no-run", ...core]);
    table.row("the core's tests, built from nothing", { ours: tests, unit: "s", most: 180 });
    const demo = await cargo(clone, "demo", ["run", "--release", "--", "demo"]);
    table.row("an empty clone to the end of the demo", { ours: demo, unit: "s", most: 360 });
  },
};

/** How many seconds a command of cargo takes in a clone without anything built. */
async function cargo(clone, targetDir, [command, ...args]) {
  const began = performance.now();
  const env = { ...process.env, CARGO_TARGET_DIR: join(scratch, targetDir) };
  const words = [command, "-q", "--manifest-path", join(clone, "Cargo.toml"), ...args];
  const { code, stderr } = await runToEnd("cargo", words, { env, timeoutMs: 3_600_000 });
  if (code !== 0) throw new Error(`cargo ${words.join(" ")} failed: ${stderr}`);
  return (performance.now() - began) / 1000;
}

/**
 * Buyers that a process never saw, then the same buyers with other payments. The contestants take turns of some
 * seconds, so that whatever else the machine does meets all of them; of several turns the middle one counts.
 */
async function verifyRuns(servers, title, aims, coldConnections = 32) {
  const best = {};
  const node = nodePid();
  const run = async ({ name, url, server }, what, options) => {
    const before = [processorOf(server.pid), processorOf(node)];
    const said = await load("verify", `${url}/verify`, { ...options, payers: size.payers });
    said.own_us = ((processorOf(server.pid) - before[0]) * 1000) / said.good;
    said.node_us = ((processorOf(node) - before[1]) * 1000) / said.good;
    best[name] = Math.max(best[name] ?? 0, said.rate);
    note(`  ${name}, ${title}, ${what}: ${describe(said)}; processor for each: ${Math.round(said.own_us)} µs, node ${Math.round(said.node_us)} µs`);
    return said;
  };
  const cold = {};
  for (const server of servers) {
    const options = { connections: coldConnections, requests: size.payers, seconds: size.coldSeconds };
    cold[server.name] = await run(server, `${coldConnections} connections, cold`, options);
  }
  verifyRows(`${title}, ${coldConnections} connections, cold`, cold);
  const warm = {};
  for (const connections of WARM_CONNECTIONS) {
    const what = `${connections} connection${connections === 1 ? "" : "s"}, warm`;
    const turns = Object.fromEntries(servers.map(({ name }) => [name, []]));
    for (let turn = 0; turn < size.turns; turn++) {
      for (const server of servers) {
        const requests = Math.min(size.mostRequests, Math.ceil(best[server.name] * size.turnSeconds * 2) + 1_000);
        turns[server.name].push(await run(server, what, { connections, requests, seconds: size.turnSeconds }));
      }
    }
    warm[connections] = Object.fromEntries(Object.entries(turns).map(([name, said]) => [name, middle(said)]));
    verifyRows(`${title}, ${what}`, warm[connections], aims[connections], aims[connections] && { "x402-rs": 1, TypeScript: 1 });
  }
  return { cold, warm };
}

function verifyRows(what, runs, rates, tails) {
  table.compare(what, pick(runs, "rate"), { unit: "/s", aims: rates });
  table.compare(`${what}: p50`, pick(runs, "p50_ms"), { unit: "ms", less: true });
  table.compare(`${what}: p99`, pick(runs, "p99_ms"), { unit: "ms", less: true, aims: tails });
  table.compare(`${what}: processor time for each`, pick(runs, "own_us"), { unit: "µs", less: true });
  table.compare(`${what}: the node's processor time for each`, pick(runs, "node_us"), { unit: "µs", less: true });
  if (runs.farthing) table.fact(`${what}: every payment was found valid`, wrongs(runs.farthing) === 0);
}

/** The middle of each number over several runs, and all that went wrong in any. */
function middle(runs) {
  const wrong = Object.assign({}, ...runs.map((said) => said.wrong));
  const sorted = (key) => runs.map((said) => said[key]).sort((a, b) => a - b);
  const of = (key) => sorted(key)[Math.floor(runs.length / 2)];
  return { ...Object.fromEntries(["good", "rate", "p50_ms", "p99_ms", "own_us", "node_us"].map((key) => [key, of(key)])), wrong };
}

/** One number of each run. A run in which nothing was right has no latency. */
const pick = (runs, key) =>
  Object.fromEntries(Object.entries(runs).map(([name, said]) => [name, key.endsWith("_ms") && said.good === 0 ? undefined : said[key]]));

/** A payee of its own for each run, so that the token tells how much of it moved. */
async function settleRun(world, { name, url }, inFlight, requests) {
  const payTo = `0x${Buffer.from(`${name} ${inFlight}`.padEnd(20, "*")).subarray(0, 20).toString("hex")}`;
  const options = { connections: inFlight, requests, seconds: size.settleSeconds, payers: size.payers, "pay-to": payTo };
  const said = await load("settle", `${url}/settle`, options);
  await afterBlocks(world, 2);
  const moved = await world.client.readContract({ address: USDC, abi: erc20, functionName: "balanceOf", args: [payTo] });
  said.unaccounted = Number(moved / PRICE) - said.good;
  note(`  ${name}, /settle, ${inFlight} in flight: ${describe(said)}; moved ${moved / PRICE}`);
  return said;
}

function settleRows(title, runs, requests, alone) {
  // A payment may have to wait for the next block, and no longer.
  const most = BLOCK_SECONDS * 1000 + 100;
  table.compare(`${title}: settled of ${requests}`, pick(runs, "good"), { unit: "" });
  table.compare(title, pick(runs, "rate"), { unit: "/s" });
  table.compare(`${title}: p50`, pick(runs, "p50_ms"), { unit: "ms", less: true, most });
  table.compare(`${title}: p99`, pick(runs, "p99_ms"), { unit: "ms", less: true, most: alone ? most : undefined });
  const unaccounted = pick(runs, "unaccounted");
  if (Object.values(unaccounted).some((count) => count !== 0)) {
    table.compare(`${title}: payments that moved money and were not reported`, unaccounted, { unit: "", less: true });
  }
  const said = runs.farthing;
  if (said) table.fact(`${title}: every payment settled, and the token says so`, said.unaccounted === 0 && wrongs(said) === 0);
}

/** Whether nothing waits for a nonce, and another payment settles. */
async function stillSettles(world, { contestant, url }) {
  const { address } = world.accounts[contestant.relayer];
  const [pending, latest] = await Promise.all(
    ["pending", "latest"].map((blockTag) => world.client.getTransactionCount({ address, blockTag })),
  );
  const said = await load("settle", `${url}/settle`, { connections: 1, requests: 1, payers: 1 });
  return pending === latest && said.good === 1;
}

async function afterBlocks(world, count) {
  const goal = (await world.client.getBlockNumber()) + BigInt(count);
  while ((await world.client.getBlockNumber()) < goal) await new Promise((next) => setTimeout(next, 100));
}

/**
 * The published package's own session, which is of Tempo's chain: no node for development has its contract, so its store,
 * in memory, is given open channels, and what it asks the chain is answered in its own process. Unlike ours it keeps nothing.
 */
async function mppxSession(channels, vouchers) {
  const [port, headers] = [await freePort(), join(scratch, "headers")];
  const env = { ...process.env, PORT: String(port), CHANNELS: String(channels), VOUCHERS: String(vouchers), HEADERS: headers };
  const server = new Program(process.execPath, [join(repo, "interop/support/peers/session-mpp.mjs")], env, "mppx");
  try {
    const url = `http://127.0.0.1:${port}`;
    await server.ready(`${url}/health`);
    const said = await bench(["session", "--url", `${url}/unit`, "--free", `${url}/free`, "--channels", channels, "--seconds", size.turnSeconds, "--headers", headers]);
    note(`  mppx, ${channels} channels: ${Math.round(said.paid.rate)} paid a second, ${said.wrong} wrong`);
    for (const sample of said.samples) note(`      ${sample}`);
    return said;
  } finally {
    await server.stop();
  }
}

/** Many requests at one gateway that settles by itself: most unpaid, some paid; what it keeps of them in memory. */
async function gatewayRun(world) {
  await selling(world, { relayer: ours.relayer, scratch }, async ({ url, server: gateway }) => {
    const ask = (requests) => load("challenge", `${url}/weather`, { connections: 32, requests, seconds: 600 });
    const pay = (requests) => load("pay", `${url}/weather`, { connections: 16, requests, payers: size.payers, seconds: 600 });
    // What is allocated once and kept, such as threads and pools, is there after a tenth.
    await pay(Math.ceil(size.memoryPaid / 10));
    await ask(size.memory / 10);
    const before = memoryOf(gateway);
    const asked = await ask(size.memory);
    const afterAsked = memoryOf(gateway);
    note(`  gateway, unpaid: ${describe(asked)}; ${ms(before)} MiB before, ${ms(afterAsked)} MiB after`);
    table.row(`gateway: memory after ${asked.good} requests`, {
      ours: afterAsked, unit: "MiB", most: before * FLAT, peers: { "before them": { value: before, ratio: before / afterAsked } },
    });
    const paid = await pay(size.memoryPaid);
    const afterPaid = memoryOf(gateway);
    note(`  gateway, paid: ${describe(paid)}; ${ms(afterPaid)} MiB after`);
    table.row(`gateway: memory after ${paid.good} more that were paid`, {
      ours: afterPaid, unit: "MiB", most: before * FLAT + STORE_CACHE_MIB, peers: { "before them": { value: afterAsked, ratio: afterAsked / afterPaid } },
    });
    table.row("gateway: challenges", { ours: asked.rate, unit: "/s" });
    table.row("gateway: paid requests on instant blocks (as fast as the node makes them)", { ours: paid.rate, unit: "/s" });
    table.fact("gateway: every answer was right", wrongs(asked) === 0 && wrongs(paid) === 0);
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// The run.

async function prepare(world) {
  await world.test.setCode({ address: X402_RS_VALIDATOR, bytecode: REVERTS });
  await bench(["fund", "--rpc", world.rpcUrl, "--payers", size.payers, "--atoms", FUNDS]);
}

const sizes = () => (X402_RS ? { "x402-rs": { value: statSync(X402_RS).size / 2 ** 20, ratio: statSync(X402_RS).size / statSync(FARTHING).size } } : {});

function readArguments(words) {
  const options = { quick: false, only: STEPS, report: join(target, "bench/report.json") };
  for (let i = 0; i < words.length; i++) {
    if (words[i] === "--quick") options.quick = true;
    else if (words[i] === "--only" && words[i + 1]) options.only = words[++i].split(",");
    else if (words[i] === "--report" && words[i + 1]) options.report = resolve(words[++i]);
    else throw new Error(`unknown option: ${words.slice(i).join(" ")}`);
  }
  const unknown = options.only.filter((step) => !STEPS.includes(step));
  if (unknown.length > 0) throw new Error(`no step is called ${unknown.join(", ")}; there are ${STEPS.join(", ")}`);
  return options;
}

async function main() {
  const load1 = loadavg()[0];
  const machine = { cores: cpus().length, cpu: cpus()[0]?.model, load: load1, at: new Date().toISOString() };
  if (load1 > QUIET_LOAD) note(`this machine has other work (load ${load1.toFixed(2)}): ratios of servers mean little`);
  const found = contestants();
  const world = await startWorld();
  try {
    await prepare(world);
    for (const step of STEPS.filter((name) => arguments_.only.includes(name))) {
      note(`== ${step}`);
      await steps[step]({ world, found });
    }
  } finally {
    await world.stop();
  }
  console.log(table.print());
  mkdirSync(dirname(arguments_.report), { recursive: true });
  writeFileSync(arguments_.report, `${JSON.stringify({ machine, quick: arguments_.quick, ...table.data() }, null, 2)}\n`);
  console.log(`\n${machine.cores} cores, ${machine.cpu}, load ${load1.toFixed(2)} before; in full: ${arguments_.report}`);
}

await run(main, scratch);

#!/usr/bin/env node
// The load report: measures, keeps what it measured in `performance/data.json`, and writes `performance.md` and its plots
// from that. `scripts/load-report` builds what this needs and starts it.
//
//   node crates/bench/report.mjs [--quick] [--only saturation,payers,…] [--history N] [--out DIR] [--leave-free GIB]
//
// Everything listens on loopback, and everything that is paid is worth nothing.

import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { join, resolve } from "node:path";

import { repo } from "../../interop/support/paths.mjs";
import { startWorld } from "../../interop/support/world.mjs";
import {
  BENCH, FARTHING, REVERTS, X402_RS, X402_RS_VALIDATOR, all, memoryOf, nodePid, processorOf, processorOfAll, processorOfThreads, target,
} from "./contestants.mjs";
import { QUIET_LOAD, bench, json, note, options, run, selling, start } from "./programs.mjs";
import { write } from "./report-page.mjs";

/** How much is done of everything. Blocks are those of Base, or half as long to be quicker. */
const FULL = {
  blockSeconds: 2, steps: { verify: 5, settle: 14, paid: 14 }, payers: [1, 10, 100, 1_000, 10_000, 100_000], payerRequests: 20_000,
  history: [0, 1_000_000, 10_000_000], historyRequests: 16_000, live: 100_000, claims: 40_960, frontRequests: 20_000,
  diskSeconds: 4, rounds: 3,
};
const QUICK = {
  blockSeconds: 1, steps: { verify: 4, settle: 10, paid: 10 }, payers: [1, 10, 100, 1_000, 10_000, 100_000], payerRequests: 8_000,
  history: [0, 1_000_000], historyRequests: 8_000, live: 50_000, claims: 20_480, frontRequests: 16_000, diskSeconds: 2, rounds: 3,
};

const PARTS = ["saturation", "payers", "history", "live", "commit"];
const PRICE = 1_000;
const BUYERS = 10_000;
/** The gateway settles with a key of its own. */
const GATEWAY_RELAYER = 4;
/** With blocks of seconds, so many wait for theirs; the facilitator takes 1,024 of a seller's at once. */
const IN_FLIGHT = 900;
/** One block holds what Base's hold, and more: the node's processor is to be the limit and not its setting. */
const BLOCK_GAS = 1_000_000_000n;
/** What a facilitator says of a payer without tokens: after the claim was made durable, and before it is taken back. */
const BROKE = "invalid_exact_evm_insufficient_balance";
/** What a payment takes in the books while they are made and after. */
const BYTES_EACH = 2_400;
/** About how many minutes the parts take on two cores. */
const MINUTES = { saturation: [10, 6], payers: [2, 1], history: [9, 3], live: [1, 1], commit: [3, 2] };

const arguments_ = readArguments(process.argv.slice(2));
const size = arguments_.quick ? QUICK : FULL;
size.history = size.history.filter((payments) => payments <= arguments_.history);
mkdirSync(join(target, "bench"), { recursive: true });
refuseSmallDisk();
// Not in a directory for temporary files: those may be memory, and the disk is part of what is measured.
const scratch = mkdtempSync(join(target, "bench/load-"));
const { ours, x402rs, typescript } = all(scratch);

// ---------------------------------------------------------------------------------------------------------------------
// Programs.

const load = (kind, url, of) => json(FARTHING, ["load", kind, url, ...options(of)]);
const closed = (kind, url, of) => bench(["load", kind, "--url", url, ...options(of)]);

/** Starts a facilitator; `work` gets its URL and process. */
async function serving(contestant, world, work, how) {
  const started = await start(contestant, world, how);
  try {
    return await work(started);
  } finally {
    await started.server.stop();
  }
}

async function chain(options, work) {
  const world = await startWorld(options);
  try {
    await world.test.setBlockGasLimit({ gasLimit: BLOCK_GAS });
    await world.test.setCode({ address: X402_RS_VALIDATOR, bytecode: REVERTS });
    return await work(world);
  } finally {
    await world.stop();
  }
}

/** Processor time of whoever took part while `work` ran, for each of its good answers. */
async function metered({ pid }, work) {
  const node = nodePid();
  const read = () => [processorOf(pid), processorOfThreads(pid, "store-writer"), processorOf(node), processorOfAll(), performance.now()];
  const before = read();
  const said = await work();
  const [own, writer, chain, machine, ms] = read().map((now, i) => now - before[i]);
  const count = Math.max((said.report ?? said).good, 1);
  return {
    said: said.report ?? said,
    own_us: (own * 1000) / count, writer_us: (writer * 1000) / count, node_us: (chain * 1000) / count,
    /** Of all cores together. */
    busy: machine / ms / cpus().length, own_share: own / ms / cpus().length, node_share: chain / ms / cpus().length,
    writer_busy: writer / ms,
  };
}

// ---------------------------------------------------------------------------------------------------------------------
// What is measured. Each part returns what the page needs of it.

const parts = {
  async saturation() {
    const rows = [];
    const search = async (who, kind, url, server, blockSeconds, fund) => {
      const seconds = size.steps[kind];
      const connections = kind === "verify" ? 64 : IN_FLIGHT;
      const how = { fund, payers: BUYERS, connections, seconds };
      const found = await load(kind, url, { ...how, "find-saturation": true });
      const { rate, steps } = found.saturation;
      note(`  ${who}, ${kind}: ${Math.round(rate)} a second after ${steps.length} steps`);
      if (rate === 0) {
        rows.push({ who, kind, blockSeconds, rate, steps });
        return;
      }
      const full = await metered(server, () => load(kind, url, { ...how, rate }));
      for (const { share, report } of found.at) note(`    at ${share}: p50 ${report.p50_ms} p99 ${report.p99_ms} p99.9 ${report.p999_ms}; wrong ${JSON.stringify(report.wrong)}`);
      rows.push({ who, kind, blockSeconds, connections, seconds, rate, steps, at: found.at, full });
    };
    await chain({}, async (world) => {
      const peers = [ours, ...(X402_RS ? [x402rs] : []), typescript];
      for (const who of peers) {
        await serving(who, world, ({ url, server }) => search(who.name, "verify", url, server, 0, world.rpcUrl));
      }
    });
    const { blockSeconds } = size;
    await chain({ blockTime: blockSeconds }, (world) =>
      serving(ours, world, ({ url, server }) => search("farthing", "settle", url, server, blockSeconds, world.rpcUrl)));
    await chain({ blockTime: blockSeconds }, (world) =>
      selling(world, { relayer: GATEWAY_RELAYER, scratch }, ({ url, server }) => search("farthing", "paid", `${url}/weather`, server, blockSeconds, world.rpcUrl)));
    return { rows };
  },

  /** One process that comes to know more and more payers. */
  async payers() {
    const most = Math.max(...size.payers);
    return chain({}, async (world) => {
      await bench(["fund", "--rpc", world.rpcUrl, "--payers", most]);
      const verify = await serving(ours, world, async ({ url, server }) => {
        const run = (payers, requests) => metered(server, () =>
          closed("verify", `${url}/verify`, { connections: 32, requests, payers, seconds: 600 }));
        await run(1_000, size.payerRequests);
        const rows = [];
        for (const payers of size.payers) {
          const found = await run(payers, Math.max(payers, size.payerRequests));
          rows.push({ payers, ...brief(found), memory_mib: memoryOf(server) });
          note(`  verify, ${payers} payers: ${line(rows.at(-1))}`);
        }
        return rows;
      });
      // Payers that nobody gave tokens, each once: a durable claim, a look at the chain, and a refusal.
      const claim = await serving(ours, world, async ({ url, server }) => {
        const rows = [];
        const step = most / 10;
        for (let known = 0; known < most; known += step) {
          const how = { connections: 64, requests: step, payers: step, "first-payer": 1_000_000 + known, seconds: 600, expect: BROKE };
          const found = await metered(server, () => closed("settle", `${url}/settle`, how));
          rows.push({ payers: known + step, ...brief(found), memory_mib: memoryOf(server) });
          note(`  claims, ${known + step} payers: ${line(rows.at(-1))}`);
        }
        return rows;
      });
      return { verify, claim };
    });
  },

  async history() {
    return chain({}, async (world) => {
      await bench(["fund", "--rpc", world.rpcUrl, "--payers", 100]);
      const seed = join(scratch, "seed.db");
      await serving(ours, world, async ({ url }) => {
        const said = await closed("settle", `${url}/settle`, { connections: 4, requests: 100, payers: 100, seconds: 60 });
        if (said.good !== 100) throw new Error(`not everything was settled: ${JSON.stringify(said)}`);
      }, { store: seed });
      const books = [];
      for (const [i, payments] of size.history.entries()) {
        const store = join(scratch, `history-${payments}.db`);
        const began = performance.now();
        let grown = { payments: 0, bytes: 0, bytes_each: 0 };
        if (payments > 0) {
          copyFileSync(seed, store);
          // Every check but the largest: that one would read for minutes what the same code wrote.
          grown = await bench(["history", "--store", store, "--payments", payments, ...(payments <= 1_000_000 ? ["--check"] : [])]);
          note(`  ${grown.payments} payments: ${Math.round(grown.bytes / 2 ** 20)} MiB, made in ${seconds(began)} s`);
        }
        books.push({ ...grown, store, relayer: 5 + i, turns: [] });
      }
      // In turns, so that what else the machine does meets all of them alike.
      let first = 2_000_000;
      for (let turn = 0; turn < size.rounds; turn++) {
        for (const { payments, store, relayer, turns } of books) {
          const row = await serving(ours, world, async ({ url, server, startedMs }) => {
            const run = async (requests) => {
              const how = { connections: 64, requests, payers: requests, "first-payer": (first += requests), seconds: 600, expect: BROKE };
              return metered(server, () => closed("settle", `${url}/settle`, how));
            };
            await run(2_000);
            const found = await run(size.historyRequests);
            return { ...brief(found), writer_us: found.writer_us, started_ms: startedMs, memory_mib: memoryOf(server) };
          }, { store, relayer });
          turns.push(row);
          note(`  ${payments} payments: ${line(row)}, of it the writer ${row.writer_us.toFixed(1)} µs, started in ${Math.round(row.started_ms)} ms`);
        }
      }
      return { rows: books.map(({ payments, bytes, bytes_each, turns }) => ({ payments, bytes, bytes_each, ...middle(turns) })), turns: size.rounds };
    });
  },

  async live() {
    const engine = await bench(["live", "--dir", scratch, "--count", size.live]);
    note(`  in the engine: ${engine.kib_each.toFixed(2)} KiB for each of ${engine.claims}`);
    // The same over HTTP: settlements that no block takes up, whose callers have hung up.
    const http = await chain({}, async (world) => {
      await bench(["fund", "--rpc", world.rpcUrl, "--payers", 1_000]);
      return serving(ours, world, async ({ url, server }) => {
        await closed("verify", `${url}/verify`, { connections: 64, requests: 4_000, payers: 1_000, seconds: 60 });
        await world.test.setAutomine(false);
        const before = memoryOf(server);
        const rows = [];
        for (const claims of [250, 500, 750, 1_000]) {
          await closed("settle", `${url}/settle`, { connections: 50, requests: 250, payers: 250, "first-payer": claims - 250, seconds: 60, patience: 1 });
          rows.push({ claims, memory_mib: memoryOf(server) });
        }
        note(`  over HTTP: ${before.toFixed(1)} MiB before, ${rows.at(-1).memory_mib.toFixed(1)} MiB with ${rows.at(-1).claims}`);
        return { before_mib: before, rows, kib_each: ((rows.at(-1).memory_mib - before) * 1024) / rows.at(-1).claims };
      });
    });
    return { engine, http };
  },

  /** Turns of the disk, raw SQLite with the engine, and the HTTP front, so that what else the machine does meets all. */
  async commit() {
    const dir = scratch;
    return chain({}, async (world) => {
      const turns = [];
      let first = 4_000_000;
      for (let turn = 0; turn < size.rounds; turn++) {
        const disk = await bench(["disk", "--dir", dir, "--seconds", size.diskSeconds]);
        const engine = await bench(["claims", "--dir", dir, "--in-flight", 256, "--count", size.claims]);
        const front = {};
        for (const connections of [16, 64, 256]) {
          front[connections] = await serving(ours, world, async ({ url, server }) => {
            const run = (requests) => {
              const how = { connections, requests, payers: requests, "first-payer": (first += requests), seconds: 600, expect: BROKE };
              return metered(server, () => closed("settle", `${url}/settle`, how));
            };
            await run(2_000);
            return run(size.frontRequests);
          });
          note(`  front, ${connections} connections: ${line(brief(front[connections]))}, machine ${percent(front[connections].busy)} busy`);
        }
        note(`  disk ${Math.round(disk.rate)} syncs a second; engine ${Math.round(engine.engine)}, raw SQLite ${Math.round(engine.sqlite)} claims a second`);
        turns.push({ disk, engine, front });
      }
      return { turns };
    });
  },
};

/** The middle of each number over several turns, and all that went wrong in any. */
function middle(turns) {
  const of = (key) => turns.map((turn) => turn[key]).sort((a, b) => a - b)[Math.floor(turns.length / 2)];
  const keys = Object.keys(turns[0]).filter((key) => typeof turns[0][key] === "number");
  return { ...Object.fromEntries(keys.map((key) => [key, of(key)])), wrong: Object.assign({}, ...turns.map(({ wrong }) => wrong)) };
}

const seconds = (began) => ((performance.now() - began) / 1000).toFixed(0);
const percent = (share) => `${Math.round(share * 100)} %`;
const brief = ({ said, own_us, node_us, busy }) => ({ rate: said.rate, p50_ms: said.p50_ms, p99_ms: said.p99_ms, p999_ms: said.p999_ms, wrong: said.wrong, own_us, node_us, busy });
const line = (row) => `${Math.round(row.rate)}/s, ${Math.round(row.own_us)} µs each, p50 ${row.p50_ms.toFixed(2)} ms, p99 ${row.p99_ms.toFixed(2)} ms${Object.keys(row.wrong).length ? `, WRONG ${JSON.stringify(row.wrong)}` : ""}`;

// ---------------------------------------------------------------------------------------------------------------------
// The run.

function readArguments(words) {
  const options = { quick: false, only: PARTS, out: join(repo, "docs/reference"), leaveFree: 10, history: Infinity };
  for (let i = 0; i < words.length; i++) {
    if (words[i] === "--quick") options.quick = true;
    else if (words[i] === "--only" && words[i + 1]) options.only = words[++i].split(",");
    else if (words[i] === "--out" && words[i + 1]) options.out = resolve(words[++i]);
    else if (words[i] === "--history" && Number(words[i + 1]) >= 0) options.history = Number(words[++i]);
    else if (words[i] === "--leave-free" && Number(words[i + 1]) > 0) options.leaveFree = Number(words[++i]);
    else throw new Error(`unknown option: ${words.slice(i).join(" ")}`);
  }
  const unknown = options.only.filter((part) => !PARTS.includes(part) && part !== "page");
  if (unknown.length > 0) throw new Error(`no part is called ${unknown.join(", ")}; there are ${PARTS.join(", ")}`);
  return options;
}

/** Says what is coming, and ends at once where the disk is too small for it: not after a quarter of an hour. */
function refuseSmallDisk() {
  const parts = PARTS.filter((part) => arguments_.only.includes(part));
  const minutes = parts.reduce((sum, part) => sum + MINUTES[part][arguments_.quick ? 1 : 0], 0);
  const payments = parts.includes("history") ? size.history.reduce((sum, count) => sum + count, 0) : 0;
  const { bavail, bsize } = statfsSync(target);
  const [need, free] = [1 + (payments * BYTES_EACH) / 2 ** 30, (bavail * bsize) / 2 ** 30];
  console.error(`about ${minutes} minutes on a machine that does nothing else, and ${need.toFixed(1)} GiB below ${target}, which are free again afterwards`);
  if (free - need < arguments_.leaveFree) {
    console.error(`error: ${free.toFixed(1)} GiB are free there, and ${arguments_.leaveFree} of them are to stay so (--leave-free); --history 1000000 measures shorter books`);
    process.exit(1);
  }
}

function commit() {
  const git = (...args) => spawnSync("git", args, { cwd: repo, encoding: "utf8" }).stdout?.trim();
  return process.env.FARTHING_COMMIT ?? git("rev-parse", "--short=12", "HEAD");
}

function circumstances() {
  return {
    at: new Date().toISOString().slice(0, 16).replace("T", " "), commit: commit(), quick: arguments_.quick,
    cores: cpus().length, cpu: cpus()[0]?.model, kernel: release(), memory_gib: Math.round(totalmem() / 2 ** 30), load: loadavg()[0],
  };
}

async function main() {
  const dir = join(arguments_.out, "performance");
  mkdirSync(dir, { recursive: true });
  const file = join(dir, "data.json");
  const data = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
  for (const part of PARTS.filter((name) => arguments_.only.includes(name))) {
    note(`== ${part}`);
    const where = circumstances();
    if (where.load > QUIET_LOAD) note(`  this machine has other work (load ${where.load.toFixed(2)}): its numbers mean less`);
    const began = performance.now();
    data[part] = { where, found: await parts[part]() };
    data[part].where.seconds = Math.round((performance.now() - began) / 1000);
    writeFileSync(file, `${JSON.stringify(data, null, 1)}\n`);
    note(`-- ${data[part].where.seconds} s`);
  }
  await write(arguments_.out, data, (plot, out) => {
    const { status, stderr } = spawnSync(BENCH, ["plot", "--out", out], { input: JSON.stringify(plot), encoding: "utf8" });
    if (status !== 0) throw new Error(`no plot: ${stderr}`);
  });
}

await run(main, scratch);

#!/usr/bin/env node
// Machines buy by the unit on anvil, through channels: requests, several at once, and streams. All the while the gateway
// or a wallet is killed (SIGKILL) and started again, wallets by asking again. Then every channel is closed; the escrow,
// the seller's ledger and the buyers' journals have to agree with the chain, to the atom.
//
//   node scripts/e2e/channel-kills.mjs [--kills N] [--seed S]
//
// One seed gives the same orders, targets and pauses again, if not the same instants.

import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { startWorld } from "../../interop/support/world.mjs";
import { pause } from "./cut.mjs";
import { bin, books, check, cleanAfter, freePort, parsed, run, same, scratch, script, surroundings, until, usdc } from "./support.mjs";

/** What a request, and an event of a stream, cost, in atoms. */
const REQUEST = 107n;
const EVENT = 25n;
/** What a wallet signs ahead in a stream, in events: the least that a voucher adds there. */
const AHEAD = 64n;
const BUYERS = [{ name: "ann", account: 1 }, { name: "ben", account: 2 }, { name: "cyd", account: 3 }];
/** Purchases of one buyer that run at once. */
const WORKERS = 2;
const KILL_EVERY_MS = [400, 2_500];
const RESTART_MS = [0, 800];
const REST_MS = [50, 400];
/** How long everything may take to heal, and how often one order is asked for again. */
const HEAL_MS = 180_000;
const TRIES = 12;

/** A stream of numbers that begins with a seed (mulberry32). */
function chance(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (n) => Math.floor(next() * n);
  return { below, pick: (list) => list[below(list.length)], between: ([from, to]) => from + below(to - from + 1) };
}

/** The seller's own service: goods at once, and events one after the other. */
async function service() {
  const calls = [];
  const server = createServer(async (req, res) => {
    for await (const _ of req);
    const url = new URL(req.url, "http://a");
    calls.push({ path: req.url, payment: req.headers["x-farthing-payment"] });
    res.on("error", () => {});
    if (!url.pathname.startsWith("/stream")) {
      await pause(20);
      return void res.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ path: req.url, payment: req.headers["x-farthing-payment"] }));
    }
    res.writeHead(200, { "content-type": "text/event-stream" });
    const events = Number(url.searchParams.get("events"));
    for (let event = 1; event <= events && !res.destroyed; event += 1) {
      res.write(`data: {"event":${event}}\n\n`);
      await pause(10);
    }
    res.end();
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  cleanAfter(() => {
    server.closeAllConnections?.();
    return new Promise((done) => server.close(done));
  });
  return { url: `http://127.0.0.1:${server.address().port}`, calls };
}

/** The gateway, killed and started again at the same address. */
function gateway(config, env) {
  let child;
  const start = async () => {
    for (let tries = 1; tries <= 100; tries += 1) {
      child = spawn(bin, ["gateway", "-c", config], { stdio: ["ignore", "pipe", "ignore"], env: { ...surroundings(), ...env } });
      const listens = await new Promise((done) => {
        child.stdout.setEncoding("utf8").on("data", (text) => text.includes('"url"') && done(true));
        child.once("exit", () => done(false));
      });
      if (listens) return;
      await pause(200);
    }
    throw new Error("the gateway does not start");
  };
  const end = async (signal) => {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((done) => child.once("exit", done));
    child.kill(signal);
    await gone;
  };
  cleanAfter(() => end("SIGKILL"));
  return { start, kill: () => end("SIGKILL"), stop: () => end("SIGTERM") };
}

const fetching = new Set();

/** Runs `farthing fetch` once, and takes down what came. */
async function step(order) {
  const args = ["fetch", order.url, "--max", "0.05", "--max-time", "12", "-o", "-"];
  const child = spawn(bin, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...surroundings(), FARTHING_HOME: order.buyer.home } });
  const running = { order, child };
  fetching.add(running);
  let stdout = "", stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  const [code, signal] = await new Promise((done) => child.once("close", (...how) => done(how)));
  fetching.delete(running);
  order.runs += 1;
  order.killed += signal === "SIGKILL" ? 1 : 0;
  order.broken += code !== 0 ? 1 : 0;
  if (order.events) {
    // What came of a stream is bought, also if the rest never came.
    order.had += (stdout.match(/^data: \{"event":\d+\}$/gm) ?? []).length;
  } else if (code === 0) {
    order.goods = parsed(stdout.trim());
  }
  order.done = code === 0 || (order.events && !signal && order.had > 0);
  order.said = stderr.trim().slice(-300);
}

async function setUp(dir) {
  const world = await startWorld({ blockTime: 1 });
  cleanAfter(() => world.stop());
  const behind = await service();
  const port = await freePort();
  const [relayer, payee] = [world.accounts[7], world.accounts[5]];
  const config = join(dir, "farthing.toml");
  writeFileSync(config, `
[gateway]
listen = "127.0.0.1:${port}"
upstream = "${behind.url}"
network = "base-sepolia"
pay_to = "${payee.address}"
[store]
path = "gateway.db"
[networks.base-sepolia]
rpc = ["${world.rpcUrl}"]
relayer_key = "env:RELAYER_KEY"
[sessions]
payee_keys = ["env:PAYEE_KEY"]
[[route]]
match = "GET /goods/*"
session = { price = "$0.000107", unit = "request", meter = "request", suggested_deposit = "$0.02" }
[[route]]
match = "GET /stream/*"
session = { price = "$0.000025", unit = "event", meter = "event", stream = true, suggested_deposit = "$0.02", min_voucher_delta = "$0.0016", patience = "5s" }
`);
  const shop = gateway(config, { RELAYER_KEY: relayer.privateKey, PAYEE_KEY: payee.privateKey });
  await shop.start();
  const host = `127.0.0.1:${port}`;
  const buyers = BUYERS.map((buyer) => ({ ...buyer, home: join(dir, buyer.name), address: world.accounts[buyer.account].address }));
  for (const buyer of buyers) {
    for (const words of [
      ["new", "--devnet", String(buyer.account)],
      ["limit", "--per-payment", "0.05", "--hour", "5", "--day", "5"],
      ["allow", "--network", "base-sepolia", "--rpc", world.rpcUrl, host],
      ["allow", "--scheme", "session"],
    ]) {
      const { code, stderr } = await run(["wallet", ...words], { FARTHING_HOME: buyer.home });
      if (code !== 0) throw new Error(`farthing wallet ${words.join(" ")}: ${stderr}`);
    }
  }
  return { world, behind, shop, buyers, payee, host, store: join(dir, "gateway.db") };
}

async function work(buyer, stage, orders, random, going) {
  while (going()) {
    const events = random.below(3) === 0 ? 1 + random.below(150) : 0;
    const number = orders.length;
    const path = events > 0 ? `/stream/${number}?events=${events}` : `/goods/${number}`;
    const order = { number, buyer, events, url: `http://${stage.host}${path}`, runs: 0, killed: 0, broken: 0, had: 0 };
    orders.push(order);
    while (!order.done && going()) {
      await step(order);
      await pause(random.between(REST_MS));
    }
  }
}

async function strike(kills, stage, random) {
  const counts = { gateway: 0, wallet: 0 };
  const restarts = [];
  for (let kill = 1; kill <= kills; kill += 1) {
    await pause(random.between(KILL_EVERY_MS));
    if (random.below(2) === 0) {
      await stage.shop.kill();
      await pause(random.between(RESTART_MS));
      await stage.shop.start();
      counts.gateway += 1;
      console.log(`        kill ${kill}: the gateway`);
      continue;
    }
    await until("a wallet is at work", () => fetching.size > 0);
    await pause(random.between([0, 600]));
    const victims = [...fetching];
    if (victims.length > 0) {
      const victim = random.pick(victims);
      victim.child.kill("SIGKILL");
      console.log(`        kill ${kill}: the wallet of ${victim.order.buyer.name}`);
    }
    counts.wallet += 1;
  }
  await Promise.all(restarts);
  return counts;
}

const channelsOf = async (buyer) => (await run(["channel", "ls", "--all", "--json"], { FARTHING_HOME: buyer.home })).json ?? [];

/** Asks for everything once more, and closes every channel. */
async function heal(stage, orders) {
  const deadline = Date.now() + HEAL_MS;
  const open = orders.filter(({ done }) => !done);
  await Promise.all(BUYERS.map(async (_, n) => {
    for (const order of open.filter(({ buyer }) => buyer === stage.buyers[n])) {
      for (let tries = 0; !order.done && tries < TRIES && Date.now() < deadline; tries += 1) {
        await step(order);
        if (!order.done) await pause(500);
      }
    }
  }));
  for (const buyer of stage.buyers) {
    for (;;) {
      const left = (await channelsOf(buyer)).filter(({ state }) => !ENDED.includes(state));
      if (left.length === 0 || Date.now() > deadline) break;
      for (const { id, state } of left) {
        // What is over is looked at until no reorganization is expected to undo it.
        const { code, stderr } = await run(["channel", state === "over" ? "show" : "close", id, "--json"], { FARTHING_HOME: buyer.home });
        if (code !== 0) console.log(`        ${buyer.name} cannot close yet: ${stderr.trim().slice(-200)}`);
      }
      await pause(500);
    }
  }
}

const ENDED = ["finalized", "void"];
const sum = (list, of) => list.reduce((all, entry) => all + of(entry), 0n);

/** The whole run. */
export async function channelKills({ kills, seed }) {
  const dir = scratch();
  const stage = await setUp(dir);
  const { rpcUrl, escrow } = stage.world;
  const money = async () => ({
    payee: await usdc(rpcUrl, stage.payee.address),
    escrow: await usdc(rpcUrl, escrow),
    buyers: await Promise.all(stage.buyers.map(({ address }) => usdc(rpcUrl, address))),
  });
  const before = await money();
  console.log(`channels: seed ${seed}, ${kills} kills, ${stage.buyers.length} buyers with ${WORKERS} processes each, a gateway, anvil`);
  const orders = [];
  let going = true;
  let streams = 0;
  const stream = () => chance(Math.imul(seed + 1, 2_654_435_761) + 7_919 * streams++);
  const workers = stage.buyers.flatMap((buyer) => Array.from({ length: WORKERS }, () => work(buyer, stage, orders, stream(), () => going)));
  const counts = await strike(kills, stage, stream());
  going = false;
  await Promise.all(workers);
  await heal(stage, orders);
  // The last close is booked once it is deep.
  const balances = async () => {
    const rows = (await run(["ledger", "balances", "--json", "--store", stage.store])).json ?? [];
    const net = (name) => sum(rows.filter(({ account, unit }) => account === name && unit !== "wei"), (row) => BigInt(row.debits_posted) - BigInt(row.credits_posted));
    return { treasury: net("treasury"), escrow: net("escrow"), deposits: net("deposits"), receivable: net("receivable"), revenue: -net("revenue"), loss: net("loss") };
  };
  await until("the seller's books hold no deposit", async () => (await balances()).escrow === 0n || void (await pause(500)), HEAL_MS).catch(() => {});
  await stage.shop.stop();
  const after = await money();
  const kept = await Promise.all(stage.buyers.map(channelsOf));
  const ledger = await balances();
  const gained = after.payee - before.payee;
  const took = (channel) => BigInt(channel.taken?.atoms ?? 0);

  stage.buyers.forEach(({ name }, n) => {
    const paid = before.buyers[n] - after.buyers[n];
    same(`what left ${name} is what its journal says was taken`, paid, sum(kept[n], took));
    const mine = orders.filter(({ buyer }) => buyer.name === name);
    const had = sum(mine, (order) => (order.events ? BigInt(order.had) * EVENT : order.goods ? REQUEST : 0n));
    check(`${name} got nothing for nothing`, paid >= had, `${paid} paid, ${had} had`);
    // Whoever is cut off has lost what it signed ahead of a stream, and an answer that it never asked for again.
    const cut = sum(mine, ({ broken, killed }) => BigInt(Math.max(broken, killed)));
    const most = had + cut * (AHEAD * EVENT) + BigInt(mine.length) * REQUEST;
    check(`${name} lost no more than was signed ahead`, paid <= most, `${paid} paid, ${had} had, ${cut} times cut off`);
  });
  same("what left the buyers came to the seller", gained, sum(before.buyers.map((had, n) => had - after.buyers[n]), (paid) => paid));
  same("the escrow holds nothing", after.escrow, before.escrow);
  check("every channel is over in every journal", kept.flat().every(({ state }) => ENDED.includes(state)), kept.flat().map(({ state }) => state).join(" "));
  same("the seller's treasury is what it has", ledger.treasury, gained);
  same("its books hold no deposit", ledger.escrow, 0n);
  same("nor owe any", ledger.deposits, 0n);
  same("it lost nothing", ledger.loss, 0n);
  same("what it sold and what was paid ahead is what it took", ledger.revenue - ledger.receivable, gained);
  check("nothing is still to be received", ledger.receivable <= 0n, ledger.receivable);
  const goods = orders.map(({ goods: got }) => got?.payment).filter(Boolean);
  same("no charge was delivered for two orders", new Set(goods).size, goods.length);
  check("every order for goods was served", orders.every(({ events, goods: got }) => events || got), orders.filter(({ events, goods: got }) => !events && !got).slice(0, 3).map(({ url, said }) => `${url}: ${said}`).join(" | "));
  const checked = await books(stage.store);
  check("the seller's books derive again", checked.balance, checked.said);
  same("every kill was made", counts.gateway + counts.wallet, kills);
  const [streamed, bought] = [orders.filter(({ events }) => events), goods.length];
  console.log(`        ${bought} goods, ${streamed.length} streams with ${sum(streamed, ({ had }) => BigInt(had))} events, ${kept.flat().length} channels, ${gained} atoms; killed: gateway ${counts.gateway}, wallets ${counts.wallet}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const options = { kills: 12, seed: Math.floor(Math.random() * 1e6) };
  const words = process.argv.slice(2);
  for (let i = 0; i < words.length; i += 2) {
    const name = words[i].replace(/^--/, "");
    if (!(name in options) || !(Number(words[i + 1]) >= 0)) {
      console.error("usage: channel-kills.mjs [--kills N] [--seed S]");
      process.exit(2);
    }
    options[name] = Number(words[i + 1]);
  }
  await script(() => channelKills(options));
}

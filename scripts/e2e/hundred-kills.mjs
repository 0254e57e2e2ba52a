#!/usr/bin/env node
// A hundred kills: machines buy from two gateways on anvil (one settles itself, one through our facilitator), and all
// the while one of them is killed (SIGKILL), or its line to the node is cut. Each is started again, wallets by asking
// again as their help says. At the end everybody's books have to agree with the chain, to the atom.
//
//   node scripts/e2e/hundred-kills.mjs [--kills N] [--seed S] [--keep DIR]
//
// One seed gives the same orders, targets and pauses again, if not the same instants. With --keep, stores, journals and
// logs stay there. `scripts/e2e/kills.mjs` is the short form.

import { createServer } from "node:http";
import { createWriteStream, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

import { startWorld } from "../../interop/support/world.mjs";
import * as audit from "./audit.mjs";
import { CUTS, line, pause } from "./cut.mjs";
import { bin, check, cleanAfter, freePort, parsed, route, run, same, scratch, script, surroundings, until } from "./support.mjs";

/** How long an offer holds, and so how long an authorization may live. Short, since some have to lapse. */
const MAX_TIMEOUT_SECS = 20;
/** Purchases of one buyer that run at once. */
const WORKERS = 2;
/** Between two kills. */
const KILL_EVERY_MS = [150, 1_100];
/** Until a process that was killed is started again. */
const RESTART_MS = [0, 500];
/** How long a line to the node stays cut. */
const CUT_MS = [100, 1_500];
/** Between two purchases of one worker. */
const REST_MS = [50, 350];
/** After a purchase that the wallet denied. */
const DENIED_MS = 2_000;
/** How long the chain may go without a block; it makes one each second. */
const BLOCK_MS = 3_000;
/** How long a kill waits for the moment that it wants. */
const MOMENT_MS = 1_200;
/**
 * How long everything may take to heal: what may have been taken is asked for anew once its authorization has ended, and a
 * block a minute later shows it unused.
 */
const HEAL_MS = 120_000;

const BUYERS = [
  { name: "ann", account: 1, hour: "5" },
  { name: "ben", account: 2, hour: "5" },
  { name: "cyd", account: 3, hour: "5" },
  { name: "eve", account: 9, hour: "5" },
  { name: "fay", account: 10, hour: "5" },
  // Its owner allows so little that it comes to the limit, with several processes at once.
  { name: "dot", account: 4, hour: "0.06" },
];

/** What is sold. Every price is another, so that two mistakes do not cancel each other out. */
const GOODS = [
  { name: "get", atoms: 10_007, weight: 4 },
  { name: "upfront", atoms: 3_011, weight: 3, more: 'flow = "upfront"' },
  { name: "background", atoms: 2_003, weight: 3, more: 'flow = "background"\nexposure = { per_payer = "60000", total = "240000" }' },
  { name: "post", atoms: 7_019, weight: 2, method: "POST" },
];

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
  const pick = (list) => list[below(list.length)];
  return {
    below,
    pick,
    between: ([from, to]) => from + below(to - from + 1),
    weighted: (list) => pick(list.flatMap((entry) => Array(entry.weight).fill(entry))),
    shuffled: (list) => list.map((entry) => [next(), entry]).sort(([a], [b]) => a - b).map(([, entry]) => entry),
  };
}

// ---------------------------------------------------------------------------------------------------------------------
// What happened, in its order.

const began = Date.now();
const events = [];

/** Notes an event; the story of a payment that went wrong is put together from these. */
function note(who, what, about = {}) {
  events.push({ ms: Date.now() - began, who, what, ...about });
}

// ---------------------------------------------------------------------------------------------------------------------
// The processes.

/** A service of ours that is killed and started again at the same address. */
class Service {
  #log;
  #child;
  up = false;
  starts = 0;

  constructor(name, args, env, log) {
    Object.assign(this, { name, args, env });
    this.#log = createWriteStream(log, { flags: "a" });
  }

  /** Starts it, again if it ends before it listens, as a supervisor would. */
  async start() {
    for (let tries = 1; ; tries += 1) {
      if (await this.#startOnce()) break;
      note(this.name, "ended before it listened");
      if (tries === 100) throw new Error(`${this.name} does not start: see its log`);
      await pause(200);
    }
    this.up = true;
    this.starts += 1;
    note(this.name, "listens");
  }

  #startOnce() {
    const child = spawn(bin, this.args, { stdio: ["ignore", "pipe", "pipe"], env: { ...surroundings(), ...this.env } });
    this.#child = child;
    child.stderr.on("data", (chunk) => this.#log.write(chunk));
    return new Promise((done) => {
      child.stdout.setEncoding("utf8").on("data", (text) => text.includes('"url"') && done(true));
      child.once("exit", () => done(false));
    });
  }

  async kill() {
    this.up = false;
    const gone = new Promise((done) => this.#child.once("exit", done));
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    await gone;
  }

  async stop() {
    const gone = new Promise((done) => this.#child.once("exit", done));
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill("SIGTERM");
      await gone;
    }
    this.#log.end();
  }
}

/** The seller's own service, which knows nothing of payments but the headers that its gateway sets. */
async function seller(random) {
  const calls = [];
  const listeners = new Set();
  const tell = (when, path) => listeners.forEach((listener) => listener(when, path));
  const server = createServer(async (req, res) => {
    for await (const _ of req);
    const call = { path: req.url, method: req.method, payment: req.headers["x-farthing-payment"], key: req.headers["idempotency-key"] };
    calls.push(call);
    note("service", "called", { path: req.url, payment: call.payment });
    tell("call", req.url);
    res.on("error", () => {});
    await pause(random.between([0, 120]));
    const text = JSON.stringify({ goods: calls.indexOf(call), path: req.url, payment: call.payment });
    res.writeHead(200, { "content-type": "application/json" });
    // In two parts: what is streamed can break off between them.
    res.write(text.slice(0, 12));
    await pause(random.between([0, 40]));
    res.end(text.slice(12));
    note("service", "answered", { path: req.url, payment: call.payment });
    tell("answer", req.url);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  cleanAfter(() => {
    server.closeAllConnections?.();
    return new Promise((done) => server.close(done));
  });
  return { url: `http://127.0.0.1:${server.address().port}`, calls, listeners };
}

// ---------------------------------------------------------------------------------------------------------------------
// Buyers.

/** Every `farthing fetch` that runs now. */
const fetching = new Set();

/** Runs `farthing fetch` once. `hear` is told what it says of its steps. */
function fetchOnce(order, args) {
  const { buyer } = order;
  const child = spawn(bin, ["fetch", ...args], { stdio: ["ignore", "pipe", "pipe"], env: { ...surroundings(), FARTHING_HOME: buyer.home } });
  const running = { order, child, said: "", listeners: new Set() };
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => {
    running.said += text;
    running.listeners.forEach((listener) => listener(running.said));
  });
  fetching.add(running);
  return new Promise((done) => {
    child.once("close", (code, signal) => {
      fetching.delete(running);
      done({ code, signal, report: parsed(stdout.trim()), stderr: running.said });
    });
  });
}

/** The journal of a buyer, as `farthing wallet history` tells it. */
export async function history(buyer, more = []) {
  const { code, json, stderr } = await run(["wallet", "history", "--limit", "10000", ...more], { FARTHING_HOME: buyer.home });
  if (code !== 0) return undefined;
  if (!Array.isArray(json)) throw new Error(`the history of ${buyer.name} cannot be read: ${stderr}`);
  return json;
}

/** The words of the order; asked again, they are the same. */
function words(order) {
  const post = order.goods.method === "POST" ? ["-X", "POST", "--json", JSON.stringify({ order: order.number })] : [];
  return [order.url, ...post, "--max", "0.02", "--max-time", "8", "-v"];
}

/**
 * Makes one step of an order: asks, or asks again. Sets `order.done` once there is nothing more to ask for. After a kill
 * it is the same command again, or `--resume` with the id that the journal has.
 */
async function step(order, random) {
  let args = words(order);
  if (order.again === "resume") {
    const known = (await history(order.buyer))?.find(({ url, state }) => url === order.url && !["intended", "released"].includes(state));
    if (known) {
      const alone = order.goods.method !== "POST" && random.below(2) === 0;
      args = [...(alone ? ["--max-time", "8", "-v"] : args), "--resume", known.id];
    }
  }
  note(order.buyer.name, `fetch${args.includes("--resume") ? " --resume" : ""}`, { path: order.path });
  const { code, signal, report, stderr } = await fetchOnce(order, args);
  const payment = report?.payment;
  note(order.buyer.name, signal ? "was killed" : `ended with ${code} (${report?.outcome ?? stderr.trim().slice(-200)})`, {
    path: order.path, purchase: payment?.id, tx: payment?.transaction, said: report?.messages?.slice(-2).join("; "),
  });
  order.runs += 1;
  if (signal === "SIGKILL") {
    order.kills += 1;
    // Killed after its last word, and before it was gone: whoever has the whole report has the goods, and where the journal
    // knows that too, to ask again is to buy again.
    if (report?.outcome === "paid" && (await history(order.buyer))?.find(({ id }) => id === payment.id)?.delivered) {
      order.done = report.outcome;
      order.body = report.body;
      order.late = true;
      return;
    }
    order.again = random.pick(["same", "resume"]);
    return;
  }
  order.again = "same";
  order.last = { code, outcome: report?.outcome, messages: report?.messages ?? [stderr.trim()] };
  if (code === 0) {
    order.done = report.outcome;
    order.body = report.body;
  } else if (code === 3) {
    order.done = "denied";
    order.objections = (report.offers ?? []).map(({ objection }) => objection?.code).filter(Boolean);
    // Two processes came to the cap at once: the plan still allowed it, and the reservation did not. That has no code.
    if (report.messages?.some((text) => /^denied: the last hour would go from .* above /.test(text))) order.objections.push("over_hour_cap");
  } else if (code === 4) {
    order.done = "refused";
  } else if (![1, 5, 6, 22].includes(code)) {
    order.done = `exit ${code}`;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Kills.

/** Resolves at the moment that `arm` waits for, or when patience ends. Returns whether it came. */
async function moment(arm) {
  let disarm = () => {};
  const came = new Promise((done) => (disarm = arm(() => done(true)) ?? disarm));
  const caught = await Promise.race([came, pause(MOMENT_MS).then(() => false)]);
  disarm();
  return caught;
}

/** Kills one `farthing fetch`, at a step of its own or at any time. */
async function killWallet(random) {
  const wanted = random.pick([/is written down and signed/, /> shows/, /< HTTP/, undefined]);
  const deadline = Date.now() + 5_000;
  while (Date.now() < deadline) {
    const running = [...fetching];
    if (running.length === 0) {
      await pause(5);
      continue;
    }
    const victim = random.pick(running);
    const caught = await moment((done) => {
      victim.child.once("exit", done);
      if (!wanted) return void pause(random.between([0, 400])).then(done);
      const listen = (said) => wanted.test(said) && done();
      victim.listeners.add(listen);
      listen(victim.said);
    });
    if (random.below(2) === 0) await pause(random.between([0, 60]));
    if (fetching.has(victim) && victim.child.exitCode === null && victim.child.kill("SIGKILL")) {
      const when = caught && wanted ? `after "${wanted.source}"` : "while it ran";
      note(victim.order.buyer.name, `KILLED ${when}`, { path: victim.order.path });
      return `wallet ${victim.order.buyer.name}, ${when}`;
    }
  }
  throw new Error("no wallet was at work within 5 s");
}

/** The moments at which a service is killed. */
function moments(name, { lines, service }) {
  const upstream = (when) => (done) => {
    const listen = (said, path) => said === when && path.startsWith(`/${name}/`) && done();
    service.listeners.add(listen);
    return () => service.listeners.delete(listen);
  };
  const sends = (done) => lines[name].sends(done);
  const own = [["at once", undefined], ["as it sends a transaction", sends]];
  const calls = [["as the service is called", upstream("call")], ["as the service answers", upstream("answer")]];
  return name === "facilitator" ? own : name === "own" ? [...own, ...calls] : [own[0], ...calls];
}

async function killService(name, stage, random) {
  const victim = stage.services[name];
  await until(`${victim.name} is up`, () => victim.up);
  const [when, arm] = random.pick(moments(name, stage));
  const caught = arm ? await moment(arm) : true;
  if (random.below(2) === 0) await pause(random.between([0, 50]));
  await victim.kill();
  const said = `${victim.name}, ${caught ? when : "at once"}`;
  note(victim.name, `KILLED ${caught ? when : "at once"}`);
  stage.restarts.push(pause(random.between(RESTART_MS)).then(() => victim.start()));
  return said;
}

async function cutLine(stage, random) {
  const names = Object.keys(stage.lines);
  const whose = random.below(3) === 0 ? names : [random.pick(names)];
  const [how, ms] = [random.pick(CUTS), random.between(CUT_MS)];
  note("node", `line of ${whose.join(", ")} CUT (${how}, ${ms} ms)`);
  stage.restarts.push(Promise.all(whose.map((name) => stage.lines[name].cut(how, ms))).then(() => note("node", `line of ${whose.join(", ")} works`)));
  return `line to the node of ${whose.length > 1 ? "everybody" : whose[0]}: ${how}, ${ms} ms`;
}

// ---------------------------------------------------------------------------------------------------------------------
// The world.

const prices = (shop) => GOODS.map(({ name, method = "GET", atoms, more = "" }) =>
  route(`${method} /${shop}/${name}/*`, `$${(atoms / 1e6).toFixed(6)}`, `max_timeout = "${MAX_TIMEOUT_SECS}s"\n${more}`)).join("");

async function setUp(random, dir) {
  const world = await startWorld({ blockTime: 1 });
  cleanAfter(() => world.stop());
  const lines = {};
  for (const name of ["own", "via", "facilitator", "wallets"]) {
    lines[name] = await line(world.rpcUrl);
    cleanAfter(() => lines[name].close());
  }
  const service = await seller(random);
  const { accounts } = world;
  const ports = { own: await freePort(), via: await freePort(), facilitator: await freePort() };
  const patience = '[payments]\nanswer_within = "4s"\nunclear_after = "5s"\n';
  const key = '\nrelayer_key = "env:RELAYER_KEY"';
  const shop = (name, payee, more, relayer) => `
[gateway]
listen = "127.0.0.1:${ports[name]}"
upstream = "${service.url}"
network = "base-sepolia"
pay_to = "${payee}"
[store]
path = "${name}.db"
[networks.base-sepolia]
rpc = ["${lines[name].url}"]${relayer}
${more}${patience}${prices(name)}`;
  const files = {
    own: shop("own", accounts[5].address, "", key),
    via: shop("via", accounts[6].address, `[facilitator]\nremote = ["http://127.0.0.1:${ports.facilitator}"]\n`, ""),
    facilitator: `
[facilitator.server]
listen = "127.0.0.1:${ports.facilitator}"
[store]
path = "facilitator.db"
[networks.base-sepolia]
rpc = ["${lines.facilitator.url}"]${key}
${patience}`,
  };
  const relayers = { own: accounts[7], facilitator: accounts[8] };
  const services = {};
  for (const [name, text] of Object.entries(files)) {
    const config = join(dir, `${name}.toml`);
    writeFileSync(config, text);
    const titles = { own: "gateway (settles itself)", via: "gateway (through a facilitator)", facilitator: "facilitator" };
    const env = { RELAYER_KEY: relayers[name]?.privateKey ?? "", FARTHING_LOG: "info" };
    services[name] = new Service(titles[name], [name === "facilitator" ? name : "gateway", "-c", config], env, join(dir, `${name}.log`));
    cleanAfter(() => services[name].kill());
  }
  for (const name of ["facilitator", "own", "via"]) await services[name].start();
  const shops = ["own", "via"].map((name) => ({ name, url: `http://127.0.0.1:${ports[name]}` }));
  const buyers = BUYERS.map((buyer) => ({ ...buyer, address: accounts[buyer.account].address, home: join(dir, buyer.name) }));
  for (const buyer of buyers) {
    for (const words of [
      ["new", "--devnet", String(buyer.account)],
      ["limit", "--per-payment", "0.02", "--hour", buyer.hour, "--day", buyer.hour],
      ["allow", "--network", "base-sepolia", "--rpc", lines.wallets.url, ...shops.map(({ url }) => url.slice(7))],
    ]) {
      const { code, stderr } = await run(["wallet", ...words], { FARTHING_HOME: buyer.home });
      if (code !== 0) throw new Error(`farthing wallet ${words.join(" ")}: ${stderr}`);
    }
  }
  const payees = { own: accounts[5].address, via: accounts[6].address };
  const stores = Object.fromEntries(Object.keys(files).map((name) => [name, join(dir, `${name}.db`)]));
  return { world, lines, service, services, shops, buyers, payees, relayers, stores, restarts: [] };
}

// ---------------------------------------------------------------------------------------------------------------------
// The run.

/** Orders until it is told to stop, a worker's life long. What is not done then is in `orders`, and is finished later. */
async function work(buyer, stage, orders, random, going) {
  while (going()) {
    const [shop, goods] = [random.pick(stage.shops), random.weighted(GOODS)];
    const number = orders.length;
    const path = `/${shop.name}/${goods.name}/${number}`;
    const order = { number, buyer, shop, goods, path, url: `${shop.url}${path}`, runs: 0, kills: 0, again: "same" };
    orders.push(order);
    while (!order.done && going()) {
      await step(order, random);
      await pause(order.done === "denied" ? DENIED_MS : random.between(REST_MS));
    }
  }
}

/** Sees to it that a chain which stands still is not taken for a fault of ours. */
async function watchChain({ world }, going) {
  let [number, since] = [0n, Date.now()];
  while (going()) {
    const now = await world.client.getBlockNumber();
    if (now !== number) {
      if (Date.now() - since > BLOCK_MS) {
        note("node", `made no block for ${Date.now() - since} ms`);
        console.log(`        the chain made no block for ${Date.now() - since} ms`);
      }
      [number, since] = [now, Date.now()];
    }
    await pause(250);
  }
}

/** An owner looks at the open purchases now and then, as one should. */
async function look(buyer, random, going) {
  while (going()) {
    await pause(random.between([2_000, 5_000]));
    await history(buyer, ["--check"]);
  }
}

/** Lets everything end: orders, payments, journals. What does not is found by the audit. */
async function heal(stage, orders, random) {
  const patiently = (what, probe) => until(what, async () => (await probe()) || void (await pause(300)), HEAL_MS).catch(({ message }) => {
    note("run", message);
    console.log(`        ${message}`);
  });
  await Promise.all(stage.restarts);
  const open = orders.filter(({ done }) => !done);
  const finish = async (order) => {
    const deadline = Date.now() + HEAL_MS;
    while (!order.done && Date.now() < deadline) {
      await step(order, random);
      await pause(100);
    }
  };
  const queue = [...open];
  await Promise.all(Array.from({ length: 6 }, async () => {
    for (let order = queue.shift(); order; order = queue.shift()) await finish(order);
  }));
  const restless = ["claimed", "funded", "settling", "confirming", "lapsing", "unknown"];
  await patiently("that every payment in every ledger is at rest", async () => {
    const ledgers = await Promise.all(Object.values(stage.stores).map(paymentsOf));
    return ledgers.flat().every(({ state }) => !restless.includes(state));
  });
  // A wallet frees what it signed a minute after its end by the chain's clock. Nothing is under way any more, so that
  // clock may be put forward.
  await stage.world.test.increaseTime({ seconds: 90 });
  await patiently("that every purchase in every journal is settled or released", async () => {
    const journals = await Promise.all(stage.buyers.map((buyer) => history(buyer, ["--check"])));
    return journals.every((purchases) => purchases?.every(({ state, confirmed }) => state === "released" || (state === "settled" && confirmed)));
  });
  // What was paid for and never came is owed: whoever asks for it again gets it, for nothing.
  for (const buyer of stage.buyers) {
    const owed = (await history(buyer)).filter(({ state, delivered }) => state === "settled" && !delivered);
    for (const { id, url } of owed) {
      const order = orders.find((known) => known.url === url);
      const { code, report } = await fetchOnce(order, [...words(order), "--resume", id]);
      note(buyer.name, `fetch --resume of what was paid: exit ${code}`, { path: order.path, purchase: id, said: report?.messages?.join("; ") });
      if (code === 0) order.body ??= report.body;
      order.resumed = code;
    }
  }
}

/** All payments of a store, by `farthing ledger payments`. */
export async function paymentsOf(store) {
  const all = [];
  for (;;) {
    const after = all.length > 0 ? ["--after", all.at(-1).payment] : [];
    const { code, json, stderr } = await run(["ledger", "payments", "--json", "--store", store, "--limit", "1000", ...after]);
    if (code !== 0) throw new Error(`farthing ledger payments: ${stderr}`);
    all.push(...json);
    if (json.length < 1000) return all;
  }
}

async function strike(kills, stage, random) {
  const targets = ["own", "via", "facilitator", "wallet", "node"];
  let deck = [];
  const counts = {};
  for (let kill = 1; kill <= kills; kill += 1) {
    await pause(random.between(KILL_EVERY_MS));
    if (deck.length === 0) deck = random.shuffled(targets);
    const target = deck.pop();
    const said = target === "wallet" ? await killWallet(random) : target === "node" ? await cutLine(stage, random) : await killService(target, stage, random);
    counts[target] = (counts[target] ?? 0) + 1;
    console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(7)} s  kill ${String(kill).padStart(3)}  ${said}`);
  }
  return counts;
}

/** The whole run. `check` and `same` of the support count what held. */
export async function hundredKills({ kills, seed, keep }) {
  const dir = keep ?? scratch();
  mkdirSync(dir, { recursive: true });
  // Chance of its own for everybody, so that one who is slow does not change what the others do.
  const streams = (() => {
    let n = 0;
    return () => chance(Math.imul(seed + 1, 2_654_435_761) + 7_919 * n++);
  })();
  const stage = await setUp(streams(), dir);
  const opening = await audit.open(stage);
  console.log(`seed ${seed}, ${kills} kills, ${stage.buyers.length} buyers with ${WORKERS} processes each, 2 gateways, a facilitator, anvil`);
  const orders = [];
  let going = true;
  const workers = [watchChain(stage, () => going)].concat(stage.buyers.flatMap((buyer) => [
    ...Array.from({ length: WORKERS }, () => work(buyer, stage, orders, streams(), () => going)),
    look(buyer, streams(), () => going),
  ]));
  const counts = await strike(kills, stage, streams());
  going = false;
  const struck = Date.now() - began;
  await Promise.all(workers);
  await heal(stage, orders, streams());
  for (const service of Object.values(stage.services)) await service.stop();
  const found = await audit.close(stage, opening, orders, { history, paymentsOf });
  if (keep) writeFileSync(join(dir, "events.jsonl"), events.map((event) => `${JSON.stringify(event)}\n`).join(""));
  audit.print(found, { counts, orders, stage, seed, struckMs: struck, tookMs: Date.now() - began });
  for (const [what, problems] of found.checks) check(what, problems.length === 0, problems.slice(0, 3).map(({ why }) => why).join(" | "));
  same("every kill was made", Object.values(counts).reduce((sum, n) => sum + n, 0), kills);
  const worst = found.checks.flatMap(([, problems]) => problems)[0];
  if (worst) await audit.story(worst, stage, events);
}

function readArguments(words) {
  const options = { kills: 100, seed: Math.floor(Math.random() * 1e6) };
  for (let i = 0; i < words.length; i += 2) {
    const value = words[i + 1];
    if (words[i] === "--kills" && value > 0) options.kills = Number(value);
    else if (words[i] === "--seed" && value >= 0) options.seed = Number(value);
    else if (words[i] === "--keep" && value) options.keep = value;
    else {
      console.error("usage: hundred-kills.mjs [--kills N] [--seed S] [--keep DIR]");
      process.exit(2);
    }
  }
  return options;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const options = readArguments(process.argv.slice(2));
  await script(() => hundredKills(options));
}

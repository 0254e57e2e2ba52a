// What the end-to-end scripts share: processes of our binary, a service behind the gateway that can be slow, a node
// that can be held up, payments signed by viem, and a count of what held. Not a script itself.

import { execFileSync, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { createServer, request } from "node:http";
import { createServer as createSocket } from "node:net";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash, webcrypto } from "node:crypto";

import { cacheDir, farthingBin, repo } from "../../interop/support/paths.mjs";

// The scripts have no packages of their own.
const { privateKeyToAccount } = createRequire(join(repo, "interop/package.json"))("viem/accounts");

export { repo };
export const bin = farthingBin();
export const USDC = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
export const NETWORK = "eip155:84532";

// The development accounts that the scripts use; everybody knows these keys.
export const RELAYER_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
/** Of a second seller on the same chain: two that shared one key would take each other's nonces. */
export const OTHER_RELAYER_KEY = "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba";
export const payer = privateKeyToAccount("0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d");
export const PAYER_KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
export const PAYEE = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

/** How long anything here may take: generous, since the machine may be busy. */
const PATIENCE_MS = 120_000;

// ---------------------------------------------------------------------------------------------------------------------
// What held.

let passed = 0;
let failed = 0;

/** Counts, and says what it was if it does not hold. */
export function check(what, holds, detail) {
  if (holds) {
    passed += 1;
    console.log(`ok    ${what}`);
  } else {
    failed += 1;
    console.log(`FAIL  ${what}${detail === undefined ? "" : `: ${typeof detail === "string" ? detail : JSON.stringify(detail)}`}`);
  }
}

export const same = (what, found, expected) => check(what, found === expected, `${found}, expected ${expected}`);

/** Runs a whole script: clean-up, the count, and the exit code. */
export async function script(body) {
  try {
    await body();
  } catch (error) {
    check("the script runs to its end", false, error.stack ?? String(error));
  }
  await cleanUp();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 && passed > 0 ? 0 : 1);
}

// What nobody catches must not leave services behind that somebody waits for.
process.on("uncaughtException", async (error) => {
  check("the script runs to its end", false, error.stack ?? String(error));
  await cleanUp();
  process.exit(1);
});

const cleaning = [];
export async function cleanUp() {
  for (const step of cleaning.splice(0).reverse()) {
    try {
      await step();
    } catch (error) {
      // What comes after it is done all the same: services that are left behind would keep whoever reads their output.
      check("what the script started is put away", false, error.stack ?? String(error));
    }
  }
}
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, async () => {
    await cleanUp();
    process.exit(130);
  });
}

/** Adds a step to what is done on the way out; the last is done first. */
export const cleanAfter = (step) => cleaning.push(step);

export function scratch() {
  const dir = mkdtempSync(join(tmpdir(), "farthing-e2e-"));
  cleaning.push(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Waits for `promise`, but not for ever. */
export function within(promise, what, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`${what} did not happen within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Asks again until `probe` gives something. */
export async function until(what, probe, ms = PATIENCE_MS) {
  const deadline = Date.now() + ms;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`${what} did not happen within ${ms} ms`);
    await new Promise((next) => setTimeout(next, 20));
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Processes.

/** The environment, without what it says of other wallets and worlds. */
export const surroundings = () => Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("FARTHING_")));

/** Starts a service and waits for the line that says where it listens. `as` says by which program and user, if not by ours. */
export async function service(args, env = {}, { program = bin, ...as } = {}) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"], env: { ...surroundings(), ...env }, ...as });
  let ended = false;
  const exited = new Promise((done) => child.once("exit", (code, signal) => {
    ended = true;
    done(code ?? signal);
  }));
  const end = async (signal) => {
    if (!ended) child.kill(signal);
    return exited;
  };
  cleaning.push(() => end("SIGKILL"));
  const ready = new Promise((done, fail) => {
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk) => {
      text += chunk;
      for (const line of text.split("\n").slice(0, -1)) {
        const said = parsed(line);
        if (said?.url) done(said);
      }
    });
    exited.then((code) => fail(new Error(`farthing ${args[0]} ended with ${code} before it listened`)));
  });
  const said = await within(ready, `the start of farthing ${args[0]}`);
  return { ...said, pid: child.pid, url: said.url.replace(/\/$/, ""), kill: () => end("SIGKILL"), stop: () => end("SIGTERM"), exited };
}

/** A Python with the packages that a file beside this one names, made once. */
export function python(requirements) {
  const wanted = join(repo, "scripts/e2e", requirements);
  const home = join(cacheDir(), `python-${createHash("sha256").update(readFileSync(wanted)).digest("hex").slice(0, 16)}`);
  const program = join(home, "bin/python3");
  if (!existsSync(join(home, ".installed"))) {
    mkdirSync(home, { recursive: true });
    const quietly = { stdio: ["ignore", "ignore", "inherit"] };
    execFileSync("python3", ["-m", "venv", home], quietly);
    execFileSync(program, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted], quietly);
    writeFileSync(join(home, ".installed"), "");
  }
  return program;
}

/** Runs a command to its end. `hear` is told what it says on standard error, as it says it. */
export function run(args, env = {}, hear = () => {}) {
  const child = spawn(bin, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...surroundings(), ...env } });
  let stdout = "", stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => hear((stderr += text)));
  return new Promise((done, fail) => {
    child.once("error", fail);
    child.once("close", (code) => done({ code, stdout, stderr, json: parsed(stdout.trim()) }));
  });
}

export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function freePort() {
  return new Promise((done, fail) => {
    const probe = createSocket();
    probe.once("error", fail);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}

function listen(handler) {
  const server = createServer(handler);
  cleaning.push(() => {
    server.closeAllConnections?.();
    return new Promise((done) => server.close(done));
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(`http://127.0.0.1:${server.address().port}`)));
}

async function bodyOf(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks);
}

// ---------------------------------------------------------------------------------------------------------------------
// The chain.

export const devnet = () => service(["devnet", "--listen", "127.0.0.1:0"]);

export async function rpc(url, method, params = []) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  const answer = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
  const { result, error } = await answer.json();
  if (error) throw new Error(`${method}: ${error.message}`);
  return result;
}

/** Atoms of USDC, by the token's own word. */
export async function usdc(url, address) {
  const data = `0x70a08231${address.slice(2).toLowerCase().padStart(64, "0")}`;
  return BigInt(await rpc(url, "eth_call", [{ to: USDC, data }, "latest"]));
}

/** How many transfers of USDC left this address. */
export async function transfersFrom(url, address) {
  const topics = ["0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef", `0x${address.slice(2).toLowerCase().padStart(64, "0")}`];
  return (await rpc(url, "eth_getLogs", [{ address: USDC, topics, fromBlock: "0x0", toBlock: "latest" }])).length;
}

/**
 * Something that stands before a node, or before a facilitator. `hold(pattern)` stops requests whose path and body match
 * until `release`; what was caught resolves `caught`. With `{ after: true }` the request went on, and only its answer is
 * held.
 */
export async function held(target) {
  let trap;
  const url = await listen(async (req, res) => {
    try {
      const body = await bodyOf(req);
      const forward = async () => {
        const init = req.method === "POST" ? { method: "POST", headers: { "content-type": "application/json" }, body } : {};
        const answer = await fetch(req.url === "/" ? target : `${target}${req.url}`, init);
        return { status: answer.status, text: await answer.text() };
      };
      const caught = trap?.pattern.test(`${req.url} ${body}`) ? trap : undefined;
      const early = caught?.after ? await forward() : undefined;
      if (caught) {
        caught.catch();
        await caught.released;
      }
      const { status, text } = early ?? (await forward());
      res.writeHead(status, { "content-type": "application/json" }).end(text);
    } catch {
      res.destroy(); // Whoever asked is gone, or whoever is asked.
    }
  });
  const hold = (pattern, { after = false } = {}) => {
    let release, caughtNow;
    const released = new Promise((done) => (release = done));
    const caught = new Promise((done) => (caughtNow = done));
    const mine = { pattern, after, released, catch: caughtNow };
    trap = mine;
    return {
      caught: within(caught, `a request that matches ${pattern}`),
      release: () => {
        if (trap === mine) trap = undefined;
        release();
      },
    };
  };
  return { url, hold };
}

// ---------------------------------------------------------------------------------------------------------------------
// A seller.

/** A service that streams events, as many as its path says, each of them one unit. */
export const eventStream = () =>
  listen(async (req, res) => {
    await bodyOf(req);
    const units = Number(new URL(req.url, "http://a").searchParams.get("units"));
    res.writeHead(200, { "content-type": "text/event-stream" });
    for (let unit = 1; unit <= units && !res.destroyed; unit += 1) {
      if (!res.write(`data: {"unit":${unit}}\n\n`)) await new Promise((next) => {
        const on = () => (res.off("drain", on), res.off("close", on), next());
        res.on("drain", on).on("close", on);
      });
    }
    res.end();
  });

/** A service that counts its calls, and answers when it is let. */
export async function upstream() {
  const calls = [];
  let gate = Promise.resolve();
  let arrived = () => {};
  const url = await listen(async (req, res) => {
    await bodyOf(req);
    calls.push({ method: req.method, path: req.url, key: req.headers["idempotency-key"], payment: req.headers["x-farthing-payment"] });
    const number = calls.length;
    arrived();
    await gate;
    res.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ goods: number, path: req.url }));
  });
  return {
    url,
    calls,
    /** From now on answers wait. Returns when the next call is there, and what lets it go. */
    slow() {
      let open;
      gate = new Promise((done) => (open = done));
      const called = new Promise((done) => (arrived = done));
      return {
        called: within(called, "a call of the service"),
        release: () => {
          gate = Promise.resolve();
          open();
        },
      };
    },
  };
}

/** A facilitator with a file of its own, so that its patience can be set. */
export function facilitator(rpcUrl, payments = "") {
  const dir = scratch();
  const config = join(dir, "facilitator.toml");
  writeFileSync(config, `
[facilitator.server]
listen = "127.0.0.1:0"

[store]
path = "facilitator.db"

[networks.base-sepolia]
rpc = ["${rpcUrl}"]
relayer_key = "env:RELAYER_KEY"
${payments ? `\n[payments]\n${payments}` : ""}
`);
  return service(["facilitator", "-c", config], { RELAYER_KEY });
}

/** A wallet that pays with the payer's development key. */
export async function wallet(rpcUrl, ...hosts) {
  const env = { FARTHING_HOME: scratch() };
  const wallet = async (...words) => {
    const done = await run(["wallet", ...words], env);
    if (done.code !== 0) throw new Error(`farthing wallet ${words.join(" ")}: ${done.stderr}`);
    return done.json;
  };
  await wallet("new", "--devnet", "1");
  await wallet("allow", "--network", "base-sepolia", "--rpc", rpcUrl, ...hosts);
  return { env, wallet, fetch: (words, hear) => run(["fetch", ...words], env, hear) };
}

/** One request through `farthing proxy`, whose environment for programs is `env`. */
export function through(env, agent, url, headers = {}) {
  const proxy = new URL(env.http_proxy);
  const credentials = Buffer.from(`${proxy.username}:${proxy.password}`).toString("base64");
  return new Promise((done, fail) => {
    const asking = request({
      agent, host: proxy.hostname, port: proxy.port, path: url,
      headers: { ...headers, host: new URL(url).host, "proxy-authorization": `Basic ${credentials}` },
    }, (answer) => {
      answer.resume().on("end", () => done({ status: answer.statusCode, headers: answer.headers })).on("error", fail);
    });
    asking.on("error", fail).end();
  });
}

/** A gateway with its own relayer (or a remote facilitator), on a port that stays the same over restarts. */
export async function seller({ rpcUrl, upstreamUrl, routes, facilitator, payments = "", keys = {} }) {
  const dir = scratch();
  const store = join(dir, "gateway.db");
  const config = join(dir, "farthing.toml");
  const port = await freePort();
  writeFileSync(config, `
[gateway]
listen = "127.0.0.1:${port}"
upstream = "${upstreamUrl}"
network = "base-sepolia"
pay_to = "${PAYEE}"

[store]
path = "gateway.db"

[networks.base-sepolia]
rpc = ["${rpcUrl}"]
${facilitator ? "" : 'relayer_key = "env:RELAYER_KEY"'}

${facilitator ? `[facilitator]\nremote = ["${facilitator}"]` : ""}
${payments ? `[payments]\n${payments}` : ""}
${routes}`);
  const start = () => service(["gateway", "-c", config], { RELAYER_KEY, ...keys });
  return { store, config, start, url: `http://127.0.0.1:${port}` };
}

export const route = (match, price, more = "") => `
[[route]]
match = "${match}"
price = "${price}"
${more}`;

/** The gateway's books: `farthing ledger check`, and its payments. */
export async function books(store) {
  const checked = await run(["ledger", "check", "--json", "--store", store]);
  const payments = await run(["ledger", "payments", "--json", "--store", store]);
  const balance = checked.code === 0 && checked.json?.problems?.length === 0;
  return { balance, said: checked.stdout + checked.stderr, payments: payments.json ?? [] };
}

// ---------------------------------------------------------------------------------------------------------------------
// Payments.

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64");
export const decoded = (value) => (value ? parsed(Buffer.from(value, "base64").toString()) : undefined);

/** What is asked for `url`, in both generations. */
export async function asked(url, init) {
  const answer = await fetch(url, init);
  const v2 = decoded(answer.headers.get("payment-required"));
  const v1 = parsed(await answer.text());
  if (answer.status !== 402 || !v2) throw new Error(`${url} answers ${answer.status} and asks for nothing`);
  return { v2, v1 };
}

/** One EIP-3009 authorization for the first offer, as both generations would show it. */
export async function sign({ v2, v1 }, account = payer) {
  const offer = v2.accepts[0];
  const authorization = {
    from: account.address,
    to: offer.payTo,
    value: offer.amount,
    validAfter: "0",
    validBefore: String(Math.floor(Date.now() / 1000) + Math.min(offer.maxTimeoutSeconds, 100)),
    nonce: `0x${Buffer.from(webcrypto.getRandomValues(new Uint8Array(32))).toString("hex")}`,
  };
  const signature = await account.signTypedData({
    domain: { name: offer.extra.name, version: offer.extra.version, chainId: 84532, verifyingContract: offer.asset },
    types: {
      TransferWithAuthorization: [
        { name: "from", type: "address" }, { name: "to", type: "address" }, { name: "value", type: "uint256" },
        { name: "validAfter", type: "uint256" }, { name: "validBefore", type: "uint256" }, { name: "nonce", type: "bytes32" },
      ],
    },
    primaryType: "TransferWithAuthorization",
    message: { ...authorization, value: BigInt(authorization.value), validAfter: 0n, validBefore: BigInt(authorization.validBefore) },
  });
  const payload = { signature, authorization };
  const asV2 = { x402Version: 2, resource: v2.resource, accepted: offer, payload, ...(v2.extensions ? { extensions: v2.extensions } : {}) };
  const asV1 = { x402Version: 1, scheme: "exact", network: v1?.accepts?.[0]?.network, payload };
  return { v2: { "payment-signature": base64(asV2) }, v1: { "x-payment": base64(asV1) }, atoms: BigInt(offer.amount) };
}

/** Shows a payment. `undefined` where no answer came, as from a process that was killed. */
export async function show(url, headers, init = {}) {
  try {
    const answer = await fetch(url, { ...init, headers: { ...init.headers, ...headers } });
    const text = await answer.text();
    const receipt = decoded(answer.headers.get("payment-response") ?? answer.headers.get("x-payment-response"));
    return { status: answer.status, body: parsed(text) ?? text, headers: answer.headers, receipt };
  } catch {
    return undefined;
  }
}

/** What was paid and served since it was made. */
export async function ledgerOf(node, service) {
  const [before, received, sent] = [await usdc(node, payer.address), await usdc(node, PAYEE), await transfersFrom(node, payer.address)];
  const calls = service.calls.length;
  return async () => ({
    paid: before - (await usdc(node, payer.address)),
    earned: (await usdc(node, PAYEE)) - received,
    transfers: (await transfersFrom(node, payer.address)) - sent,
    calls: service.calls.length - calls,
  });
}

export const read = (path) => readFileSync(path, "utf8");

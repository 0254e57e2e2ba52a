#!/usr/bin/env node
// The wallet in a process of its own, on the embedded chain: agents without a key buy through their guard, as another user
// where this runs as root, each within its budget; a thousand requests at once at a cap of a hundred get a hundred
// signatures. Tokens and freezes hold at once, the guard is killed in the middle and started again, and nothing is paid
// twice. Agents of other machines come over TLS with a certificate and their token, and a freeze comes by a signed webhook.
//
//   node scripts/e2e/guard.mjs

import { execFileSync, spawn } from "node:child_process";
import { createHmac, randomBytes, randomUUID } from "node:crypto";
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";

import {
  asked, bin, check, cleanAfter, devnet, parsed, payer, repo, route, run, same, scratch, script, seller, service, show, surroundings, transfersFrom, until, upstream, wallet, within,
} from "./support.mjs";

const NOBODY = 65_534;
const asRoot = process.getuid() === 0;
/** Whom agents run as. */
const WHO = { cwd: "/", ...(asRoot ? { uid: NOBODY, gid: NOBODY } : {}) };

const REQUESTS = 1_000;
const FIT = 100;
const FRONTS = 20;

// Each purchase costs a cent. Of the crowd's dollar a hundred of them fit.
const POLICY = `
version: 1
owner: acme
budgets:
  acme: {per_payment: $0.02, rolling: {24h: $20}}
  acme/crowd: {rolling: {24h: $${(FIT / 100).toFixed(2)}}}
  acme/poor: {lifetime: $0.01}
allow:
  - name: shop
    hosts: ["127.0.0.1"]
    networks: [eip155:84532]
    schemes: [exact]
    private: true
    plaintext: true
approve:
  - name: dear
    over: $0.01
    quorum: 1
`;

/** Runs a program as an agent: as another user, if that can be done. `told` is its standard input. */
function agent(program, args, env, told = "", hear = () => {}) {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...surroundings(), HOME: "/", ...env }, ...WHO });
  // Who is turned away ends before it has read.
  child.stdin.on("error", () => {}).end(told);
  let stdout = "", stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => hear((stderr += text)));
  return new Promise((done, fail) => {
    child.once("error", fail);
    child.once("close", (code) => done({ code, stdout, stderr, json: parsed(stdout.trim()) }));
  });
}

/** An agent of the Model Context Protocol, over the standard input and output of `farthing mcp serve`. */
async function mcp(program, env) {
  const child = spawn(program, ["mcp", "serve"], { stdio: ["pipe", "pipe", "inherit"], env: { ...surroundings(), HOME: "/", ...env }, ...WHO });
  cleanAfter(() => child.kill("SIGKILL"));
  let heard = "", next = 0;
  const waiting = new Map();
  child.stdout.setEncoding("utf8").on("data", (text) => {
    const lines = (heard + text).split("\n");
    heard = lines.pop();
    for (const { id, result, error } of lines.map(parsed).filter(Boolean)) waiting.get(id)?.(result ?? { error });
  });
  const say = (message) => child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
  const ask = (method, params) => {
    const id = next++;
    say({ id, method, params });
    return within(new Promise((done) => waiting.set(id, done)), `an answer to ${method}`);
  };
  await ask("initialize", { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "story", version: "1" } });
  say({ method: "notifications/initialized" });
  return { call: async (name, args = {}) => (await ask("tools/call", { name, arguments: args })).structuredContent, end: () => child.stdin.end() };
}

/** What a program gets that asks through a proxy. */
function through(proxy, token, url) {
  const { hostname: host, port } = new URL(proxy);
  const shown = `Basic ${Buffer.from(`agent:${token}`).toString("base64")}`;
  return new Promise((done, fail) => {
    request({ host, port, path: url, headers: { host: new URL(url).host, "proxy-authorization": shown } }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (piece) => (text += piece));
      answer.once("end", () => done({ status: answer.statusCode, body: parsed(text), denied: answer.headers["farthing-denied"] }));
    }).once("error", fail).end();
  });
}

/** Authorities and certificates, as files: the guard's for localhost, a machine's that it knows, and one that it does not. */
function certificates(dir) {
  const openssl = (...words) => execFileSync("openssl", words, { stdio: ["ignore", "ignore", "pipe"], cwd: dir });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const authority = (name) => openssl("req", "-x509", ...key, "-keyout", `${name}.key`, "-out", `${name}.pem`, "-days", "2", "-subj", `/CN=${name}`);
  const certify = (name, by, extensions) => {
    openssl("req", ...key, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
    writeFileSync(join(dir, `${name}.ext`), extensions);
    openssl("x509", "-req", "-in", `${name}.csr`, "-CA", `${by}.pem`, "-CAkey", `${by}.key`, "-CAcreateserial", "-days", "2", "-extfile", `${name}.ext`, "-out", `${name}.pem`);
  };
  authority("authority");
  authority("stranger");
  certify("guard", "authority", "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n");
  certify("machine", "authority", "extendedKeyUsage=clientAuth\n");
  certify("intruder", "stranger", "extendedKeyUsage=clientAuth\n");
  for (const name of readdirSync(dir)) chmodSync(join(dir, name), 0o644);
  return (name) => join(dir, name);
}

/** Sends a message as any service does that speaks Standard Webhooks. */
async function webhook(url, secret, data, { id = `msg_${randomUUID()}`, at = Math.floor(Date.now() / 1000), type = "wallet.freeze", sign } = {}) {
  const body = JSON.stringify({ type, timestamp: new Date(at * 1000).toISOString(), data });
  const signature = createHmac("sha256", Buffer.from(secret.slice("whsec_".length), "base64")).update(`${id}.${at}.${sign ?? body}`).digest("base64");
  const headers = { "content-type": "application/json", "webhook-id": id, "webhook-timestamp": String(at), "webhook-signature": `v1,${signature}` };
  const answer = await fetch(url, { method: "POST", headers, body });
  return { status: answer.status, body: await answer.json() };
}

/** What the guard says to one line. */
const line = (path, text) =>
  within(
    new Promise((done, fail) => {
      let heard = "";
      const socket = connect(path, () => text && socket.write(text));
      socket.setEncoding("utf8").on("data", (piece) => {
        heard += piece;
        if (heard.includes("\n")) done(parsed(heard.split("\n")[0])), socket.destroy();
      });
      socket.once("error", fail).once("close", () => done(parsed(heard)));
    }),
    "an answer of the guard",
  );

await script(async () => {
  const chain = await devnet();
  const behind = await upstream();
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes: route("GET /dear/*", "$0.015") + route("GET /*", "$0.01") });
  await shop.start();
  const owner = await wallet(chain.url, shop.url);
  const farthing = async (...words) => {
    const done = await run(words, owner.env);
    if (done.code !== 0) throw new Error(`farthing ${words.join(" ")}: ${done.stderr}`);
    return done.stdout.trim();
  };

  // The agent's user has to come to the socket and to the binary, and to nothing else.
  const place = scratch();
  chmodSync(place, 0o711);
  const [binary, speaker] = [join(place, "farthing"), join(place, "agent.mjs")];
  copyFileSync(bin, binary);
  chmodSync(binary, 0o755);
  copyFileSync(join(repo, "scripts/e2e/guard-agent.mjs"), speaker);
  chmodSync(speaker, 0o644);
  const folder = join(place, "run");
  mkdirSync(folder, { mode: 0o700 });
  const path = join(folder, "wallet.sock");
  // The folder is passed through by its group.
  if (asRoot) {
    chownSync(folder, 0, NOBODY);
    chmodSync(folder, 0o710);
  }
  const papers = join(place, "papers");
  mkdirSync(papers, { mode: 0o755 });
  const paper = certificates(papers);
  const secret = `whsec_${randomBytes(32).toString("base64")}`;
  const secretFile = join(scratch(), "webhook.secret");
  writeFileSync(secretFile, `${secret}\n`, { mode: 0o600 });
  const ownerKey = join(scratch(), "owner.key");
  const { key: ownersKey } = parsed(await farthing("approver", "new", ownerKey));
  const start = (...more) => service([
    "wallet", "serve", "--socket", path, ...(asRoot ? [] : ["--dev"]),
    "--listen-tls", "127.0.0.1:0", "--cert", paper("guard.pem"), "--cert-key", paper("guard.key"), "--client-ca", paper("authority.pem"),
    "--freeze-webhook", "127.0.0.1:0", "--freeze-secret", secretFile, "--freeze-owner", ownersKey, ...more,
  ], owner.env);
  let guard = await start();
  same("the guard says where it listens", guard.url, `unix:${path}`);
  const second = await run(["wallet", "serve", "--socket", join(folder, "other.sock")], owner.env);
  check("a second guard is refused", second.code === 1 && /another guard/.test(second.stderr), second.stderr);

  const policy = join(scratch(), "policy.yaml");
  writeFileSync(policy, POLICY);
  await farthing("policy", "apply", policy);
  const token = await farthing("agent", "add", "acme/buyer");
  check("a token is one line", /^acme\/buyer:[0-9a-f]{64}$/.test(token), token);
  const env = { FARTHING_WALLET: `unix:${path}`, FARTHING_TOKEN: token };
  const buy = (name, more = env) => agent(binary, ["fetch", `${shop.url}/${name}`, "--max", "0.02"], more);

  const first = await buy("first");
  same("an agent without a key buys", first.code, 0);
  check("and has the goods", first.json?.body?.goods > 0, first.stdout + first.stderr);
  same("one transfer", await transfersFrom(chain.url, payer.address), 1);
  const listed = (await owner.wallet("history")).purchases ?? (await owner.wallet("history"));
  check("the owner's books have it", JSON.stringify(listed).includes(first.json?.payment?.id), listed);

  // Who may ask.
  const wrong = await buy("wrong", { ...env, FARTHING_TOKEN: `acme/buyer:${"0".repeat(64)}` });
  check("a wrong token buys nothing", wrong.code !== 0 && /token/.test(wrong.stderr), wrong.stderr);
  const none = await buy("none", { FARTHING_WALLET: env.FARTHING_WALLET });
  same("without a token it is called wrongly", none.code, 2);
  if (asRoot) {
    const own = await line(path, "");
    same("a client of the guard's own user is turned away", own?.error?.code, "same_user");
  } else {
    const garbage = await line(path, "garbage\n");
    same("garbage is answered with a code", garbage?.error?.code, "malformed");
  }
  if (asRoot) {
    const home = await agent("/bin/ls", [owner.env.FARTHING_HOME], {});
    check("the agent's user cannot look into the wallet", home.code !== 0, home.stdout);
  }

  // What each may spend.
  const poor = { ...env, FARTHING_TOKEN: await farthing("agent", "add", "acme/poor") };
  same("an agent with a budget for one thing buys one", (await buy("poor", poor)).code, 0);
  const broke = await buy("poor-2", poor);
  check("and no second", broke.code === 3 && /lifetime|budget/.test(broke.stdout + broke.stderr), broke.stdout + broke.stderr);
  same("while its sibling buys on", (await buy("rich")).code, 0);

  // The other fronts, with no key either.
  const agents = await mcp(binary, env);
  const call = (id, path) => agents.call("pay_and_fetch", { call_id: id, url: `${shop.url}/${path}` });
  const called = await call("one", "mcp");
  same("an agent of MCP buys through the guard", called.outcome, "paid");
  same("the same call is the same purchase", (await call("one", "mcp")).payment?.id, called.payment.id);
  const another = await mcp(binary, env);
  same("also for the agent's next process", (await another.call("pay_and_fetch", { call_id: "one", url: `${shop.url}/mcp` })).payment?.id, called.payment.id);
  another.end();
  const latest = (await agents.call("history", { limit: 1 })).purchases;
  same("it sees its purchases", latest?.[0]?.id, called.payment.id);
  const standing = (await agents.call("budget")).budgets;
  check("and its budget", standing?.some(({ budget, within }) => budget === "acme" && within === "any 24h"), standing);
  const agentHome = join(place, "agent");
  mkdirSync(agentHome, { mode: 0o700 });
  if (asRoot) chownSync(agentHome, NOBODY, NOBODY);
  const proxyEnv = { ...env, FARTHING_HOME: agentHome };
  const proxy = await service(["proxy", "--listen", "127.0.0.1:0"], proxyEnv, { program: binary, ...WHO });
  const proxyToken = readFileSync(proxy.token_file, "utf8").trim();
  const passed = await through(proxy.url, proxyToken, `${shop.url}/proxy`);
  check("a program buys through a proxy that has no key", passed.status === 200 && passed.body?.goods > 0, passed);
  same("whoever shows no token of the proxy's does not", (await through(proxy.url, token, `${shop.url}/proxy`)).status, 407);
  check("no key and no books are on the agent's side", !existsSync(join(agentHome, "wallet.db")) && !existsSync(join(agentHome, "keys")));

  // What is dear waits for people.
  const dear = (...more) => agent(binary, ["fetch", `${shop.url}/dear/thing`, "--max", "0.02", ...more], env);
  const ada = join(scratch(), "ada.key");
  const made = parsed(await farthing("approver", "new", ada));
  await farthing("approver", "add", "ada", made.key);
  same("what is dear is not bought", (await dear()).code, 3);
  const waits = await dear("--ask");
  const [id] = /apr_[0-9a-f]{32}/.exec(waits.stdout + waits.stderr) ?? [];
  check("people are asked for the agent", waits.code === 3 && id, waits);
  await farthing("approval", "approve", id, "--as", "ada", "--key", ada);
  same("once they agree, it is bought", (await dear()).code, 0);
  same("and seen to be used", parsed(await farthing("approval", "show", id)).status, "used");

  // All at once, through the process that runs.
  const { v2 } = await asked(`${shop.url}/crowd`);
  const offer = { url: `${shop.url}/crowd`, text: JSON.stringify({ ...v2, accepts: v2.accepts.slice(0, 1) }) };
  const speak = (task, hear) => agent(process.execPath, [speaker], {}, JSON.stringify({ path, offer, ...task }), hear);
  const tokens = [];
  for (let n = 0; n < FRONTS; n += 1) tokens.push(await farthing("agent", "add", `acme/crowd/n${n}`));
  const crowd = await speak({ do: "crowd", tokens, requests: REQUESTS });
  check("the crowd is answered", crowd.code === 0, crowd.stderr);
  const { signatures, refusals, ms } = crowd.json;
  same(`${REQUESTS} requests at once at a cap of ${FIT}: signatures`, signatures.length, FIT);
  same("and all others are over the budget", JSON.stringify(refusals), JSON.stringify({ over_budget: REQUESTS - FIT }));
  console.log(`      ${REQUESTS} requests of ${FRONTS} agents in ${ms.toFixed(0)} ms`);
  const [name, value] = signatures[0];
  same("the signatures are good: the seller takes one", (await show(offer.url, { [name]: value }))?.status, 200);

  // Stopping.
  /** Stops an agent in the middle of what it does, on a connection that stays open. */
  const stops = async (agentName, code, what, act) => {
    const token = await farthing("agent", "add", agentName);
    let stopping;
    const stop = async () => {
      const began = performance.timeOrigin + performance.now();
      await act(agentName);
      return { began, ended: performance.timeOrigin + performance.now() };
    };
    const racing = await speak({ do: "onAndOn", tokens: [token], most: 900, more: 20 }, () => (stopping ??= stop()));
    check(`${agentName} asks on and on, and is stopped`, racing.code === 0 && racing.json.signed > 0 && racing.json.refused === 20, racing);
    const { first: refusal, last } = racing.json;
    const { began, ended } = await stopping;
    same(`${what}: it is told why`, refusal.code, code);
    check(`${what}: nothing is signed that was asked for after it had returned`, last.asked < ended, { last, ended });
    console.log(`      ${what}: returned after ${(ended - began).toFixed(1)} ms, first refusal ${(refusal.heard - began).toFixed(1)} ms after its start`);
    return { fromReturn: refusal.heard - ended, fromStart: refusal.heard - began };
  };
  /** A machine that is busy elsewhere may be late once, and not each time. */
  const soon = async (agentName, code, what, since, act) => {
    const took = [];
    do took.push((await stops(`${agentName}-${took.length}`, code, what, act))[since]);
    while (took.at(-1) >= 100 && took.length < 5);
    check(`${what}: the refusal comes within 100 ms`, took.at(-1) < 100, took);
  };
  await soon("acme/quick", "frozen", "freeze", "fromReturn", (name) => farthing("freeze", name));
  await soon("acme/quicker", "token_revoked", "agent revoke", "fromReturn", async (name) => {
    same("the guard itself revokes", parsed(await farthing("agent", "revoke", name)).enforced_by, "guard");
  });
  await soon("acme/quickest", "frozen", "webhook", "fromStart", (agent) => webhook(guard.freeze_webhook, secret, { agent }));

  // A freeze from elsewhere.
  const remote = { ...env, FARTHING_TOKEN: await farthing("agent", "add", "acme/remote") };
  const hook = (...about) => webhook(guard.freeze_webhook, ...about);
  const isFrozen = async (name) => parsed(await farthing("agent", "list", "--json")).frozen.includes(name);
  const forged = await hook(`whsec_${randomBytes(32).toString("base64")}`, { agent: "acme/remote" });
  check("a message with another's signature is refused", forged.status === 401 && forged.body.error.code === "signature_wrong", forged);
  const changed = await hook(secret, { agent: "acme/remote" }, { sign: "{}" });
  check("so is one that was changed", changed.status === 401 && changed.body.error.code === "signature_wrong", changed);
  const old = await hook(secret, { agent: "acme/remote" }, { at: Math.floor(Date.now() / 1000) - 301 });
  check("and an old one", old.status === 401 && old.body.error.code === "timestamp_refused", old);
  const loosening = await hook(secret, { agent: "acme/quick-0" }, { type: "wallet.unfreeze" });
  check("none unfreezes", loosening.status === 400 && (await isFrozen("acme/quick-0")), loosening);
  check("nobody is frozen by these", !(await isFrozen("acme/remote")));
  const message = { id: "msg_once" };
  const done = await hook(secret, { agent: "acme/remote" }, message);
  check("a good one freezes", done.status === 200 && done.body.already === false && (await isFrozen("acme/remote")), done);
  same("so the agent pays nothing", (await buy("hooked", remote)).code, 3);
  await farthing("unfreeze", "acme/remote");
  const replayed = await hook(secret, { agent: "acme/remote" }, message);
  check("the same message again does nothing more", replayed.status === 200 && replayed.body.already === true && !(await isFrozen("acme/remote")), replayed);
  const elsewhere = await run(["freeze", "acme/remote", "--at", guard.freeze_webhook, "--by", ownerKey], { FARTHING_HOME: scratch() });
  check("the owner's key freezes from elsewhere", elsewhere.code === 0 && (await isFrozen("acme/remote")), elsewhere.stderr);
  const notOwner = await run(["freeze", "--all", "--at", guard.freeze_webhook, "--by", ada], { FARTHING_HOME: scratch() });
  check("another's key does not", notOwner.code === 1 && /401/.test(notOwner.stderr), notOwner.stderr);
  await farthing("unfreeze", "acme/remote");

  // From another machine.
  const tls = (certificate, more = {}) => ({
    ...remote, FARTHING_WALLET: `tls://localhost:${new URL(guard.tls.replace("tls:", "http:")).port}`, FARTHING_WALLET_CA: paper("authority.pem"),
    FARTHING_WALLET_CERT: paper(`${certificate}.pem`), FARTHING_WALLET_KEY: paper(`${certificate}.key`), ...more,
  });
  const afar = await buy("afar", tls("machine"));
  check("an agent of another machine buys over TLS", afar.code === 0 && afar.json?.body?.goods > 0, afar.stderr);
  const intruder = await buy("intruder", tls("intruder"));
  check("a certificate of another authority is not let in", intruder.code === 1 && /guard/.test(intruder.stderr), intruder);
  const nobody = await buy("nobody", tls("machine", { FARTHING_TOKEN: `acme/remote:${"1".repeat(64)}` }));
  check("nor is a good certificate with a wrong token", nobody.code === 1 && /token/.test(nobody.stderr), nobody);
  const impostor = await buy("false", tls("machine", { FARTHING_WALLET_CA: paper("stranger.pem") }));
  check("an agent gives its token to no guard of another authority", impostor.code === 1 && /certificate/i.test(impostor.stderr), impostor);
  same("without certificates it is called wrongly", (await buy("bare", tls("machine", { FARTHING_WALLET_CERT: "" }))).code, 2);

  await farthing("freeze", "acme");
  same("a frozen agent of MCP is told so", (await call("frozen", "frozen")).denied?.code, "frozen");
  const stopped = await through(proxy.url, proxyToken, `${shop.url}/frozen`);
  check("a program behind the proxy gets the seller's 402", stopped.status === 402 && /frozen/.test(stopped.denied), stopped);
  const frozen = await buy("frozen");
  check("a frozen agent pays nothing", frozen.code === 3 && /frozen/.test(frozen.stdout + frozen.stderr), frozen.stdout + frozen.stderr);
  await farthing("unfreeze", "acme");
  same("and pays again afterwards", (await buy("thawed")).code, 0);
  await farthing("freeze", "--all");
  same("a frozen wallet pays nothing", (await buy("all")).code, 3);
  await farthing("unfreeze", "--all");

  // A kill in the middle of a purchase: the seller is at work, and the guard is gone.
  const slow = behind.slow();
  const cut = buy("cut");
  await slow.called;
  await guard.kill();
  slow.release();
  const ended = await cut;
  check("the agent ends, whatever became of the guard", typeof ended.code === "number", ended);
  guard = await start();
  const again = await buy("cut");
  check("the same command has the goods", again.code === 0 && again.json?.body !== undefined, again.stdout + again.stderr);
  // Of the buyer first, rich, mcp, proxy, dear, thawed and cut, of the poor and the remote one, and one of the crowd's.
  await until("what is settled", async () => (await transfersFrom(chain.url, payer.address)) >= 10);
  same("each purchase was paid once", await transfersFrom(chain.url, payer.address), 10);

  // Revoked.
  const rotated = await farthing("agent", "rotate", "acme/buyer");
  check("the old token is worth nothing", (await buy("old")).code !== 0);
  same("the new one is", (await buy("new", { ...env, FARTHING_TOKEN: rotated })).code, 0);
  await farthing("agent", "revoke", "acme/buyer");
  check("a revoked agent buys nothing", (await buy("revoked", { ...env, FARTHING_TOKEN: rotated })).code !== 0);

  same("asked to stop, the guard ends well", await guard.stop(), 0);
  check("and leaves no socket behind", !existsSync(path));
  if (asRoot) {
    guard = await start("--dev");
    const garbage = await line(path, "garbage\n");
    same("with --dev a client of its own user is heard", garbage?.error?.code, "malformed");
  }
});

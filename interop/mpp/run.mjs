#!/usr/bin/env node
// MPP beside x402 on the same routes: the published mppx pays our gateway, our client pays mppx's server, and the x402
// packages of both generations pay the very route that mppx paid. Then what must not be: one authorization shown in two
// dialects at once, a credential shown again, elsewhere, or with another body. What counts is what the token says and
// how often the service behind was called; at the end our books are checked against the chain.
//
//   node interop/mpp/run.mjs [--filter TEXT] [--list]

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { concat, encodeFunctionData, keccak256, parseEther, stringToBytes } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { Challenge, Credential } from "mppx";

import { Bench, FUNDS, lastLine, start } from "../support/bench.mjs";
import { Gateway, runCases, script } from "../support/gateway.mjs";
import { farthingBin, repo } from "../support/paths.mjs";
import { runToEnd } from "../support/process.mjs";
import { NETWORK, USDC, erc20, freePort, startWorld } from "../support/world.mjs";

const PRICE = 1_000n;
const CLIENT_TIMEOUT_MS = 30_000;
const NOBODY = "0x000000000000000000000000000000000000dEaD";
const MESSAGE = "Protected endpoint accessed successfully";
const PROBLEMS = "https://paymentauth.org/problems/";
const at = (path) => join(repo, "interop", path);

const CLIENTS = {
  mppx: at("support/peers/client-mpp.mjs"),
  ts2: at("support/peers/client-v2.mjs"),
  ts1: at("support/peers/client-v1.mjs"),
  ours: at("x402/client"),
};

// ---------------------------------------------------------------------------------------------------------------------
// Our seller.

const answer = (path, body, { authorization }) =>
  path === "/health" ? [200, { status: "ok" }]
    : path === "/fails" ? [500, { error: "this handler always fails" }]
    : [200, { message: MESSAGE, path, body, bearer: authorization ?? null }];

/** A gateway that settles with a key of its own. */
class Seller extends Gateway {
  static async open(bench, relayerKey) {
    const seller = new Seller();
    await seller.prepare(answer);
    seller.bench = bench;
    seller.payee = privateKeyToAccount(generatePrivateKey()).address;
    const route = (match, more = "") => `
[[route]]
match = "${match}"
price = "$0.001"
${more}`;
    seller.configure(`
network = "${NETWORK}"
pay_to = "${seller.payee}"
`, `
[networks."${NETWORK}"]
rpc = ["${bench.world.rpcUrl}"]
relayer_key = "env:RELAYER_KEY"
${["GET /protected", "GET /other", "GET /fails", "POST /order"].map((match) => route(match)).join("")}
${["GET /sent", "GET /sent-too"].map((match) => route(match, 'pay_by = ["authorization", "transaction", "hash"]\n')).join("")}
[[route]]
match = "GET /health"
free = true
`);
    seller.env = bench.environment({ RELAYER_KEY: relayerKey });
    await seller.start();
    return seller;
  }

  received() {
    return this.bench.balance(this.payee);
  }
}

/** mppx as the seller. */
async function mppxSeller(bench, relayerKey) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const payee = privateKeyToAccount(generatePrivateKey()).address;
  const env = bench.environment({ PORT: String(port), EVM_PRIVATE_KEY: relayerKey, EVM_PAYEE_ADDRESS: payee });
  return { url, payee, program: await start(at("support/peers/server-mpp.mjs"), "mppx server", env, url) };
}

// ---------------------------------------------------------------------------------------------------------------------
// A buyer by hand: one authorization, shown as we like.

class Hand {
  constructor(payer) {
    this.account = privateKeyToAccount(payer.privateKey);
    this.address = payer.address;
  }

  async sign(authorization) {
    return this.account.signTypedData({
      domain: { name: "USDC", version: "2", chainId: Number(NETWORK.split(":")[1]), verifyingContract: USDC },
      primaryType: "TransferWithAuthorization",
      types: {
        TransferWithAuthorization: [
          { name: "from", type: "address" }, { name: "to", type: "address" }, { name: "value", type: "uint256" },
          { name: "validAfter", type: "uint256" }, { name: "validBefore", type: "uint256" }, { name: "nonce", type: "bytes32" },
        ],
      },
      message: authorization,
    });
  }

  /** The credential for a challenge, and the authorization in it. */
  async credential(challenge) {
    const nonce = keccak256(concat([stringToBytes(challenge.id), stringToBytes(challenge.realm)]));
    const validBefore = String(Math.floor(new Date(challenge.expires).getTime() / 1000));
    const { amount, recipient } = challenge.request;
    const authorization = { from: this.address, to: recipient, value: amount, validAfter: "0", validBefore, nonce };
    const signature = await this.sign(authorization);
    const source = `did:pkh:eip155:${NETWORK.split(":")[1]}:${this.address}`;
    const payload = { type: "authorization", ...authorization, signature };
    return { authorization, signature, header: Credential.serialize(Credential.from({ challenge, payload, source })) };
  }
}

/** A buyer by hand who makes its transfers itself: viem makes them, mppx writes the credential. */
class Sender {
  static async open(bench) {
    const payer = await bench.freshPayer();
    await bench.send({ to: payer.address, value: parseEther("0.01") });
    const sender = new Sender();
    Object.assign(sender, { bench, address: payer.address, wallet: bench.wallet(payer.privateKey) });
    return sender;
  }

  /** The transfer that a challenge asks for. */
  call({ request: { recipient, amount } }, { to = recipient, atoms = BigInt(amount) } = {}) {
    return { to: USDC, data: encodeFunctionData({ abi: erc20, functionName: "transfer", args: [to, atoms] }) };
  }

  /** Sends it, and waits for its block. */
  async send(call) {
    const hash = await this.wallet.sendTransaction(call);
    const receipt = await this.bench.world.client.waitForTransactionReceipt({ hash });
    check(receipt.status === "success", "the payer's transaction should succeed", hash);
    return hash;
  }

  async sign(call) {
    return this.wallet.signTransaction(await this.wallet.prepareTransactionRequest(call));
  }

  header(challenge, payload) {
    const source = `did:pkh:${NETWORK}:${this.address}`;
    return { Authorization: Credential.serialize(Credential.from({ challenge, payload, source })) };
  }
}

/** Asks without paying; gives the challenge and the x402 offer of the same answer. */
async function ask(url, init = {}) {
  const response = await fetch(url, init);
  const body = await response.json();
  const challenges = Challenge.fromResponseList(response).filter((challenge) => challenge.method === "evm");
  const v2 = JSON.parse(Buffer.from(response.headers.get("PAYMENT-REQUIRED") ?? "", "base64").toString("utf8"));
  return { response, body, challenge: challenges[0], v2 };
}

async function show(url, headers, init = {}) {
  const response = await fetch(url, { ...init, headers: { ...init.headers, ...headers } });
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = text;
  }
  return { status: response.status, body, headers: response.headers, goods: body?.message === MESSAGE };
}

const check = (condition, text, ...facts) => {
  if (!condition) throw new Error(`${text} (${facts.map((fact) => JSON.stringify(fact)).join("; ")})`);
};
const brief = ({ status, body }) => ({ status, body });

/** Shows a payment that has to buy, and returns its receipt. */
async function bought(url, shown) {
  const once = await show(url, shown);
  check(once.goods, "should be served", brief(once));
  return JSON.parse(Buffer.from(once.headers.get("Payment-Receipt"), "base64url").toString("utf8"));
}

/** Shows something again for as long as it is being served: its buyer has the answer a moment before that is written down. */
async function afterwards(showing) {
  for (let looks = 1; ; looks += 1) {
    const shown = await showing();
    if (shown.status !== 409 || shown.body?.error !== "payment_in_progress" || looks === 100) return shown;
    check(!shown.goods, "should not be served twice", brief(shown));
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** A refusal of the draft: 402, its problem, and a fresh challenge. */
function refusedAs(shown, problem) {
  check(shown.status === 402 && !shown.goods, "should be refused", brief(shown));
  check(shown.body.type === PROBLEMS + problem, `should be ${problem}`, brief(shown));
  check(/^Payment /.test(shown.headers.get("WWW-Authenticate") ?? ""), "a 402 should carry a challenge", brief(shown));
  check(!shown.headers.get("Payment-Receipt"), "an error should carry no receipt", brief(shown));
}

// ---------------------------------------------------------------------------------------------------------------------
// The cases.

/** A participant buys, and the token says what moved. */
async function buys(bench, run, seller, { path, extra = {}, moves = PRICE, status = 200 }) {
  const payer = await bench.freshPayer();
  const before = await bench.balance(seller.payee);
  const env = bench.environment({ ...payer.env, RESOURCE_SERVER_URL: seller.url, ENDPOINT_PATH: path, ...extra });
  const ended = await runToEnd(run, [], { env, timeoutMs: CLIENT_TIMEOUT_MS });
  const said = lastLine(ended);
  const paid = FUNDS - (await bench.balance(payer.address));
  const received = (await bench.balance(seller.payee)) - before;
  const facts = [String(paid), String(received), said, ended.stderr.slice(-600)];
  check(paid === moves && received === moves, `expected ${moves} atoms to move`, ...facts);
  check(said.status_code === status, `expected ${status}`, ...facts);
  if (status !== 200) return said;
  check(said.success === true && JSON.stringify(said.data).includes(MESSAGE), "the goods should arrive", ...facts);
  check(/^0x[0-9a-f]{64}$/i.test(said.payment_response?.transaction ?? ""), "the receipt should name the transaction", ...facts);
  const receipt = await bench.world.client.getTransactionReceipt({ hash: said.payment_response.transaction });
  check(receipt.status === "success", "that transaction should have succeeded", ...facts);
  return said;
}

/** Everything a case looks at before and after. */
async function watched(seller, payer, path, work) {
  const before = { received: await seller.received(), calls: seller.service.calls(path) };
  const result = await work();
  return {
    result,
    paid: FUNDS - (await seller.bench.balance(payer.address)),
    received: (await seller.received()) - before.received,
    calls: seller.service.calls(path) - before.calls,
  };
}

/** What the adapter of the public conformance harness answers, as a process. */
function adapter(op, input) {
  const said = execFileSync(at("mpp/conformance"), { input: JSON.stringify({ schema: 1, op, input }), encoding: "utf8", stdio: ["pipe", "pipe", "inherit"] });
  return JSON.parse(said);
}

/** The cases that the published package and the public suite agree on: see vectors/mpp. */
function conformance() {
  const vectors = (name) => JSON.parse(readFileSync(join(repo, `vectors/mpp/${name}.json`), "utf8"));
  const { challenges, malformed } = vectors("challenges");
  for (const { name, header, json } of challenges) {
    const read = adapter("challenge.parse", { header });
    check(read.ok && isDeepStrictEqual(read.value, json), `challenge.parse: ${name}`, read);
    const { value } = adapter("challenge.format", json);
    check(isDeepStrictEqual(Challenge.deserialize(value.header), json), `mppx reads what challenge.format makes of: ${name}`, value);
  }
  for (const { name, header } of malformed) {
    const read = adapter("challenge.parse", { header });
    check(!read.ok && read.error.type === "parse_error", `challenge.parse refuses: ${name}`, read);
  }
  for (const { secret, input, id } of vectors("ids").ids) {
    const made = adapter("challenge.id", { secretKey: secret, ...input });
    check(made.ok && made.value.id === id, "challenge.id", { input, id, made });
  }
  const text = "caf\u00e9 \u2615?";
  const encoded = adapter("base64url.encode", { text }).value.text;
  check(encoded === Buffer.from(text).toString("base64url") && adapter("base64url.decode", { text: encoded }).value.text === text, "base64url", encoded);
  const unknown = adapter("no.such.operation", {});
  check(!unknown.ok && unknown.error.type === "unsupported_operation", "what it cannot do", unknown);
}

const CASES = {
  "the conformance adapter answers the public cases": conformance,
  "mppx pays mppx": ({ bench, mppx }) => buys(bench, CLIENTS.mppx, mppx, { path: "/protected" }),
  "ours pays mppx, which asks in both dialects": ({ bench, mppx }) => buys(bench, CLIENTS.ours, mppx, { path: "/protected" }),
  "ours pays mppx, which asks by MPP alone": async ({ bench, mppx }) => {
    const asked = await fetch(`${mppx.url}/mpp/protected`);
    check(!asked.headers.get("PAYMENT-REQUIRED") && asked.headers.get("WWW-Authenticate"), "should ask by MPP", [...asked.headers]);
    await buys(bench, CLIENTS.ours, mppx, { path: "/mpp/protected" });
  },
  "mppx pays ours, GET": ({ bench, seller }) => buys(bench, CLIENTS.mppx, seller, { path: "/protected" }),
  "mppx pays ours, POST with a body": async ({ bench, seller }) => {
    const extra = { REQUEST_METHOD: "POST", REQUEST_BODY: '{"n":1}' };
    const said = await buys(bench, CLIENTS.mppx, seller, { path: "/order", extra });
    check(said.data.body === '{"n":1}', "the body should reach the service", said);
  },
  "mppx pays ours, and the service fails: nothing is charged": ({ bench, seller }) =>
    buys(bench, CLIENTS.mppx, seller, { path: "/fails", moves: 0n, status: 500 }),
  "@x402/fetch pays the same route": ({ bench, seller }) => buys(bench, CLIENTS.ts2, seller, { path: "/protected" }),
  "x402-fetch 1.x pays the same route": ({ bench, seller }) => buys(bench, CLIENTS.ts1, seller, { path: "/protected" }),
  "ours pays ours": ({ bench, seller }) => buys(bench, CLIENTS.ours, seller, { path: "/protected" }),

  "one authorization in both dialects at once buys once": async ({ bench, seller }) => {
    const url = `${seller.url}/protected`;
    const payer = await bench.freshPayer();
    const hand = new Hand(payer);
    const { challenge, v2 } = await ask(url);
    const { authorization, signature, header } = await hand.credential(challenge);
    const accepted = v2.accepts.find(({ asset, scheme }) => scheme === "exact" && asset.toLowerCase() === USDC.toLowerCase());
    const x402 = Buffer.from(JSON.stringify({
      x402Version: 2, resource: v2.resource, accepted, payload: { signature, authorization },
    })).toString("base64");
    const { result, paid, received, calls } = await watched(seller, payer, "/protected", () => Promise.all([
      show(url, { Authorization: header }), show(url, { "PAYMENT-SIGNATURE": x402 }),
      show(url, { Authorization: header }), show(url, { "PAYMENT-SIGNATURE": x402 }),
    ]));
    const shown = result.map(brief);
    // Whoever came first is served, in its dialect; its own copy may wait for the same answer.
    const dialects = new Set(result.map(({ goods }, i) => (goods ? i % 2 : -1)).filter((dialect) => dialect >= 0));
    check(paid === PRICE && received === PRICE, "should be paid once", String(paid), shown);
    check(calls === 1, "should be served once", calls, shown);
    check(dialects.size === 1, "should buy in one dialect", shown);
    await seller.restart();
    const later = await watched(seller, payer, "/protected", async () => [
      await show(url, { Authorization: header }), await show(url, { "PAYMENT-SIGNATURE": x402 }),
    ]);
    check(later.paid === PRICE && later.calls === 0, "should stay bought once after a restart", later.result.map(brief));
  },

  "by hash: a transfer that viem has sent buys once": async ({ bench, seller }) => {
    const url = `${seller.url}/sent`;
    const sender = await Sender.open(bench);
    const { challenge } = await ask(url);
    check(challenge.request.methodDetails.credentialTypes.join() === "authorization,transaction,hash", "types", challenge.request);
    const hash = await sender.send(sender.call(challenge));
    const shown = sender.header(challenge, { type: "hash", hash });
    const calls = seller.service.calls("/sent");
    const receipt = await bought(url, shown);
    check(receipt.reference === hash && receipt.challengeId === challenge.id && receipt.chainId === 84532, "receipt", receipt);
    refusedAs(await afterwards(() => show(url, shown)), "invalid-challenge");
    // For another challenge, there and elsewhere, and after a restart.
    for (const path of ["/sent", "/sent-too"]) {
      const other = await ask(`${seller.url}${path}`);
      const again = sender.header(other.challenge, { type: "hash", hash });
      refusedAs(await afterwards(() => show(`${seller.url}${path}`, again)), "invalid-challenge");
    }
    await seller.restart();
    refusedAs(await show(url, shown), "invalid-challenge");
    check(seller.service.calls("/sent") === calls + 1 && seller.service.calls("/sent-too") === 0, "should be served once");
    check(FUNDS - (await bench.balance(sender.address)) === PRICE, "should be paid once");
  },

  "by hash: a settlement, a transfer to somebody else and an unknown hash buy nothing": async ({ bench, seller }) => {
    const url = `${seller.url}/sent`;
    const sender = await Sender.open(bench);
    const { challenge } = await ask(url);
    const settled = await ask(url);
    const hand = new Hand({ address: sender.address, privateKey: generatePrivateKey() });
    hand.account = sender.wallet.account;
    const receipt = await bought(url, { Authorization: (await hand.credential(settled.challenge)).header });
    refusedAs(await show(url, sender.header(challenge, { type: "hash", hash: receipt.reference })), "verification-failed");
    const stray = await sender.send(sender.call(challenge, { to: NOBODY }));
    refusedAs(await show(url, sender.header(challenge, { type: "hash", hash: stray })), "verification-failed");
    const unknown = await show(url, sender.header(challenge, { type: "hash", hash: `0x${"77".repeat(32)}` }));
    check(unknown.status === 503 && !unknown.headers.get("WWW-Authenticate"), "nobody should be told to pay anew", brief(unknown));
    const off = await ask(`${seller.url}/protected`);
    refusedAs(await show(`${seller.url}/protected`, sender.header(off.challenge, { type: "hash", hash: stray })), "invalid-payload");
  },

  "by transaction: what viem has signed is sent by us and buys once": async ({ bench, seller }) => {
    const url = `${seller.url}/sent`;
    const sender = await Sender.open(bench);
    const { challenge } = await ask(url);
    const signature = await sender.sign(sender.call(challenge));
    const shown = sender.header(challenge, { type: "transaction", signature });
    const calls = seller.service.calls("/sent");
    const receipt = await bought(url, shown);
    check(receipt.reference === keccak256(signature), "the receipt should name the payer's own transaction", receipt);
    refusedAs(await afterwards(() => show(url, shown)), "invalid-challenge");
    const other = await ask(url);
    for (const payload of [{ type: "transaction", signature }, { type: "hash", hash: receipt.reference }]) {
      refusedAs(await afterwards(() => show(url, sender.header(other.challenge, payload))), "invalid-challenge");
    }
    check(seller.service.calls("/sent") === calls + 1, "should be served once");
    check(FUNDS - (await bench.balance(sender.address)) === PRICE, "should be paid once");
    const short = await sender.sign(sender.call(other.challenge, { atoms: PRICE - 1n }));
    refusedAs(await show(url, sender.header(other.challenge, { type: "transaction", signature: short })), "verification-failed");
    check(FUNDS - (await bench.balance(sender.address)) === PRICE, "what is refused should not be sent");
  },

  "a credential shown again is refused, also after a restart": async ({ bench, seller }) => {
    const url = `${seller.url}/protected`;
    const payer = await bench.freshPayer();
    const { challenge } = await ask(url);
    const { header } = await new Hand(payer).credential(challenge);
    const once = await show(url, { Authorization: header });
    check(once.goods, "should be served", brief(once));
    check(once.headers.get("Cache-Control")?.includes("private"), "should be private", [...once.headers]);
    const receipt = JSON.parse(Buffer.from(once.headers.get("Payment-Receipt"), "base64url").toString("utf8"));
    check(receipt.challengeId === challenge.id && receipt.method === "evm" && receipt.chainId === 84532, "receipt", receipt);
    refusedAs(await afterwards(() => show(url, { Authorization: header })), "invalid-challenge");
    await seller.restart();
    refusedAs(await show(url, { Authorization: header }), "invalid-challenge");
    check(FUNDS - (await bench.balance(payer.address)) === PRICE, "should be paid once");
  },

  "with an Idempotency-Key the same answer comes again": async ({ bench, seller }) => {
    const url = `${seller.url}/order`;
    const payer = await bench.freshPayer();
    const init = { method: "POST", body: '{"n":2}', headers: { "content-type": "application/json", "Idempotency-Key": "one-two" } };
    const { challenge } = await ask(url, init);
    const { header } = await new Hand(payer).credential(challenge);
    const { result, paid, calls } = await watched(seller, payer, "/order", async () => {
      const first = await show(url, { Authorization: header }, init);
      const again = await show(url, { Authorization: header }, init);
      await seller.restart();
      return [first, again, await show(url, { Authorization: header }, init)];
    });
    check(result.every(({ goods }) => goods), "the same answer should come each time", result.map(brief));
    check(paid === PRICE && calls === 1, "should be paid and served once", String(paid), calls);
    const other = await show(url, { Authorization: header }, { ...init, headers: { ...init.headers, "Idempotency-Key": "three" } });
    refusedAs(other, "invalid-challenge");
  },

  "a challenge opens only its own route, method and body": async ({ bench, seller }) => {
    const payer = await bench.freshPayer();
    const hand = new Hand(payer);
    const { challenge } = await ask(`${seller.url}/protected`);
    const { header } = await hand.credential(challenge);
    refusedAs(await show(`${seller.url}/other`, { Authorization: header }), "invalid-challenge");
    refusedAs(await show(`${seller.url}/order`, { Authorization: header }, { method: "POST", body: "{}" }), "invalid-challenge");
    const order = { method: "POST", body: '{"n":3}', headers: { "content-type": "application/json" } };
    const made = await ask(`${seller.url}/order`, order);
    check(made.challenge.digest, "a challenge for a body should have its digest", made.challenge);
    const paidFor = await hand.credential(made.challenge);
    refusedAs(await show(`${seller.url}/order`, { Authorization: paidFor.header }, { ...order, body: '{"n":4}' }), "invalid-challenge");
    check((await bench.balance(payer.address)) === FUNDS, "nothing should have moved");
    check((await show(`${seller.url}/order`, { Authorization: paidFor.header }, order)).goods, "the right body should be served");
  },

  "tampered, foreign and malformed credentials are refused": async ({ bench, seller }) => {
    const url = `${seller.url}/protected`;
    const payer = await bench.freshPayer();
    const hand = new Hand(payer);
    const { challenge } = await ask(url);
    const { header } = await hand.credential(challenge);
    const decoded = JSON.parse(Buffer.from(header.slice("Payment ".length), "base64url").toString("utf8"));
    const changed = (change) => {
      const copy = structuredClone(decoded);
      change(copy);
      return show(url, { Authorization: `Payment ${Buffer.from(JSON.stringify(copy)).toString("base64url")}` });
    };
    const request = (fields) => Buffer.from(JSON.stringify({ ...challenge.request, ...fields })).toString("base64url");
    refusedAs(await changed((c) => (c.challenge.request = request({ amount: "1" }))), "invalid-challenge");
    refusedAs(await changed((c) => (c.challenge.realm = "elsewhere.example")), "invalid-challenge");
    refusedAs(await changed((c) => (c.challenge.expires = "2099-01-01T00:00:00Z")), "invalid-challenge");
    refusedAs(await changed((c) => (c.challenge.id = "A".repeat(43))), "invalid-challenge");
    refusedAs(await changed((c) => (c.payload.value = "999")), "verification-failed");
    refusedAs(await changed((c) => (c.payload.to = payer.address)), "verification-failed");
    refusedAs(await changed((c) => (c.payload.nonce = `0x${"11".repeat(32)}`)), "verification-failed");
    refusedAs(await changed((c) => (c.payload.validBefore = "1")), "payment-expired");
    refusedAs(await changed((c) => (c.source = `did:pkh:eip155:1:${payer.address}`)), "verification-failed");
    refusedAs(await changed((c) => (c.payload.signature = `0x${"22".repeat(65)}`)), "verification-failed");
    refusedAs(await show(url, { Authorization: "Payment not-json" }), "malformed-credential");
    refusedAs(await show(url, { Authorization: `Payment ${"A".repeat(70_000)}` }), "malformed-credential");
    const two = await show(url, { Authorization: header, "Payment-Authorization": header });
    check(two.status === 400 && two.body.type === `${PROBLEMS}bad-request`, "two credentials should be 400", brief(two));
    check((await bench.balance(payer.address)) === FUNDS, "nothing should have moved");
    check((await show(url, { Authorization: header })).goods, "untouched, it should buy");
  },

  "a Bearer token and a payment live side by side": async ({ bench, seller }) => {
    const url = `${seller.url}/protected`;
    const payer = await bench.freshPayer();
    const bearer = { headers: { Authorization: "Bearer t0ken" } };
    const { challenge, response } = await ask(url, bearer);
    check(/header="Payment-Authorization"/.test(response.headers.get("WWW-Authenticate")), "should name the other header",
      response.headers.get("WWW-Authenticate"));
    const { header } = await new Hand(payer).credential(challenge);
    const shown = await show(url, { "Payment-Authorization": header }, bearer);
    check(shown.goods && shown.body.bearer === "Bearer t0ken", "both should reach where they belong", brief(shown));
  },

  "one answer asks in all dialects": async ({ seller }) => {
    const { response, body, challenge, v2 } = await ask(`${seller.url}/protected`);
    check(response.status === 402 && response.headers.get("Cache-Control") === "no-store", "402, not stored");
    check(body.type === `${PROBLEMS}payment-required` && body.status === 402, "problem details", body);
    check(body.x402Version === 1 && body.accepts.length === 1 && body.accepts[0].network === "base-sepolia", "v1", body);
    check(v2.x402Version === 2 && v2.accepts.length >= 1, "v2", v2);
    const { amount, currency, recipient } = challenge.request;
    check(amount === "1000" && currency === USDC && recipient === seller.payee, "MPP", challenge);
    const size = [...response.headers].reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);
    check(size < 4096, "headers should fit common proxies", size);
  },
};

await script(CASES, async (names) => {
  farthingBin();
  const world = await startWorld();
  const bench = new Bench(world);
  try {
    const [seller, mppx] = await Promise.all([
      Seller.open(bench, world.accounts[1].privateKey), mppxSeller(bench, world.accounts[2].privateKey),
    ]);
    const counts = await runCases(CASES, names, { bench, seller, mppx }, seller, { there: () => seller.received(), unit: "atoms" });
    await seller.close();
    await mppx.program.stop();
    return counts;
  } finally {
    await world.stop();
  }
});

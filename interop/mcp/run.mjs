#!/usr/bin/env node
// The published TypeScript SDK of the Model Context Protocol against our program, on the embedded chain. Its client buys
// through `farthing mcp serve`, over standard input and output and over streamable HTTP, within a budget and not beyond
// it; and it calls the priced tools of its own server through `farthing gateway`, paid by mppx and by x402. What counts
// is what the token says moved and how often the service behind the gateway was called; at the end the books are checked.
//
//   node interop/mcp/run.mjs [--filter TEXT] [--list]

import http from "node:http";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { x402Client } from "@x402/core/client";
import { toClientEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { Credential } from "mppx";
import { evm } from "mppx/client";
import { McpClient } from "mppx/mcp/client";
import { createPublicClient, http as rpcTransport } from "viem";
import { baseSepolia } from "viem/chains";

import {
  NETWORK, PAYEE, PAYER_KEY, RELAYER_KEY, USDC, bin, books, check, cleanAfter, devnet, freePort, ledgerOf, payer, repo,
  route, run, same, script, scratch, seller, service, surroundings, until, upstream, usdc, wallet, within,
} from "../../scripts/e2e/support.mjs";

const ATOMS = 1_000n; // $0.001
const MAX = "0.02";
const BUDGET = "0.004"; // Four purchases.
const words = process.argv.slice(2);
const filter = words.includes("--filter") ? words[words.indexOf("--filter") + 1] : "";

// ---------------------------------------------------------------------------------------------------------------------
// Agents.

/** What a tool answered: our own facts, and what is marked as somebody else's words. */
function read(result) {
  const marked = result.content.map(({ text, _meta }) => ({ text, untrusted: _meta?.["farthing/untrusted"] }));
  return {
    facts: result.structuredContent,
    own: marked.filter(({ untrusted }) => untrusted === false).map(({ text }) => text),
    theirs: marked.filter(({ untrusted }) => untrusted === true).map(({ text }) => text),
    isError: result.isError === true,
  };
}

class Agent {
  constructor(client) {
    this.client = client;
    this.heard = "";
  }

  static async connect(transport) {
    const client = new Client({ name: "interop", version: "1.0.0" });
    await within(client.connect(transport), "the start of an agent");
    cleanAfter(() => client.close().catch(() => {}));
    return new Agent(client);
  }

  async call(name, args = {}) {
    const result = await within(this.client.callTool({ name, arguments: args }), `the answer of ${name}`);
    this.heard += JSON.stringify(result);
    return read(result);
  }

  buy(id, url, more = {}) {
    return this.call("pay_and_fetch", { call_id: id, url, ...more });
  }
}

const TRANSPORTS = {
  stdio: async ({ env }) => {
    const transport = () => new StdioClientTransport({
      command: bin, args: ["mcp", "serve", "--max", MAX], env: { ...surroundings(), ...env }, stderr: "inherit",
    });
    return { open: () => Agent.connect(transport()) };
  },
  http: async ({ env }) => {
    const token = readFileSync(await tokenFile(env), "utf8").trim();
    let server = await service(["mcp", "serve", "--http", "127.0.0.1:0", "--max", MAX], env);
    const requestInit = { headers: { Authorization: `Bearer ${token}` } };
    return {
      open: () => Agent.connect(new StreamableHTTPClientTransport(new URL(server.url), { requestInit })),
      get url() {
        return server.url;
      },
      token,
      restart: async () => {
        await server.kill();
        server = await service(["mcp", "serve", "--http", "127.0.0.1:0", "--max", MAX], env);
      },
      stop: () => server.stop(),
    };
  },
};

/** `farthing mcp token` makes the token, and prints what is in the file. */
async function tokenFile(env) {
  const printed = await run(["mcp", "token"], env);
  const file = join(env.FARTHING_HOME, "mcp-token");
  same("mcp token prints what its file holds", printed.stdout, readFileSync(file, "utf8"));
  return file;
}

/** The status of a request with headers that `fetch` would not send. */
function status(url, headers) {
  return new Promise((done, fail) => {
    const request = http.request(url, { method: "POST", headers: { "content-type": "application/json", ...headers } }, (answer) => {
      answer.resume();
      done(answer.statusCode);
    });
    request.on("error", fail);
    request.end('{"jsonrpc":"2.0","id":1,"method":"tools/list"}');
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// The wallet as tools.

async function buying(name, world) {
  const { node, shop, behind } = world;
  const purse = await wallet(node.url, new URL(shop.url).host);
  await purse.wallet("limit", "--per-payment", "1", "--hour", BUDGET, "--day", BUDGET);
  const server = await TRANSPORTS[name](purse);
  const agent = await server.open();
  const at = (path) => `${shop.url}${path}`;
  const says = (what) => `${name}: ${what}`;
  const since = async (what, expected, work) => {
    const ledger = await ledgerOf(node.url, behind);
    const result = await work();
    const { paid, earned, calls } = await ledger();
    check(says(what), paid === expected && earned === expected, `${paid} paid, ${earned} earned: ${JSON.stringify(result.facts)}`);
    return { ...result, calls };
  };

  const { tools } = await agent.client.listTools();
  same(says("seven tools"), tools.map((tool) => tool.name).sort().join(), "approval,balance,budget,find,history,pay_and_fetch,quote");

  const quoted = await since("a quote moves nothing", 0n, () => agent.call("quote", { url: at("/goods") }));
  check(says("a quote tells the price"), quoted.facts.offers?.[0]?.money.atoms === String(ATOMS) && quoted.facts.permitted, quoted.facts);
  same(says("a quote is not served"), quoted.calls, 0);

  const bought = await since("a purchase moves the price", ATOMS, () => agent.buy("one", at("/goods")));
  check(says("a purchase is paid and confirmed"), bought.facts.outcome === "paid" && !bought.isError &&
    bought.facts.payment.settlement === "confirmed on chain", bought.facts);
  same(says("a purchase is served once"), bought.calls, 1);
  check(says("the goods are marked as untrusted"), bought.theirs.some((text) => text.startsWith("UNTRUSTED DATA") && text.includes('"goods"')) &&
    !bought.own.some((text) => text.includes('"goods"')), bought);
  same(says("our own facts are said in both forms"), bought.own[0], JSON.stringify(bought.facts));

  const again = await since("the same name moves nothing", 0n, () => agent.buy("one", at("/goods")));
  check(says("the same name brings the same"), again.facts.outcome === "paid" && again.calls === 0, again);
  const other = await since("the same name for another request moves nothing", 0n, () => agent.buy("one", at("/goods?more")));
  same(says("and is a conflict"), other.facts.error?.code, "call_id_conflict");

  const dear = await since("what costs more than --max moves nothing", 0n, () => agent.buy("dear", at("/dear"), { max: "1" }));
  check(says("and is refused"), dear.isError && dear.facts.outcome === "denied" && dear.calls === 0, dear.facts);
  const own = await since("what costs more than the call's max moves nothing", 0n, () => agent.buy("own", at("/goods"), { max: "0.0009" }));
  check(says("and is refused"), own.isError && own.facts.outcome === "denied", own.facts);
  const foreign = await since("whom the owner does not know is not paid", 0n, () => agent.buy("foreign", "https://elsewhere.example/x"));
  check(says("and is not even asked"), foreign.isError, foreign.facts);
  const free = await since("what is free moves nothing", 0n, () => agent.buy("free", at("/free")));
  check(says("and is brought"), free.facts.outcome === "free" && !free.isError, free.facts);
  for (const [tool, args] of [
    ["pay_and_fetch", { url: at("/goods") }], ["pay_and_fetch", { call_id: "x", url: "file:///etc/passwd" }],
    ["pay_and_fetch", { call_id: "x", url: at("/goods"), headers: { "X-PAYMENT": "e30=" } }], ["quote", { url: 7 }], ["history", { limit: -1 }],
  ]) {
    const { facts, isError } = await agent.call(tool, args);
    check(says(`${tool} ${JSON.stringify(args)} is refused by code`), isError && facts.error?.code === "invalid_arguments", facts);
  }
  const unknown = await agent.client.callTool({ name: "transfer", arguments: {} }).catch((error) => error);
  same(says("no other tool"), unknown.code, -32602);

  // The server ends while a purchase is under way, and another takes it up.
  if (server.restart) {
    const slow = behind.slow();
    const ledger = await ledgerOf(node.url, behind);
    const lost = agent.buy("lost", at("/goods?lost")).catch(() => "lost");
    await slow.called;
    await server.restart();
    slow.release();
    check(says("an answer is lost with its server"), (await lost) === "lost");
    const next = await server.open();
    const found = await next.buy("lost", at("/goods?lost"));
    check(says("the same name brings it from the next server"), found.facts.outcome === "paid" && Boolean(found.facts.payment.bought_earlier), found.facts);
    const { paid, calls } = await ledger();
    check(says("and it was paid and served once"), paid === ATOMS && calls === 1, { paid: String(paid), calls });
    agent.client = next.client;
  } else {
    await agent.buy("two", at("/goods?2"));
  }

  await agent.buy("three", at("/goods?3"));
  await agent.buy("four", at("/goods?4"));
  const { facts: budget } = await agent.call("budget");
  const dollars = budget.caps.find(({ of }) => /dollar/i.test(of)) ?? budget.caps[0];
  check(says("the budget is spent"), dollars.day.spent === BUDGET && Number(dollars.day.left) === 0 && budget.max_per_call === MAX, budget);
  const beyond = await since("beyond the budget nothing moves", 0n, () => agent.buy("five", at("/goods?5")));
  check(says("and the reason is said"), beyond.isError && beyond.facts.outcome === "denied" && /cap|limit|day|hour/.test(beyond.facts.denied?.code), beyond.facts);
  await purse.wallet("limit", "--hour", "1", "--day", "1");
  await purse.wallet("freeze");
  const frozen = await since("a frozen wallet pays nothing", 0n, () => agent.buy("six", at("/goods?6")));
  same(says("and says so"), frozen.facts.denied?.code, "frozen");
  await purse.wallet("unfreeze");
  await since("what the owner allows meanwhile is paid", ATOMS, () => agent.buy("five", at("/goods?5")));

  const { facts: past } = await agent.call("history", { limit: 50 });
  check(says("the history has every purchase"), past.purchases.length === 5 && past.purchases.every((one) => one.money.atoms === String(ATOMS)), past);
  const { facts: purseNow } = await agent.call("balance");
  check(says("the balance is the chain's"), purseNow.balances.some((one) => one.symbol === "USDC" && BigInt(one.atoms) > 0n), purseNow);
  const secrets = [PAYER_KEY.slice(2), server.token].filter(Boolean);
  check(says("no key was heard"), !secrets.some((secret) => agent.heard.toLowerCase().includes(secret)));

  if (server.url) {
    const bearer = { Authorization: `Bearer ${server.token}` };
    same(says("without the token 401"), await status(server.url, {}), 401);
    same(says("with another token 401"), await status(server.url, { Authorization: `Bearer ${"0".repeat(64)}` }), 401);
    same(says("from a web page 403"), await status(server.url, { ...bearer, Origin: "https://evil.example" }), 403);
    same(says("for another host 403"), await status(server.url, { ...bearer, Host: "evil.example" }), 403);
    same(says("elsewhere 404"), await status(server.url.replace(/mcp$/, "other"), bearer), 404);
    await server.stop();
  }
  await agent.client.close();
}

// ---------------------------------------------------------------------------------------------------------------------
// Tools with a price.

const TOOL_ATOMS = 10_000n; // $0.01
const KEYS = {
  credential: "org.paymentauth/credential", receipt: "org.paymentauth/receipt", required: "org.paymentauth/payment-required",
  payment: "x402/payment", response: "x402/payment-response",
};
const toolServer = join(repo, "interop/mcp/tools.mjs");

/** How the gateway reaches the server behind: by starting it, or by HTTP. */
const BEHIND = {
  stdio: async () => `command = [${JSON.stringify(process.execPath)}, ${JSON.stringify(toolServer)}]`,
  http: async () => {
    const port = await freePort();
    const child = spawn(process.execPath, [toolServer, "--http", String(port)], { stdio: "inherit" });
    cleanAfter(() => child.kill());
    await until("the start of the tools", () => fetch(`http://127.0.0.1:${port}/`).then(() => true, () => false));
    return `upstream = "http://127.0.0.1:${port}/mcp"`;
  },
};

async function till(node, behind, unpaid) {
  const dir = scratch();
  const [port, config, store] = [await freePort(), join(dir, "farthing.toml"), join(dir, "gateway.db")];
  const tools = ["forecast", "fails", "elicits", "greedy"].map((name) => `
[[tool]]
name = "${name}"
price = "$0.01"
`);
  writeFileSync(config, `
[gateway]
listen = "127.0.0.1:${port}"
network = "base-sepolia"
pay_to = "${PAYEE}"

[store]
path = "gateway.db"

[networks.base-sepolia]
rpc = ["${node.url}"]
relayer_key = "env:RELAYER_KEY"

[mcp]
${behind}
unpaid = "${unpaid}"
${tools.join("")}
[[tool]]
name = "calls"
free = true
`);
  const gateway = await service(["gateway", "-c", config], { RELAYER_KEY });
  return { url: gateway.mcp, store, gateway };
}

async function agentOf({ url }) {
  const client = new Client({ name: "interop", version: "1.0.0" });
  await within(client.connect(new StreamableHTTPClientTransport(new URL(url))), "the start of an agent");
  cleanAfter(() => client.close().catch(() => {}));
  return client;
}

/** A method of mppx that signs EIP-3009 authorizations. */
const mppxMethod = () => [evm.charge({
  account: payer, authorization: { name: "USDC", version: "2" }, currencies: [USDC],
  networks: [Number(NETWORK.split(":")[1])], decimals: 6, maxAmount: "0.05",
})].flat()[0];

async function selling(name, { node }) {
  const says = (what) => `tools over ${name}: ${what}`;
  const behind = await BEHIND[name]();
  const shop = await till(node, behind, "result");
  const plain = await agentOf(shop);
  const counted = async (tool) => JSON.parse((await plain.callTool({ name: "calls", arguments: {} })).content[0].text)[tool] ?? 0;
  /** What a call comes to, what moved by it, and how often the tool ran. */
  const watched = async (tool, call) => {
    const [before, had, ran] = [await usdc(node.url, payer.address), await usdc(node.url, PAYEE), await counted(tool)];
    const result = await within(call(), `the answer of ${tool}`).catch((error) => error);
    const [paid, earned] = [before - (await usdc(node.url, payer.address)), (await usdc(node.url, PAYEE)) - had];
    return { result, paid, earned, calls: (await counted(tool)) - ran };
  };
  const expect = (what, seen, atoms, calls) =>
    check(says(what), seen.paid === atoms && seen.earned === atoms && seen.calls === calls,
      { paid: String(seen.paid), earned: String(seen.earned), calls: seen.calls, result: String(JSON.stringify(seen.result) ?? seen.result).slice(0, 1500) });
  const ask = (tool, args = {}, meta) => plain.callTool({ name: tool, arguments: args, ...(meta ? { _meta: meta } : {}) });

  const { tools } = await plain.listTools();
  same(says("only what is named is listed"), tools.map((tool) => tool.name).sort().join(), "calls,elicits,fails,forecast,greedy");
  same(says("the server's own name is told"), plain.getServerVersion()?.name, "weather");
  check(says("payment is announced"), plain.getServerCapabilities()?.experimental?.payment?.methods?.evm?.intents?.[0] === "charge", plain.getServerCapabilities());
  const hidden = await ask("hidden").catch((error) => error);
  same(says("what is not named is not there"), hidden.code, -32602);

  // Unpaid: both dialects in one answer.
  const unpaid = await watched("forecast", () => ask("forecast", { city: "Berlin" }));
  expect("an unpaid call moves nothing and runs nothing", unpaid, 0n, 0);
  const asked = unpaid.result;
  const required = asked._meta?.[KEYS.required];
  check(says("it is asked by x402"), asked.isError === true && asked.structuredContent?.x402Version === 2 && asked.structuredContent.accepts.length > 0 &&
    asked.content[0].text === JSON.stringify(asked.structuredContent), asked);
  check(says("and by MPP"), required?.httpStatus === 402 && required.challenges[0].request.amount === String(TOOL_ATOMS), required);

  // Paid by mppx.
  const mpp = McpClient.wrap(await agentOf(shop), { methods: [mppxMethod()] });
  const byMpp = await watched("forecast", () => mpp.callTool({ name: "forecast", arguments: { city: "Berlin", days: 1.5 } }));
  expect("mppx pays once and is served once", byMpp, TOOL_ATOMS, 1);
  check(says("mppx gets the goods and its receipt"), byMpp.result.content?.[0].text === "sunny in Berlin" && byMpp.result.receipt?.status === "success" &&
    /^0x[0-9a-f]{64}$/.test(byMpp.result.receipt.reference) && byMpp.result._meta.days === 1.5 && !byMpp.result._meta[KEYS.response], byMpp.result);

  // Paid by x402.
  const publicClient = createPublicClient({ chain: baseSepolia, transport: rpcTransport(node.url) });
  const signer = toClientEvmSigner(payer, publicClient);
  const x402 = new x402Client().register("eip155:*", new ExactEvmScheme(signer, { rpcUrl: node.url }));
  const payment = await x402.createPaymentPayload(asked.structuredContent);
  const byX402 = await watched("forecast", () => ask("forecast", { city: "Berlin" }, { [KEYS.payment]: payment }));
  expect("x402 pays once and is served once", byX402, TOOL_ATOMS, 1);
  const settled = byX402.result._meta?.[KEYS.response];
  check(says("x402 gets the goods and its receipt"), byX402.result.content?.[0].text === "sunny in Berlin" && settled?.success === true &&
    /^0x[0-9a-f]{64}$/.test(settled.transaction) && !byX402.result._meta[KEYS.receipt], byX402.result);
  const again = await watched("forecast", () => ask("forecast", { city: "Berlin" }, { [KEYS.payment]: payment }));
  expect("the same payment for the same call brings the same, once paid and once run", again, 0n, 0);
  check(says("that is the goods"), again.result.content?.[0].text === "sunny in Berlin", again.result);
  const elsewhere = await watched("forecast", () => ask("forecast", { city: "Paris" }, { [KEYS.payment]: payment }));
  expect("the same payment for another call buys nothing", elsewhere, 0n, 0);
  check(says("and says so"), elsewhere.result.isError === true || elsewhere.result.code === -32043, elsewhere.result);

  // Credentials by hand.
  const credential = async (challenge) => {
    return Credential.deserialize(await mppxMethod().createCredential({ challenge }));
  };
  const fresh = async (args) => (await ask("forecast", args))._meta[KEYS.required].challenges[0];
  const paidFor = await credential(await fresh({ city: "Rome" }));
  const other = await watched("forecast", () => ask("forecast", { city: "Oslo" }, { [KEYS.credential]: paidFor }));
  expect("a credential opens no other arguments", other, 0n, 0);
  check(says("the refusal is -32043 with fresh challenges"), other.result.code === -32043 && other.result.data?.challenges?.length > 0 && other.result.data.failure, other.result);
  const right = await watched("forecast", () => ask("forecast", { city: "Rome" }, { [KEYS.credential]: paidFor }));
  expect("it opens its own", right, TOOL_ATOMS, 1);
  const replay = await watched("forecast", () => ask("forecast", { city: "Rome" }, { [KEYS.credential]: paidFor }));
  expect("a second time it opens nothing", replay, 0n, 0);
  same(says("and is refused"), replay.result.code, -32043);
  const named = { [KEYS.credential]: await credential(await fresh({ city: "Bern" })), "farthing/idempotency-key": "bern" };
  const first = await watched("forecast", () => ask("forecast", { city: "Bern" }, named));
  expect("a named call is paid", first, TOOL_ATOMS, 1);
  const second = await watched("forecast", () => ask("forecast", { city: "Bern" }, named));
  expect("and asked for again brings the same", second, 0n, 0);
  same(says("that is the goods, too"), second.result.content?.[0].text, "sunny in Bern");
  for (const [what, meta] of [
    ["no object", { [KEYS.credential]: 7 }], ["no challenge", { [KEYS.credential]: { payload: {} } }],
    ["both payments", { [KEYS.credential]: paidFor, [KEYS.payment]: payment }],
  ]) {
    const bad = await ask("forecast", { city: "Rome" }, meta).catch((error) => error);
    same(says(`a credential with ${what} is -32602`), bad.code, -32602);
  }

  // What is not charged.
  const fails = await watched("fails", () => mpp.callTool({ name: "fails", arguments: {} }));
  expect("a tool that fails is not charged for", fails, 0n, 1);
  check(says("and its reason is told"), fails.result.isError === true && fails.result.content[0].text === "out of order", fails.result);
  const elicits = await watched("elicits", () => mpp.callTool({ name: "elicits", arguments: {} }));
  expect("an elicitation is not charged for", elicits, 0n, 1);
  check(says("and is told from a payment"), elicits.result.code === -32042 && elicits.result.data?.elicitations?.length === 1 && !elicits.result.data.challenges, elicits.result);
  const greedy = await watched("greedy", () => mpp.callTool({ name: "greedy", arguments: {} }));
  expect("a tool that wants to be paid itself is not charged for", greedy, 0n, 1);
  check(says("and its bill is not passed on"), !JSON.stringify(greedy.result.data ?? greedy.result).includes("accepts"), greedy.result);
  same(says("a web page is refused"), await status(shop.url, { Origin: "https://evil.example" }), 403);

  // By the draft's error, where the file says so.
  await plain.close();
  await shop.gateway.stop();
  const strict = await till(node, behind, "error");
  const strictly = await agentOf(strict);
  const thrown = await strictly.callTool({ name: "forecast", arguments: { city: "Berlin" } }).catch((error) => error);
  check(says("as an error it is -32042 with challenges and offers"), thrown.code === -32042 && thrown.data?.challenges?.length > 0 &&
    thrown.data["x402/payment-required"]?.accepts?.length > 0 && thrown.data.httpStatus === 402, thrown);
  const had = await usdc(node.url, payer.address);
  const wrapped = McpClient.wrap(strictly, { methods: [mppxMethod()] });
  const bought = await wrapped.callTool({ name: "forecast", arguments: { city: "Berlin" } });
  check(says("mppx pays by it"), bought.content[0].text === "sunny in Berlin" && had - (await usdc(node.url, payer.address)) === TOOL_ATOMS, bought);
  await strictly.close();
  await strict.gateway.stop();
  for (const { store } of [shop, strict]) {
    const { balance, said } = await books(store);
    check(says("the books are sound"), balance, said);
  }
}

// ---------------------------------------------------------------------------------------------------------------------

const CASES = Object.fromEntries([
  ...Object.keys(TRANSPORTS).map((name) => [`the wallet over ${name}`, (world) => buying(name, world)]),
  ...Object.keys(BEHIND).map((name) => [`tools over ${name}`, (world) => selling(name, world)]),
]);

if (words.includes("--list")) {
  console.log(Object.keys(CASES).join("\n"));
  process.exit(0);
}

await script(async () => {
  const [node, behind] = await Promise.all([devnet(), upstream()]);
  const routes = route("GET /goods", "$0.001") + route("GET /dear", "$0.05") + '[[route]]\nmatch = "GET /free"\nfree = true\n';
  const shop = await seller({ rpcUrl: node.url, upstreamUrl: behind.url, routes });
  const gateway = await shop.start();
  for (const [name, run] of Object.entries(CASES)) {
    if (name.includes(filter)) await run({ node, behind, shop });
  }
  await gateway.stop();
  const { balance, said } = await books(shop.store);
  check("the gateway's books are sound", balance, said);
});

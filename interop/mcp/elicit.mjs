#!/usr/bin/env node
// An agent whose program can show a URL to its user: where people have to approve a payment, `farthing mcp serve` and
// `farthing mcp proxy` point to the owner's approval page, by the error that the Model Context Protocol has for it
// (−32042, which is MPP's number for a bill, too), and never by a form. Two people approve by the command line, and the
// same call pays once. The published TypeScript SDK, on the embedded chain.
//
//   node interop/mcp/elicit.mjs

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ElicitRequestSchema, UrlElicitationRequiredError } from "@modelcontextprotocol/sdk/types.js";

import {
  OTHER_RELAYER_KEY, PAYEE, bin, books, check, cleanAfter, devnet, freePort, repo, route, run, same, scratch, script, seller, service, surroundings,
  upstream, usdc, wallet, within,
} from "../../scripts/e2e/support.mjs";

const PAGE = "http://localhost:8405";
const POLICY = `
version: 1
owner: acme
budgets:
  acme:
    per_payment: $0.10
    rolling: {24h: $1}
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

/** An agent whose program can show what `elicitation` says, and what it was sent unasked. */
async function agent(args, env, elicitation) {
  const client = new Client({ name: "interop", version: "1.0.0" }, { capabilities: elicitation ? { elicitation } : {} });
  const sent = [];
  if (elicitation) client.setRequestHandler(ElicitRequestSchema, async ({ params }) => (sent.push(params), { action: "cancel" }));
  await within(client.connect(new StdioClientTransport({ command: bin, args, env: { ...surroundings(), ...env }, stderr: "inherit" })), "the start of an agent");
  cleanAfter(() => client.close().catch(() => {}));
  const call = (name, args) => within(client.callTool({ name, arguments: args }).catch((error) => error), `the answer of ${name}`);
  return { client, call, sent };
}

/** That an answer points to the page, and asks for nothing else. Returns the request's name. */
function pointed(what, said) {
  const [visit, ...more] = said.elicitations ?? [];
  check(`${what}: the call fails with the address of the page`, said instanceof UrlElicitationRequiredError && said.code === -32042 && more.length === 0, String(said.stack ?? JSON.stringify(said)));
  const id = visit?.elicitationId ?? "";
  check(`${what}: which is the owner's, with the request's name and nothing that opens it`, visit?.mode === "url" && /^apr_\w+$/.test(id) &&
    visit.url === `${PAGE}/?approval=${id}`, visit);
  check(`${what}: it is no bill, and no form`, said.data?.challenges === undefined && said.data?.accepts === undefined && visit?.requestedSchema === undefined, said.data);
  return id;
}

script(async () => {
  const chain = await devnet();
  const goods = await upstream();
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: goods.url, routes: route("GET /dear", "$0.05") });
  await shop.start();
  const { env } = await wallet(chain.url);
  const dir = scratch();
  const farthing = (...words) => run(words, env);
  let before = await usdc(chain.url, PAYEE);
  const sold = async () => (await usdc(chain.url, PAYEE)) - before;

  const file = join(dir, "policy.yaml");
  writeFileSync(file, POLICY);
  same("the policy comes into force", (await farthing("policy", "apply", file)).code, 0);
  const key = join(dir, "ada.key");
  const made = await farthing("approver", "new", key);
  same("ada's word counts", (await farthing("approver", "add", "ada", made.json.key)).code, 0);
  const approve = (id) => farthing("approval", "approve", id, "--as", "ada", "--key", key);

  // What the printed link has behind its # lets its reader in: no agent is to hear it.
  const leaky = await farthing("mcp", "serve", "--approval-page", `${PAGE}/#secret`);
  check("a link that opens the page is refused as its address", leaky.code === 2 && /#/.test(leaky.stderr), leaky);

  // The wallet's own tools.
  const serve = ["mcp", "serve", "--approval-page", PAGE];
  const dear = (call_id) => ({ call_id, url: `${shop.url}/dear`, ask_approval: true });
  const able = await agent(serve, env, { url: {} });
  const id = pointed("mcp serve", await able.call("pay_and_fetch", dear("one")));
  same("asking again points to the same request", pointed("mcp serve, again", await able.call("pay_and_fetch", dear("one"))), id);
  const unasked = await able.call("pay_and_fetch", { ...dear("two"), ask_approval: undefined });
  same("who asks nobody is answered as ever", unasked.structuredContent?.denied?.code, "approval_required");
  for (const [what, elicitation, args] of [
    ["who can show nothing", undefined, serve], ["who can show forms alone", { form: {} }, serve], ["where no page is named", { url: {} }, ["mcp", "serve"]],
  ]) {
    const other = await agent(args, env, elicitation);
    const { structuredContent: facts } = await other.call("pay_and_fetch", dear("one"));
    check(`${what} is answered as ever`, facts?.outcome === "denied" && facts.approval?.id === id && other.sent.length === 0, facts);
    await other.client.close();
  }
  same("nothing was paid yet", await sold(), 0n);
  same("ada says yes by the command line", (await approve(id)).json?.status, "approved");
  same("the same call pays", (await able.call("pay_and_fetch", dear("one"))).structuredContent?.outcome, "paid");
  same("and again brings what was bought", (await able.call("pay_and_fetch", dear("one"))).structuredContent?.outcome, "paid");
  same("once", await sold(), 50_000n);
  const denied = pointed("mcp serve, another purchase", await able.call("pay_and_fetch", dear("three")));
  same("ada says no", (await farthing("approval", "deny", denied, "--as", "ada", "--key", key)).code, 0);
  const no = (await able.call("pay_and_fetch", { ...dear("three"), ask_approval: undefined })).structuredContent;
  same("and no is no", no?.outcome, "denied");
  same("the agent's user was sent no form", able.sent.length, 0);
  await able.client.close();

  // A policy before another server's tools.
  const [port, config] = [await freePort(), join(dir, "farthing.toml")];
  writeFileSync(config, `
[gateway]
listen = "127.0.0.1:${port}"
network = "base-sepolia"
pay_to = "${PAYEE}"

[store]
path = "tools.db"

[networks.base-sepolia]
rpc = ["${chain.url}"]
relayer_key = "env:RELAYER_KEY"

[mcp]
command = [${JSON.stringify(process.execPath)}, ${JSON.stringify(join(repo, "interop/mcp/tools.mjs"))}]

[[tool]]
name = "forecast"
price = "$0.05"
`);
  const tools = await service(["gateway", "-c", config], { RELAYER_KEY: OTHER_RELAYER_KEY });
  const rules = join(dir, "tools.yaml");
  writeFileSync(rules, 'version: "1"\ndefault: deny\ntools:\n  forecast:\n    rules: [{ name: budget, spend: { daily: 0.10 } }]\n');
  const proxy = ["mcp", "proxy", "-p", rules, "--pay", "--rpc", chain.url, "--approval-page", PAGE, "--url", tools.mcp];
  const guarded = await agent(proxy, env, { url: {} });
  before = await usdc(chain.url, PAYEE);
  const berlin = { city: "Berlin" };
  const wanted = pointed("mcp proxy", await guarded.call("forecast", berlin));
  same("nothing is paid before ada agrees", await sold(), 0n);
  same("ada agrees", (await approve(wanted)).json?.status, "approved");
  const bought = await guarded.call("forecast", berlin);
  check("the same call is paid", bought.content?.[0].text === "sunny in Berlin" && bought._meta?.["farthing/payment"]?.money.atoms === "50000", bought);
  same("once", await sold(), 50_000n);
  pointed("mcp proxy, the next call", await guarded.call("forecast", { city: "Bonn" }));
  same("which pays nothing", await sold(), 50_000n);
  same("the agent's user was sent no form", guarded.sent.length, 0);
  await guarded.client.close();
  const plain = await agent(proxy, env);
  const said = (await plain.call("forecast", { city: "Bonn" }))._meta?.["farthing/denied"];
  check("who can show nothing is told the request's name", said?.code === "payment_denied" && said.denied?.code === "approval_required" && /^apr_/.test(said.approval?.id), said);
  await plain.client.close();

  await tools.stop();
  for (const store of [shop.store, join(dir, "tools.db")]) {
    const { balance, said } = await books(store);
    check("the books balance", balance, said);
  }
});

#!/usr/bin/env node
// An agent that wants more than it may, and people who decide. The published TypeScript SDK of the Model Context Protocol
// buys through `farthing mcp serve` under a policy; above the amount that its owner allows it, it is told that people have
// to agree, has them asked, and buys once two of them have given their signed word by the command line. One no is a no, a
// word with the wrong key is none, and a freeze stops the next purchase. What a tool's output names first waits for people, too.
// On the embedded chain.
//
//   node interop/mcp/approval.mjs

import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createHash, createPrivateKey, sign } from "node:crypto";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

import {
  PAYEE, bin, books, check, cleanAfter, devnet, repo, route, run, same, script, scratch, seller, surroundings, upstream, usdc, wallet, within,
} from "../../scripts/e2e/support.mjs";

const POLICY = `
version: 1
owner: acme
budgets:
  acme:
    per_payment: $0.10
    rolling: {24h: $0.12}
allow:
  - name: shop
    hosts: ["127.0.0.1", "*"]
    networks: [eip155:84532]
    schemes: [exact]
    private: true
    plaintext: true
approve:
  - name: dear
    over: $0.01
    quorum: 2
`;

script(async () => {
  const chain = await devnet();
  const goods = await upstream();
  const routes = route("GET /cheap", "$0.005") + route("GET /dear", "$0.05") + route("GET /dearer", "$0.09");
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: goods.url, routes });
  await shop.start();
  const buyer = await wallet(chain.url);
  const { env } = buyer;
  const dir = scratch();
  const farthing = (...words) => run(words, env);
  const sold = async () => (await usdc(chain.url, PAYEE)) - before;
  const before = await usdc(chain.url, PAYEE);

  // The owner's side: a policy, and two people.
  const file = join(dir, "policy.yaml");
  writeFileSync(file, POLICY);
  same("a policy is checked before it is applied", (await farthing("policy", "check", file)).code, 0);
  same("and comes into force", (await farthing("policy", "apply", file)).code, 0);
  writeFileSync(join(dir, "looser.yaml"), POLICY.replace("per_payment: $0.10", "per_payment: $1"));
  const looser = await farthing("policy", "apply", join(dir, "looser.yaml"));
  check("a looser file changes nothing, and asks", looser.code === 3 && looser.stderr.includes("--accept-looser"), looser);
  writeFileSync(join(dir, "bad.yaml"), POLICY.replace("$0.10", "0.10"));
  const bad = await farthing("policy", "apply", join(dir, "bad.yaml"));
  check("a file with a bare number is refused, with its line", bad.code === 2 && /line 6/.test(bad.stderr), bad.stderr);
  same("what was in force still is", (await farthing("policy", "show")).json.text, POLICY);
  const keys = {};
  for (const name of ["ada", "bob"]) {
    keys[name] = join(dir, `${name}.key`);
    const made = await farthing("approver", "new", keys[name]);
    same(`${name}'s key is readable by ${name} alone`, statSync(keys[name]).mode & 0o777, 0o600);
    same(`the word of ${name} counts`, (await farthing("approver", "add", name, made.json.key)).code, 0);
  }
  const again = await farthing("approver", "new", keys.ada);
  check("no key is written over", again.code === 1 && existsSync(keys.ada), again);

  // The machine's side.
  const client = new Client({ name: "interop", version: "1.0.0" });
  await within(client.connect(new StdioClientTransport({ command: bin, args: ["mcp", "serve"], env: { ...surroundings(), ...env }, stderr: "inherit" })), "the start of an agent");
  cleanAfter(() => client.close().catch(() => {}));
  const call = async (name, args) => (await within(client.callTool({ name, arguments: args }), name)).structuredContent;
  const buy = (id, path, more = {}) => call("pay_and_fetch", { call_id: id, url: `${shop.url}${path}`, ...more });

  same("what is cheap is bought at once", (await buy("cheap", "/cheap")).outcome, "paid");
  const blocked = await buy("dear", "/dear");
  same("what is dear is not", blocked.outcome, "denied");
  same("and says that people have to agree", blocked.denied.code, "approval_required");
  check("nobody is asked unless the agent wants it", blocked.approval === undefined && /ask_approval/.test(blocked.advice), blocked);
  same("nothing waits for anybody", (await farthing("approval", "list")).json.length, 0);

  const asked = await buy("dear", "/dear", { ask_approval: true });
  const { id } = asked.approval ?? {};
  same("people are asked", asked.approval?.status, "pending");
  same("asking again is the same request", (await buy("dear", "/dear", { ask_approval: true })).approval?.id, id);
  const shown = (await farthing("approval", "show", id)).json;
  check("they see what, to whom and how much", shown.url === `${shop.url}/dear` && shown.payee.toLowerCase() === PAYEE.toLowerCase() && shown.max === "0.05 USDC", shown);

  const vote = (verdict, name, key, request = id) => farthing("approval", verdict, request, "--as", name, "--key", key);
  const forged = await vote("approve", "bob", keys.ada);
  check("ada's key is not bob's word", forged.code === 1 && /signature/.test(forged.stderr), forged);
  same("ada says yes", (await vote("approve", "ada", keys.ada)).json.voices, 1);
  same("one of two is not enough", (await buy("dear", "/dear")).outcome, "denied");
  same("the agent sees how far they are", (await call("approval", { id })).approval.voices, 1);
  // Bob signs elsewhere, by the reference page and Node's own Ed25519.
  const digest = createHash("sha256").update(`farthing payment approval v1\n${shown.text}`).digest();
  same("the digest is that of the text that is shown", digest.toString("hex"), shown.digest);
  const seed = Buffer.from(readFileSync(keys.bob, "utf8").trim().split(":")[1], "base64url");
  const key = createPrivateKey({ key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]), format: "der", type: "pkcs8" });
  const word = (verdict) => sign(null, Buffer.concat([Buffer.from(`farthing approval vote v1\n${verdict}\n`), digest]), key).toString("hex");
  const elsewhere = (signature) => farthing("approval", "approve", id, "--as", "bob", "--signature", signature);
  same("his no is no yes", (await elsewhere(word("deny"))).code, 1);
  same("bob says yes", (await elsewhere(word("approve"))).json?.status, "approved");
  same("the agent pays", (await buy("dear", "/dear")).outcome, "paid");
  same("once", (await buy("dear", "/dear")).payment?.id, (await buy("dear", "/dear")).payment?.id);
  same("the seller has been paid for both things", await sold(), 55_000n);
  same("the approval is used up", (await farthing("approval", "show", id)).json.status, "used");
  same("the same thing under another name waits again", (await buy("dear-2", "/dear")).denied.code, "approval_required");

  // One no is a no, and no yes lifts a cap.
  const denied = (await buy("dear-2", "/dear", { ask_approval: true })).approval.id;
  await vote("approve", "ada", keys.ada, denied);
  same("one no", (await vote("deny", "bob", keys.bob, denied)).json.status, "denied");
  same("is a no", (await buy("dear-2", "/dear")).outcome, "denied");
  const over = await buy("dearer", "/dearer", { ask_approval: true });
  check("what is over the budget is not asked about", over.denied.code === "over_budget" && over.approval === undefined, over);

  const standing = (await call("budget", {})).budgets;
  check("the agent sees its budget", standing.some(({ within, spent, left }) => within === "any 24h" && spent === "0.055" && left === "0.065"), standing);
  check("so does the owner", (await farthing("wallet", "show")).json.budgets.some(({ within, spent }) => within === "any 24h" && spent === "0.055"));

  // Why, and what if.
  const history = (await call("history", {})).purchases;
  const bought = history.find((one) => one.money.atoms === "50000");
  const why = (await farthing("policy", "explain", bought.id)).json;
  check("the purchase says by which approval", why.findings.some(({ code, text }) => code === "approved" && text.includes(id)), why);
  writeFileSync(join(dir, "tight.yaml"), POLICY.replace("per_payment: $0.10", "per_payment: $0.004"));
  const replayed = await farthing("policy", "test", join(dir, "tight.yaml"), "--replay", "24h");
  check("another policy would have denied both", replayed.code === 4 && replayed.json.denied === 2 && replayed.json.changed[0].code === "over_budget", replayed);

  // The kill switch.
  same("a cheap thing is still bought", (await buy("cheap-2", "/cheap")).outcome, "paid");
  same("freeze", (await farthing("wallet", "freeze")).code, 0);
  const began = performance.now();
  const frozen = await buy("cheap-3", "/cheap");
  same("the next purchase is refused", frozen.denied.code, "frozen");
  console.log(`      ${(performance.now() - began).toFixed(1)} ms from the freeze's return to the refusal`);
  same("and nothing more was paid", await sold(), 60_000n);
  same("unfreeze", (await farthing("wallet", "unfreeze")).code, 0);
  same("it goes on", (await buy("cheap-3", "/cheap")).outcome, "paid");

  // Somebody else's tool, behind the policy proxy, tells the agent where to pay.
  writeFileSync(join(dir, "tools.yaml"), 'version: "1"\ndefault: allow\ntools: {}\n');
  const tools = new Client({ name: "interop", version: "1.0.0" });
  const behind = ["mcp", "proxy", "-p", join(dir, "tools.yaml"), "--taint", "--", process.execPath, join(repo, "interop/mcp/tools.mjs")];
  await within(tools.connect(new StdioClientTransport({ command: bin, args: behind, env: { ...surroundings(), ...env }, stderr: "inherit" })), "the start of the tools");
  cleanAfter(() => tools.close().catch(() => {}));
  const toldOf = `${shop.url.replace("127.0.0.1", "localhost")}/cheap`;
  const told = await within(tools.callTool({ name: "forecast", arguments: { city: `${shop.url} or better ${toldOf}` } }), "forecast");
  check("a tool says where to pay", told.content[0].text.includes(toldOf), told);
  const named = (await farthing("policy", "named")).json;
  check("the wallet knows who said so", named.some(({ kind, name, by }) => kind === "host" && name === "localhost" && by === "tools.mcp.invalid:443 forecast"), named);
  same("a host that the owner named is paid, whoever names it", (await buy("known", "/cheap")).outcome, "paid");
  const pay = (more = {}) => call("pay_and_fetch", { call_id: "told", url: toldOf, ...more });
  same("one that the tool named first waits", (await pay()).denied?.code, "approval_required");
  const held = await pay({ ask_approval: true });
  same("people are asked", held.approval?.status, "pending");
  same("ada says yes to exactly this", (await vote("approve", "ada", keys.ada, held.approval.id)).json.status, "approved");
  const after = await pay();
  same("and it is paid", after.outcome, "paid");
  same("once", (await pay()).payment?.id, after.payment.id);
  const reasons = (await farthing("policy", "explain", after.payment.id)).json.findings;
  check("the purchase says who named it", reasons.some(({ code, text }) => code === "named_first" && text.includes("tools.mcp.invalid:443 forecast")), reasons);

  const kept = await books(shop.store);
  check("the seller's books balance", kept.balance, kept.said);
  same("and have six sales", kept.payments.length, 6);
});

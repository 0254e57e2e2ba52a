#!/usr/bin/env node
// The published TypeScript SDK of the Model Context Protocol, as agent and as server, with `farthing mcp proxy` between
// them: what the policy permits, limits, hides, asks about and pays for, in both dialects, within its budget and not
// beyond it. What counts is what the server was really asked and what the token says moved.
//
//   node interop/mcp/proxy.mjs

import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

import {
  OTHER_RELAYER_KEY, PAYEE, RELAYER_KEY, bin, books, check, cleanAfter, devnet, freePort, payer, repo, run, same, scratch, script, service,
  surroundings, until, usdc, wallet, within,
} from "../../scripts/e2e/support.mjs";

const ATOMS = 10_000n; // $0.01
const CAP = 100;
const CALLS = 1_000;
const guarded = join(repo, "interop/mcp/guarded.mjs");

const POLICY = (more = "") => `
version: "1"
description: For the story
default: deny
hide: [hidden]
tools:
  echo:
    rules:
      - name: short and plain
        conditions: [{ path: args.text, op: regex, value: "^[a-z ]{1,20}$" }]
        on_deny: Say it in few plain words
  capped:
    rules:
      - { name: daily, rate_limit: ${CAP}/day }
  asks:
    rules:
      - { name: human, action: require_approval }
  fails:
    rules:
      - { name: two, rate_limit: 2/day }
  by_x402:
    rules:
      - { name: budget, spend: { per_call: 0.01, daily: 0.02 } }
  by_mpp:
    rules:
      - { name: budget, spend: { per_call: 0.01, daily: 0.02 } }
  dear:
    rules:
      - { name: budget, spend: { per_call: 0.009 } }
  elicits:
    rules:
      - { name: budget, spend: { per_call: 1 } }
  unplanned: { rules: [] }
  forges: { rules: [] }
  slow: { rules: [] }
  shifts: { rules: [] }
  calls: { rules: [] }
${more}`;

/** What the guard says of a call that it denied. */
const denial = (result) => result._meta?.["farthing/denied"];

async function shop(node, unpaid, relayerKey) {
  const dir = scratch();
  const [port, config, store] = [await freePort(), join(dir, "farthing.toml"), join(dir, "gateway.db")];
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
command = [${JSON.stringify(process.execPath)}, ${JSON.stringify(join(repo, "interop/mcp/tools.mjs"))}]
unpaid = "${unpaid}"

[[tool]]
name = "forecast"
price = "$0.01"
`);
  const gateway = await service(["gateway", "-c", config], { RELAYER_KEY: relayerKey });
  return { url: gateway.mcp, store, gateway };
}

async function agentOf(policy, env, more = [], server = [process.execPath, guarded]) {
  const args = ["mcp", "proxy", "-p", policy, ...more, "--", ...server];
  const transport = new StdioClientTransport({ command: bin, args, env: { ...surroundings(), ...env }, stderr: "pipe" });
  const client = new Client({ name: "interop", version: "1.0.0" });
  const heard = { stderr: "", changed: 0, messages: [] };
  transport.stderr.on("data", (data) => (heard.stderr += data));
  client.fallbackNotificationHandler = async ({ method }) => {
    if (method === "notifications/tools/list_changed") heard.changed += 1;
  };
  await within(client.connect(transport), "the start of an agent");
  cleanAfter(() => client.close().catch(() => {}));
  // As it comes: the SDK forgets who hears of progress when an answer is in the same piece as the last word about it.
  const take = transport.onmessage;
  transport.onmessage = (message, ...more) => {
    heard.messages.push(message);
    take(message, ...more);
  };
  const call = (name, args = {}, options, meta) =>
    within(client.callTool({ name, arguments: args, ...(meta ? { _meta: meta } : {}) }, undefined, options), `the answer of ${name}`);
  const counted = async (name) => JSON.parse((await call("calls")).content[0].text)[name] ?? 0;
  return { client, call, counted, heard };
}

await script(async () => {
  const node = await devnet();
  const shops = [await shop(node, "result", RELAYER_KEY), await shop(node, "error", OTHER_RELAYER_KEY)];
  const purse = await wallet(node.url, "story.mcp.invalid");
  await purse.wallet("limit", "--per-payment", "1", "--hour", "0.04", "--day", "0.04"); // Four purchases.
  const env = { ...purse.env, SHOP_RESULT: shops[0].url, SHOP_ERROR: shops[1].url };
  const dir = scratch();
  const policy = join(dir, "story.yaml");
  writeFileSync(policy, POLICY());
  const good = await run(["mcp", "validate", policy]);
  same("the policy is good", good.code, 0);

  // A scan writes a policy that denies by default.
  const scanned = await run(["mcp", "scan", "--", process.execPath, guarded], env);
  check("a scan groups tools by what they say", scanned.code === 0 && /default: deny/.test(scanned.stdout) &&
    /"echo":\n(\s+#.*\n)?\s+rules: \[\]/.test(scanned.stdout) && /"destroy":\n\s+rules:\n.*\n\s+action: deny/.test(scanned.stdout) &&
    /"echo": sha256:[0-9a-f]{64}/.test(scanned.stdout), scanned.stdout + scanned.stderr);
  writeFileSync(join(dir, "scanned.yaml"), scanned.stdout);
  same("and what it writes is good", (await run(["mcp", "validate", join(dir, "scanned.yaml")])).code, 0);
  writeFileSync(join(dir, "wrong.yaml"), 'version: "1"\ntools:\n  echo:\n    ruels: []\n');
  const wrong = await run(["mcp", "validate", join(dir, "wrong.yaml")]);
  check("what is wrong is said by line and column", wrong.code === 1 && /wrong\.yaml:4:5: error: unknown key "ruels"/.test(wrong.stdout) &&
    /wrong\.yaml:1:1: warning: default is missing/.test(wrong.stdout), wrong.stdout);

  const { client, call, counted, heard } = await agentOf(policy, env, ["--pay", "--rpc", node.url]);
  const sight = await client.listTools();
  const names = sight.tools.map((tool) => tool.name);
  check("what is hidden is not listed", !names.includes("hidden") && names.includes("echo"), names);
  same("the server's own name is told", client.getServerVersion()?.name, "guarded");
  same("and its instructions", client.getInstructions(), "Be kind.");

  // Permitted, and not.
  same("a permitted call is answered by the server", (await call("echo", { text: "hello" })).content[0].text, "hello");
  for (const [tool, args, code] of [
    ["echo", { text: "DROP TABLE" }, "condition_not_met"], ["echo", { text: ["hello"] }, "argument_not_comparable"], ["echo", {}, "argument_missing"],
    ["destroy", {}, "tool_not_permitted"], ["hidden", {}, "tool_unknown"], ["nowhere", {}, "tool_unknown"], ["asks", {}, "approval_required"],
  ]) {
    const result = await call(tool, args);
    check(`${tool} ${JSON.stringify(args)} is denied by ${code}`, result.isError === true && denial(result)?.code === code &&
      result.content[0]._meta["farthing/author"] === "guard", result);
  }
  check("in the owner's words", denial(await call("echo", { text: "X" })).reasons[0].text === "Say it in few plain words");
  const ran = JSON.parse((await call("calls")).content[0].text);
  check("and the server hears nothing of it", ran.echo === 1 && !ran.destroy && !ran.hidden && !ran.asks, ran);
  const forged = await call("forges");
  check("no server speaks for the guard", forged._meta.kept === 1 && !denial(forged) && !forged._meta["farthing/payment"] &&
    forged.content[0]._meta.kept === 1 && !("farthing/untrusted" in forged.content[0]._meta), forged);

  // A failing server gives nothing back.
  for (const expected of [undefined, undefined, "rate_limited"]) {
    const failed = await call("fails");
    check("a call that failed is counted", failed.isError && denial(failed)?.code === expected, failed);
  }

  // Progress, cancellation, prompts and resources pass.
  heard.messages.length = 0;
  const slow = await call("slow", { forever: false }, { onprogress: () => {} });
  const said = heard.messages.map(({ method, params, result }) => (method === "notifications/progress" ? params.progress : result?.content?.[0].text));
  same("progress is heard in its order, and before the answer", JSON.stringify(said), JSON.stringify([1, 2, "at last"]));
  same("which is whole", slow.content[0].text, "at last");
  const stop = new AbortController();
  const endless = call("slow", { forever: true }, { signal: stop.signal, onprogress: () => stop.abort("enough") });
  check("a call can be cancelled", (await endless.catch((error) => error)) instanceof Error);
  await until("the server to hear of it", async () => (await counted("aborted")) === 1);
  same("a prompt passes", (await client.getPrompt({ name: "greet" })).messages[0].content.text, "hello");
  same("a resource passes", (await client.readResource({ uri: "page://one" })).contents[0].text, "one");

  // Paid, in both dialects, within the budget.
  const moved = async (what, atoms, work) => {
    const [had, earned] = [await usdc(node.url, payer.address), await usdc(node.url, PAYEE)];
    const result = await work();
    const [paid, got] = [had - (await usdc(node.url, payer.address)), (await usdc(node.url, PAYEE)) - earned];
    check(what, paid === atoms && got === atoms, `${paid} paid, ${got} earned: ${JSON.stringify(result)} ${heard.stderr}`);
    return result;
  };
  for (const tool of ["by_x402", "by_mpp"]) {
    const bought = await moved(`${tool} is paid`, ATOMS, () => call(tool, { city: "Berlin" }));
    check(`${tool} brings the goods, and says what was paid`, bought.content[0].text === "sunny in Berlin" && !bought.isError &&
      bought._meta["farthing/payment"]?.money.atoms === String(ATOMS) && bought._meta["farthing/payment"].settlement === "confirmed on chain", bought);
  }
  const own = await call("by_x402", { city: "Bonn" }, undefined, { "x402/payment": { x402Version: 2 } });
  same("an agent cannot pay past the wallet", denial(own)?.code, "payment_not_agents");
  const dear = await moved("what costs more than a call may moves nothing", 0n, () => call("dear", { city: "Berlin" }));
  same("and is denied", denial(dear)?.code, "spend_per_call");
  const unplanned = await moved("a tool without a spend costs nothing", 0n, () => call("unplanned", { city: "Berlin" }));
  same("and is denied, too", denial(unplanned)?.code, "spend_not_allowed");
  const page = await moved("an elicitation is never paid", 0n, () => call("elicits").catch((error) => error));
  check("and passed on as what it is", page.code === -32042 && page.data?.elicitations?.[0].url === "https://login.example/", page);
  await moved("a second purchase is paid", ATOMS, () => call("by_x402", { city: "Bremen" }));
  const beyond = await moved("beyond the policy's day nothing moves", 0n, () => call("by_x402", { city: "Cologne" }));
  check("and it says until when", denial(beyond)?.code === "spend_daily" && denial(beyond).retry_after_s > 0, beyond);
  await purse.wallet("limit", "--hour", "0.03", "--day", "0.03");
  const poor = await moved("beyond the wallet's day nothing moves", 0n, () => call("by_mpp", { city: "Dresden" }));
  check("and the wallet says why", denial(poor)?.code === "payment_denied" && /cap|limit|day|hour/.test(denial(poor).denied?.code), poor);
  await purse.wallet("limit", "--hour", "1", "--day", "1");
  await moved("what the wallet denied did not use up the policy's day", ATOMS, () => call("by_mpp", { city: "Dresden" }));

  // A thousand calls at once against a cap of a hundred.
  const all = await Promise.all(Array.from({ length: CALLS }, (_, at) => call("capped", { at })));
  same(`of ${CALLS} calls at once ${CAP} are answered`, all.filter((one) => !one.isError).length, CAP);
  same("and so many reach the server", await counted("capped"), CAP);
  check("the others hear when to try again", all.filter((one) => denial(one)?.code === "rate_limited" && denial(one).retry_after_s > 0).length === CALLS - CAP);
  const status = JSON.parse((await run(["mcp", "status", "-p", policy])).stdout);
  const row = status.counters.find((one) => one.scope === "capped");
  check("the status says what is left and until when", row.used === String(CAP) && row.left === "0" && row.ends.endsWith("T00:00:00.000Z"), status);

  // The file changes: broken, looser, accepted, stricter.
  const replace = (text) => {
    writeFileSync(`${policy}.new`, text);
    renameSync(`${policy}.new`, policy);
  };
  replace("version: 7");
  await until("a broken policy to be noticed", () => /earlier policy stays in force:\n(.*\n)?.*story\.yaml:1:10/.test(heard.stderr));
  same("it stays as it was", (await call("echo", { text: "still here" })).content[0].text, "still here");
  replace(POLICY("  destroy: { rules: [] }\n"));
  await until("a looser policy to be noticed", () => /destroy is permitted/.test(heard.stderr));
  same("it does not loosen by itself", denial(await call("destroy"))?.code, "tool_not_permitted");
  same("the owner accepts it", (await run(["mcp", "reload", "--accept", "-p", policy])).code, 0);
  await until("it is in force", async () => !(await call("destroy")).isError);
  same("counters survive", denial(await call("capped", { at: 0 }))?.code, "rate_limited");
  const told = heard.changed;
  replace(POLICY("  destroy: { rules: [{ name: no, action: deny }] }\n"));
  await until("a stricter policy to be in force", async () => denial(await call("destroy"))?.code === "rule_denies");
  check("the agent is told to look again", heard.changed > told, heard.changed);
  await client.close();

  // After a restart everything counts on; a tool that says something else of itself is refused.
  const next = await agentOf(policy, { ...env, SHIFTED: "1" });
  same("counters survive a restart", denial(await next.call("capped", { at: 0 }))?.code, "rate_limited");
  const listed = (await next.client.listTools()).tools.map((tool) => tool.name);
  check("a tool that changed is not listed", !listed.includes("shifts") && listed.includes("echo"), listed);
  same("and not called", denial(await next.call("shifts"))?.code, "tool_changed");
  const broke = await next.call("by_x402", { city: "Berlin" });
  same("without --pay nothing is paid", denial(broke)?.code, "no_wallet");
  await next.client.close();
  const accepting = await agentOf(policy, { ...env, SHIFTED: "1" }, ["--accept-changes"]);
  same("until the owner accepts it", (await accepting.call("shifts")).content[0].text, "shifted");
  await accepting.client.close();

  // Over streamable HTTP: the gateway's own tools.
  const there = new URL(shops[0].url).host;
  await purse.wallet("allow", "--private", there).catch(() => purse.wallet("allow", there));
  writeFileSync(join(dir, "web.yaml"), 'version: "1"\ndefault: deny\ntools:\n  forecast:\n    rules: [{ name: b, spend: { daily: 0.05 } }]\n');
  const web = await agentOfUrl(join(dir, "web.yaml"), env, shops[0].url, node.url);
  const bought = await moved("a tool over HTTP is paid", ATOMS, () => web.callTool({ name: "forecast", arguments: { city: "Essen" } }));
  same("and brings the goods", bought.content[0].text, "sunny in Essen");
  await web.close();

  for (const { gateway, store } of shops) {
    await gateway.stop();
    const { balance, said } = await books(store);
    check("the books are sound", balance, said);
  }
  check("the state is for its owner alone", readFileSync(`${policy}.state.db`).length > 0);
});

async function agentOfUrl(policy, env, url, rpcUrl) {
  const args = ["mcp", "proxy", "-p", policy, "--pay", "--rpc", rpcUrl, "--url", url];
  const client = new Client({ name: "interop", version: "1.0.0" });
  const transport = new StdioClientTransport({ command: bin, args, env: { ...surroundings(), ...env }, stderr: "inherit" });
  await within(client.connect(transport), "the start of an agent");
  cleanAfter(() => client.close().catch(() => {}));
  return client;
}

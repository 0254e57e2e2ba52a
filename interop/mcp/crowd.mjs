#!/usr/bin/env node
// A thousand requests at once against a wallet that has money for a hundred of them, through each front that needs no
// other story: exactly a hundred are signed, by the wallet's books, the seller's, and the chain's. (`farthing proxy` has
// the same in scripts/e2e/proxy.mjs, a guard's agents in scripts/e2e/guard.mjs.)
//
//   node interop/mcp/crowd.mjs [fetch|serve|proxy]…

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

import {
  PAYEE, RELAYER_KEY, bin, books, check, cleanAfter, devnet, freePort, ledgerOf, repo, route, run, same, scratch, script, seller, service, surroundings,
  until, upstream, wallet, within,
} from "../../scripts/e2e/support.mjs";

const CROWD = 1_000, AFFORDABLE = 100;
const PRICE = 10_000n; // $0.01
/** Of commands: each is a process, and a thousand of them are more than a small machine holds. */
const COMMANDS_AT_ONCE = 50;
/** Of servers that share the wallet; each takes 16 purchases at a time, and tells the others that it is busy. */
const SERVERS = 4;
const PATIENCE_MS = 120_000;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const numbers = Array.from({ length: CROWD }, (_, n) => n);

async function purse(chain, ...hosts) {
  const made = await wallet(chain.url, ...hosts);
  await made.wallet("limit", "--per-payment", "0.01", "--hour", "1", "--day", "1");
  return made;
}

async function agent(args, env) {
  const client = new Client({ name: "crowd", version: "1.0.0" });
  await within(client.connect(new StdioClientTransport({ command: bin, args, env: { ...surroundings(), ...env }, stderr: "inherit" })), "the start of an agent");
  cleanAfter(() => client.close().catch(() => {}));
  return client;
}

/** How often each ending was. */
const tally = (endings) => JSON.stringify(Object.fromEntries([...new Set(endings)].sort().map((one) => [one, endings.filter((other) => other === one).length])));
const expected = JSON.stringify({ over_hour_cap: CROWD - AFFORDABLE, paid: AFFORDABLE });

/** Lets the crowd ask, and looks into all books. `ask` says how each request ended. */
async function counted(name, { chain, served, store, purse }, ask) {
  const count = await ledgerOf(chain.url, { calls: [] });
  const began = Date.now();
  const endings = await within(Promise.all(numbers.map(ask)), "the crowd", PATIENCE_MS);
  const took = Date.now() - began;
  same(`${name}: of ${CROWD} at once, those are served for which there is money, and the others denied for that reason`, tally(endings), expected);
  const history = (await purse.wallet("history", "--limit", String(CROWD))) ?? [];
  same(`${name}: the wallet signed as many`, history.length, AFFORDABLE);
  const done = await until("as many transfers", async () => {
    const now = await count();
    return now.transfers >= AFFORDABLE ? now : undefined;
  });
  same(`${name}: the chain has as many transfers`, done.transfers, AFFORDABLE);
  same(`${name}: and their price`, done.paid, BigInt(AFFORDABLE) * PRICE);
  same(`${name}: which the seller has`, done.earned, BigInt(AFFORDABLE) * PRICE);
  same(`${name}: the service was called as often`, await served(), AFFORDABLE);
  const { balance, said } = await books(store);
  check(`${name}: the seller's books balance`, balance, said);
  const sold = await run(["ledger", "payments", "--json", "--store", store, "--limit", String(CROWD)]);
  same(`${name}: and have as many sales`, sold.json?.length, AFFORDABLE);
  console.log(`      ${CROWD} requests in ${(took / 1_000).toFixed(1)} s`);
}

async function shop(chain) {
  const behind = await upstream();
  const made = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes: route("GET /unit", "$0.01") });
  const gateway = await made.start();
  return { chain, served: () => behind.calls.length, store: made.store, url: `${made.url}/unit`, gateway, purse: await purse(chain, "127.0.0.1") };
}

const FRONTS = {
  async fetch(chain) {
    const world = await shop(chain);
    let places = COMMANDS_AT_ONCE;
    const waiting = [];
    await counted("fetch", world, async (n) => {
      if (places > 0) places -= 1;
      else await new Promise((next) => waiting.push(next));
      const { code, json, stderr } = await world.purse.fetch([`${world.url}?n=${n}`]);
      const next = waiting.shift();
      if (next) next();
      else places += 1;
      return code === 0 ? "paid" : (json?.denied?.code ?? `${code} ${stderr}`);
    });
    await world.gateway.stop();
  },

  async serve(chain) {
    const world = await shop(chain);
    const agents = await Promise.all(Array.from({ length: SERVERS }, () => agent(["mcp", "serve"], world.purse.env)));
    await counted("mcp serve", world, async (n) => {
      const args = { call_id: `unit-${n}`, url: `${world.url}?n=${n}` };
      for (;;) {
        const call = agents[n % SERVERS].callTool({ name: "pay_and_fetch", arguments: args }, undefined, { timeout: PATIENCE_MS });
        const { structuredContent: facts } = await call;
        if (facts.error?.code !== "busy") return facts.outcome === "denied" ? facts.denied.code : (facts.error?.code ?? facts.outcome);
        await pause(50 + Math.random() * 200);
      }
    });
    for (const one of agents) await one.close();
    await world.gateway.stop();
  },

  async proxy(chain) {
    const dir = scratch();
    const [port, config, store, policy] = [await freePort(), join(dir, "farthing.toml"), join(dir, "gateway.db"), join(dir, "policy.yaml")];
    writeFileSync(config, `
[gateway]
listen = "127.0.0.1:${port}"
network = "base-sepolia"
pay_to = "${PAYEE}"

[store]
path = "gateway.db"

[networks.base-sepolia]
rpc = ["${chain.url}"]
relayer_key = "env:RELAYER_KEY"

[mcp]
command = [${JSON.stringify(process.execPath)}, ${JSON.stringify(join(repo, "interop/mcp/tools.mjs"))}]

[[tool]]
name = "forecast"
price = "$0.01"

[[tool]]
name = "calls"
free = true
`);
    const gateway = await service(["gateway", "-c", config], { RELAYER_KEY });
    // The policy has money for all of them, and the wallet for a hundred.
    writeFileSync(policy, 'version: "1"\ndefault: deny\ntools:\n  calls: { rules: [] }\n  forecast:\n    rules: [{ name: budget, spend: { daily: 100 } }]\n');
    const bought = await purse(chain, "127.0.0.1");
    const client = await agent(["mcp", "proxy", "-p", policy, "--pay", "--url", gateway.mcp], bought.env);
    const call = (name, args) => client.callTool({ name, arguments: args }, undefined, { timeout: PATIENCE_MS });
    const served = async () => JSON.parse((await call("calls", {})).content[0].text).forecast;
    await counted("mcp proxy", { chain, served, store, purse: bought }, async (n) => {
      const { isError, _meta: meta } = await call("forecast", { city: `City ${n}` });
      const denied = meta?.["farthing/denied"];
      return !isError && meta?.["farthing/payment"] ? "paid" : (denied?.denied?.code ?? denied?.code ?? "error");
    });
    await client.close();
    await gateway.stop();
  },
};

script(async () => {
  const wanted = process.argv.slice(2);
  const chain = await devnet();
  for (const [name, front] of Object.entries(FRONTS)) {
    if (wanted.length === 0 || wanted.includes(name)) await front(chain);
  }
});

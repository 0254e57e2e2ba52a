#!/usr/bin/env node
// One purchase, as the published battery `hostile-facilitator` wants it: its facilitator's address, and the patience that
// it counts on, are in the environment. The seller is the published `@x402/express`, which settles with that
// facilitator. The buyer is ours: `farthing fetch`, or a program behind `farthing proxy`, which may name its purchase by an
// Idempotency-Key. Whoever sent it asks again while there is no answer, as agents do, up to ATTEMPTS times.
//
//   python3 interop/redteam/battery.py node interop/redteam/purchase.mjs fetch|proxy|named ATTEMPTS

import { appendFileSync } from "node:fs";
import { join } from "node:path";

import { Program } from "../support/process.mjs";
import { NETWORK, PAYEE, cleanAfter, cleanUp, freePort, repo, run, service, surroundings, through, wallet, within } from "../../scripts/e2e/support.mjs";

const { FACILITATOR_URL, HOSTILE_CLIENT_TIMEOUT, EVM_RPC_URL, REDTEAM_ERRORS } = process.env;
const [way, attempts] = process.argv.slice(2);

/** Less than the battery's, which kills a command and leaves running what the command started. */
const PATIENCE_MS = 120_000;

async function shop() {
  const url = `http://127.0.0.1:${await freePort()}`;
  const env = {
    ...surroundings(), PORT: new URL(url).port, FACILITATOR_URL, EVM_PAYEE_ADDRESS: PAYEE, EVM_NETWORK: NETWORK,
    FACILITATOR_TIMEOUT_MS: String(1_000 * Number(HOSTILE_CLIENT_TIMEOUT)),
  };
  const seller = new Program(process.execPath, [join(repo, "interop/support/peers/server-v2.mjs")], env, "the published seller");
  cleanAfter(() => seller.stop());
  await seller.ready(`${url}/health`);
  return `${url}/exact/evm/eip3009`;
}

/** A program that knows nothing of payments, and asks through the proxy. */
async function program(buyer, headers) {
  const proxy = await service(["proxy", "--listen", "127.0.0.1:0"], buyer.env);
  const { json: env } = await run(["proxy", "env", "--json", "--listen", new URL(proxy.url).host], buyer.env);
  return async (url) => (await through(env, undefined, url, headers)).status === 200;
}

const buyers = {
  fetch: async (buyer) => async (url) => (await buyer.fetch([url, "--max", "0.01"])).code === 0,
  proxy: (buyer) => program(buyer),
  named: (buyer) => program(buyer, { "idempotency-key": "one-purchase" }),
};

async function purchase() {
  const url = await shop();
  const buyer = await wallet(EVM_RPC_URL, "127.0.0.1");
  await buyer.wallet("limit", "--per-payment", "0.01", "--hour", "1", "--day", "1");
  const buy = await buyers[way](buyer);
  for (let attempt = 0; attempt < Number(attempts); attempt += 1) {
    if (await buy(url)) return;
  }
  process.exitCode = 1;
}

try {
  await within(purchase(), "the end of a purchase", PATIENCE_MS);
} catch (error) {
  // The battery throws away what a command says.
  appendFileSync(REDTEAM_ERRORS, `${error.stack}\n`);
  process.exitCode = 2;
} finally {
  await cleanUp();
  process.exit();
}

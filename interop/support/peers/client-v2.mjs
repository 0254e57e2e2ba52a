#!/usr/bin/env node
// A buyer with `@x402/fetch` 2.x, which also pays sellers of version 1.

import { x402Client, x402HTTPClient } from "@x402/core/client";
import { toClientEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { ExactEvmSchemeV1 } from "@x402/evm/v1";
import { wrapFetchWithPayment } from "@x402/fetch";

import { account, buy, env, reader } from "./common.mjs";
import { smartWallet } from "./smart-wallet.mjs";

const payer = process.env.SMART_WALLET ? await smartWallet(account(), reader(), process.env.SMART_WALLET) : account();
const signer = toClientEvmSigner(payer, reader());
const client = new x402Client()
  .register("eip155:*", new ExactEvmScheme(signer, { rpcUrl: env("EVM_RPC_URL") }))
  .registerV1("base-sepolia", new ExactEvmSchemeV1(signer));
const receipts = new x402HTTPClient(client);

await buy(wrapFetchWithPayment(fetch, client), (response) => {
  const header = (name) => response.headers.get(name);
  if (!header("PAYMENT-RESPONSE") && !header("X-PAYMENT-RESPONSE")) return undefined;
  return receipts.getPaymentSettleResponse(header);
});

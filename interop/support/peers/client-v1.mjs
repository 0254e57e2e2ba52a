#!/usr/bin/env node
// A buyer with `x402-fetch` 1.x.

import { createSigner, decodeXPaymentResponse, wrapFetchWithPayment } from "x402-fetch";

import { buy, env, redirectV1 } from "./common.mjs";

redirectV1();
const signer = await createSigner("base-sepolia", env("EVM_PRIVATE_KEY"));

await buy(wrapFetchWithPayment(fetch, signer), (response) => {
  const header = response.headers.get("X-PAYMENT-RESPONSE");
  return header ? decodeXPaymentResponse(header) : undefined;
});

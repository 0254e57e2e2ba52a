#!/usr/bin/env node
// A buyer with the published `mppx`: it signs EIP-3009 authorizations for `evm/charge`.
// `REQUEST_METHOD` and `REQUEST_BODY` say what to ask, `IDEMPOTENCY_KEY` under which key.

import { evm, Mppx } from "mppx/client";

import { account, buy, env } from "./common.mjs";

const usdc = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const chainId = Number(env("EVM_NETWORK").split(":")[1]);
const { fetch: pay } = Mppx.create({
  polyfill: false,
  methods: [
    evm.charge({
      account: account(), authorization: { name: "USDC", version: "2" }, currencies: [usdc], networks: [chainId],
      decimals: 6, maxAmount: "0.01",
    }),
  ],
});

const { REQUEST_METHOD: method = "GET", REQUEST_BODY: body, IDEMPOTENCY_KEY: key } = process.env;
const headers = { ...(body ? { "content-type": "application/json" } : {}), ...(key ? { "idempotency-key": key } : {}) };

await buy((url) => pay(url, { method, headers, ...(body ? { body } : {}) }), (response) => {
  const text = response.headers.get("Payment-Receipt");
  if (!text) return undefined;
  const receipt = JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  return { ...receipt, success: receipt.status === "success", transaction: receipt.reference };
});

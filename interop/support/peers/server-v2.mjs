#!/usr/bin/env node
// A seller with `@x402/express` 2.x.

import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import { declareEip2612GasSponsoringExtension } from "@x402/extensions";
import express from "express";

import { env, handlers, serve } from "./common.mjs";

const payTo = env("EVM_PAYEE_ADDRESS");
const network = env("EVM_NETWORK");
const usdc = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const byAuthorization = { accepts: { scheme: "exact", network, payTo, price: "$0.001" } };
const byPermit2 = {
  accepts: {
    scheme: "exact",
    network,
    payTo,
    price: { amount: "1000", asset: usdc, extra: { assetTransferMethod: "permit2", name: "USDC", version: "2" } },
  },
};

// How long it waits for the facilitator, where a test has to know; otherwise the package's own patience.
const timeoutMs = process.env.FACILITATOR_TIMEOUT_MS ? Number(process.env.FACILITATOR_TIMEOUT_MS) : undefined;
const server = new x402ResourceServer([new HTTPFacilitatorClient({ url: env("FACILITATOR_URL"), timeoutMs })])
  .register("eip155:*", new ExactEvmScheme());
const app = express();
app.use(paymentMiddleware(
  {
    "GET /exact/evm/eip3009": byAuthorization,
    "GET /exact/evm/permit2": byPermit2,
    "GET /exact/evm/permit2-eip2612GasSponsoring": { ...byPermit2, extensions: declareEip2612GasSponsoringExtension() },
    "GET /fails": byAuthorization,
  },
  server,
));
handlers(app);
serve(app, "Server");

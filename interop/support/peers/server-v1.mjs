#!/usr/bin/env node
// A seller with `x402-express` 1.x.

import express from "express";
import { paymentMiddleware } from "x402-express";

import { env, handlers, serve } from "./common.mjs";

const priced = { price: "$0.001", network: "base-sepolia" };
const app = express();
app.use(paymentMiddleware(
  env("EVM_PAYEE_ADDRESS"),
  { "GET /protected": priced, "GET /fails": priced },
  { url: env("FACILITATOR_URL") },
));
handlers(app);
serve(app, "Server");

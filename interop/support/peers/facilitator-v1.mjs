#!/usr/bin/env node
// A facilitator from the functions of `x402` 1.x.

import express from "express";
import { settle, verify } from "x402/facilitator";
import { PaymentPayloadSchema, PaymentRequirementsSchema, createConnectedClient, createSigner } from "x402/types";

import { env, facilitate, redirectV1, serve } from "./common.mjs";

redirectV1();
const network = "base-sepolia";
const reading = createConnectedClient(network);
const writing = await createSigner(network, env("EVM_PRIVATE_KEY"));
const checked = (work) => (payload, requirements) =>
  work(PaymentPayloadSchema.parse(payload), PaymentRequirementsSchema.parse(requirements));

const app = express();
facilitate(app, express, {
  verify: checked((payload, requirements) => verify(reading, payload, requirements)),
  settle: checked((payload, requirements) => settle(writing, payload, requirements)),
  supported: () => ({ kinds: [{ x402Version: 1, scheme: "exact", network }] }),
});
serve(app, "Facilitator");

#!/usr/bin/env node
// The TypeScript facilitator of x402 2.x: version 2 payments, and version 1 payments through its own v1 scheme.

import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/facilitator";
import { EIP2612_GAS_SPONSORING } from "@x402/extensions";
import express from "express";

import { env, facilitate, relayer, serve } from "./common.mjs";

const client = relayer();
const signer = toFacilitatorEvmSigner({
  address: client.account.address,
  readContract: (args) => client.readContract({ ...args, args: args.args ?? [] }),
  verifyTypedData: (args) => client.verifyTypedData(args),
  writeContract: (args) => client.writeContract({ ...args, args: args.args ?? [] }),
  sendTransaction: (args) => client.sendTransaction(args),
  waitForTransactionReceipt: (args) => client.waitForTransactionReceipt(args),
  getCode: (args) => client.getCode(args),
});
const options = process.env.WALLET_FACTORY ? { eip6492AllowedFactories: [process.env.WALLET_FACTORY] } : {};
const facilitator = new x402Facilitator()
  .register(env("EVM_NETWORK"), new ExactEvmScheme(signer, options))
  .registerV1(["base-sepolia"], new ExactEvmSchemeV1(signer, options))
  .registerExtension(EIP2612_GAS_SPONSORING);

const app = express();
facilitate(app, express, {
  verify: (payload, requirements) => facilitator.verify(payload, requirements),
  settle: (payload, requirements) => facilitator.settle(payload, requirements),
  supported: () => facilitator.getSupported(),
});
serve(app, "Facilitator");

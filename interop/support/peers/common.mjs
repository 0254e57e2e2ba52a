// What the published packages' participants have in common. They follow the convention of x402's own end-to-end
// suite: configuration by environment, `/health` on servers, and one JSON line at the end of a client's output.

import { webcrypto } from "node:crypto";
import { createPublicClient, createWalletClient, defineChain, http, publicActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

// Node 18 has it under another name; the packages look for it here when they draw a nonce.
globalThis.crypto ??= webcrypto;

export function env(name) {
  const value = process.env[name];
  if (!value) {
    console.error(`${name} is not set`);
    process.exit(2);
  }
  return value;
}

/** Base Sepolia, but at the node that `EVM_RPC_URL` names. */
export const chain = () => defineChain({ ...baseSepolia, rpcUrls: { default: { http: [env("EVM_RPC_URL")] } } });

// With instant blocks a receipt is there at the first look; with interval blocks this bounds the wait.
const POLLING_MS = 100;

export const account = () => privateKeyToAccount(env("EVM_PRIVATE_KEY"));
export const reader = () => createPublicClient({ chain: chain(), transport: http(), pollingInterval: POLLING_MS });
export const relayer = () =>
  createWalletClient({ account: account(), chain: chain(), transport: http(), pollingInterval: POLLING_MS }).extend(publicActions);

/**
 * Points the v1 packages at our node: they build their clients from viem's own `baseSepolia` and offer no way to name
 * another node, so the one object they share with us is changed before they use it.
 */
export function redirectV1() {
  baseSepolia.rpcUrls.default.http = [env("EVM_RPC_URL")];
}

/** Serves an express application on `PORT` and ends when asked to. */
export function serve(app, role) {
  const server = app.listen(Number(env("PORT")), "127.0.0.1", () => console.log(`${role} listening`));
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => server.close(() => process.exit(0)));
}

/** The handlers behind the price: what a seller's service would be. */
export function handlers(app) {
  app.get("/health", (_req, res) => res.json({ status: "ok" }));
  for (const path of ["/exact/evm/eip3009", "/exact/evm/permit2", "/exact/evm/permit2-eip2612GasSponsoring", "/protected"]) {
    app.get(path, (_req, res) => res.json({ message: "Protected endpoint accessed successfully", path }));
  }
  app.get("/fails", (_req, res) => res.status(500).json({ error: "this handler always fails" }));
}

/** Asks for the resource with a paying `fetch`, and reports in the suite's form. */
export async function buy(pay, receiptOf) {
  const report = (result) => {
    console.log(JSON.stringify(result, (_key, value) => (typeof value === "bigint" ? String(value) : value)));
    process.exitCode = result.success ? 0 : 1;
  };
  try {
    const response = await pay(`${env("RESOURCE_SERVER_URL")}${env("ENDPOINT_PATH")}`, { method: "GET" });
    const text = await response.text();
    const receipt = receiptOf(response);
    report({
      success: response.ok && receipt?.success === true,
      status_code: response.status,
      data: parsed(text),
      payment_response: receipt,
    });
  } catch (error) {
    report({ success: false, error: error.message });
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A facilitator's three endpoints over any implementation of them. */
export function facilitate(app, express, { verify, settle, supported }) {
  app.use(express.json({ limit: "256kb" }));
  const answer = (work) => async (req, res) => {
    try {
      res.json(await work(req.body));
    } catch (error) {
      console.error(error);
      res.status(500).json({ error: error.message });
    }
  };
  app.post("/verify", answer((body) => verify(body.paymentPayload, body.paymentRequirements)));
  app.post("/settle", answer((body) => settle(body.paymentPayload, body.paymentRequirements)));
  app.get("/supported", answer(() => supported()));
  app.get("/health", (_req, res) => res.json({ status: "ok" }));
}

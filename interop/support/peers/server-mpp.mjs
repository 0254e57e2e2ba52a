#!/usr/bin/env node
// A seller with the published `mppx`: `evm/charge` by EIP-3009 authorization, settled with a key of its own. It asks by
// x402 too, except below `/mpp`.

import { evm, Mppx } from "mppx/server";
import { createServer } from "node:http";
import { parseAbi, parseSignature } from "viem";

import { env, relayer } from "./common.mjs";

const usdc = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const token = parseAbi([
  "function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s)",
]);
const wallet = relayer();

async function settle({ payload }) {
  const { r, s, v, yParity } = parseSignature(payload.signature);
  const hash = await wallet.writeContract({
    address: usdc, abi: token, functionName: "transferWithAuthorization",
    args: [
      payload.from, payload.to, BigInt(payload.value), BigInt(payload.validAfter), BigInt(payload.validBefore), payload.nonce,
      Number(v ?? BigInt(yParity) + 27n), r, s,
    ],
  });
  const receipt = await wallet.waitForTransactionReceipt({ hash });
  if (receipt.status !== "success") throw new Error(`settlement ${hash} failed`);
  return { reference: hash };
}

const mppx = Mppx.create({
  realm: "mppx.example",
  secretKey: "a secret that is long enough for the tests",
  methods: [
    evm.charge({
      authorization: { name: "USDC", version: "2" }, chainId: Number(env("EVM_NETWORK").split(":")[1]), currency: usdc,
      decimals: 6, recipient: env("EVM_PAYEE_ADDRESS"), settle,
    }),
  ],
});

function silenceX402(res) {
  const { writeHead } = res;
  const kept = (headers) => Object.fromEntries(Object.entries(headers).filter(([name]) => name.toLowerCase() !== "payment-required"));
  res.writeHead = (...words) => writeHead.call(res, ...words.slice(0, -1), kept(words.at(-1)));
}

const json = (res, status, body) => res.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
const server = createServer(async (req, res) => {
  try {
    const { pathname } = new URL(req.url, "http://seller");
    if (pathname === "/health") return json(res, 200, { status: "ok" });
    if (pathname.startsWith("/mpp")) silenceX402(res);
    const handle = Mppx.toNodeListener(mppx.charge({ amount: "0.001" }));
    const result = await handle(req, res);
    if (result.status === 402) return;
    if (pathname === "/fails") return json(res, 500, { error: "this handler always fails" });
    json(res, 200, { message: "Protected endpoint accessed successfully", path: pathname });
  } catch (error) {
    console.error(error);
    if (!res.headersSent) json(res, 500, { error: error.message });
  }
});
server.listen(Number(env("PORT")), "127.0.0.1", () => console.log("Server listening"));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => server.close(() => process.exit(0)));

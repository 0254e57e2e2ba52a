#!/usr/bin/env node
// A seller with the published `mppx` that sells by the unit, from channels of Tempo's session, for comparisons of speed.
//
// The channels' contract is a part of Tempo's chain, which no node that is published for development has. So nothing is
// opened here: the seller's store, in memory, is given channels as an opening leaves them, and what it asks the chain of
// them is answered in this process. What is measured is what it does for each paid request: read the credential, check
// the challenge and the voucher, and account for it.
//
//   PORT=4021 CHANNELS=32 VOUCHERS=1000 HEADERS=/tmp/headers node interop/support/peers/session-mpp.mjs
//
// writes a line for each credential into HEADERS: the first of every channel, the second of every channel, and so on.

import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { Challenge, Credential, Store } from "mppx";
import { Mppx, tempo } from "mppx/server";
import { createClient, custom, encodeAbiParameters, keccak256, pad, toHex, zeroAddress, zeroHash } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { tempo as chain } from "viem/chains";

import { env } from "./common.mjs";

const ESCROW = "0x4d50500000000000000000000000000000000000";
const TOKEN = "0x20c0000000000000000000000000000000000001";
const PAYEE = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
const DEPOSIT = 1_000_000_000n;
const PRICE = 1n;
const url = `http://127.0.0.1:${env("PORT")}`;

// The chain's word of every channel: `getChannelState` is all that a voucher asks.
const state = encodeAbiParameters([{ type: "uint96" }, { type: "uint96" }, { type: "uint32" }], [0n, DEPOSIT, 0]);
const request = async ({ method }) => {
  if (method === "eth_chainId") return toHex(chain.id);
  if (method === "eth_call") return state;
  throw new Error(`nobody answers ${method} here`);
};
const client = createClient({ chain, transport: custom({ request }) });

const store = Store.memory();
const mppx = Mppx.create({
  realm: "mppx.example",
  secretKey: "a secret that is long enough for the tests",
  methods: [
    tempo.session({
      amount: "0.000001", chainId: chain.id, currency: TOKEN, decimals: 6, getClient: () => client, recipient: PAYEE, store,
      suggestedDeposit: "1000", unitType: "request", channelStateTtl: 3_600_000,
    }),
  ],
});

/** A channel as an opening leaves it, and what signs for it. */
function channel(number) {
  const account = privateKeyToAccount(pad(toHex(number + 1), { size: 32 }));
  const descriptor = {
    payer: account.address, payee: PAYEE, operator: zeroAddress, token: TOKEN, salt: pad(toHex(number), { size: 32 }),
    authorizedSigner: account.address, expiringNonceHash: zeroHash,
  };
  const types = ["address", "address", "address", "address", "bytes32", "address", "bytes32", "address", "uint256"];
  const values = [...Object.values(descriptor), ESCROW, BigInt(chain.id)];
  const channelId = keccak256(encodeAbiParameters(types.map((type) => ({ type })), values));
  return { account, descriptor, channelId };
}

const sign = ({ account, channelId }, cumulativeAmount) =>
  account.signTypedData({
    domain: { name: "TIP20 Channel Reserve", version: "1", chainId: chain.id, verifyingContract: ESCROW },
    types: { Voucher: [{ name: "channelId", type: "bytes32" }, { name: "cumulativeAmount", type: "uint96" }] },
    primaryType: "Voucher",
    message: { channelId, cumulativeAmount },
  });

async function keep({ account, descriptor, channelId }) {
  await store.put(channelId.toLowerCase(), {
    ...descriptor, backend: "precompile", chainId: chain.id, channelId, descriptor, escrowContract: ESCROW, payer: account.address,
    closeRequestedAt: 0n, deposit: DEPOSIT, settledOnChain: 0n, highestVoucherAmount: 0n, highestVoucher: null, spent: 0n, units: 0,
    finalized: false, createdAt: new Date().toISOString(),
  });
}

let ready = false;
const server = createServer(async (req, res) => {
  try {
    if (req.url === "/health") return res.writeHead(ready ? 200 : 503).end();
    if (req.url === "/free") return res.writeHead(200, { "content-type": "text/plain" }).end("sunny\n");
    const result = await Mppx.toNodeListener(mppx.session({}))(req, res);
    if (result.status !== 402 && !res.writableEnded) res.writeHead(200, { "content-type": "text/plain" }).end("sunny\n");
  } catch (error) {
    console.error(error);
    if (!res.headersSent) res.writeHead(500).end(String(error.message));
  }
});
server.listen(Number(env("PORT")), "127.0.0.1", async () => {
  const asked = await fetch(`${url}/unit`);
  const challenge = Challenge.fromResponse(asked);
  const channels = Array.from({ length: Number(env("CHANNELS")) }, (_, number) => channel(number));
  await Promise.all(channels.map(keep));
  const lines = [];
  for (let at = 1n; at <= BigInt(env("VOUCHERS")); at++) {
    for (const one of channels) {
      const payload = { action: "voucher", channelId: one.channelId, cumulativeAmount: String(at * PRICE), signature: await sign(one, at * PRICE), descriptor: one.descriptor };
      lines.push(Credential.serialize(Credential.from({ challenge, payload, source: `did:pkh:eip155:${chain.id}:${one.account.address}` })));
    }
  }
  writeFileSync(env("HEADERS"), lines.join("\n"));
  ready = true;
  console.log("Server listening");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => server.close(() => process.exit(0)));

#!/usr/bin/env node
// The published package's frames and credentials on a WebSocket of our gateway: every frame that we send is read by
// mppx's own parser, every frame that we are sent was written by it. This is interop of the codec alone: mppx has no
// sessions on EVM chains, so what drives it and signs the vouchers is this script, by the draft. Its parser also takes
// no receipt but one of its own method, `tempo`: a receipt is shown to it with that name in place of ours, `evm`.
//
//   node interop/mpp/frames.mjs

import { createRequire } from "node:module";
import { join } from "node:path";
import { createServer } from "node:http";
import { Challenge, Credential } from "mppx";
import { tempo } from "mppx/server";

import { books, check, cleanAfter, devnet, payer, run, same, script, seller, wallet, within, repo } from "../../scripts/e2e/support.mjs";

const { WebSocket, WebSocketServer } = createRequire(createRequire(join(repo, "interop/package.json")).resolve("viem"))("ws");
const { Ws } = tempo;

const PRICE = 25n;
const PAYEE_KEY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
const WORDS = ["plain", "two\nlines", 'a "quote", {"mpp":"payment-receipt"}', "ünïcode 😀", ""];

/** A service that says these words and ends. */
function feed() {
  const server = createServer((_, res) => res.writeHead(426).end());
  const sockets = new WebSocketServer({ server });
  sockets.on("connection", (socket) => {
    for (const word of WORDS) socket.send(word);
    socket.close(1000);
  });
  cleanAfter(() => {
    for (const socket of sockets.clients) socket.terminate();
    return new Promise((done) => server.close(done));
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(`ws://127.0.0.1:${server.address().port}`)));
}

script(async () => {
  const chain = await devnet();
  const shop = await seller({
    rpcUrl: chain.url,
    upstreamUrl: await feed(),
    keys: { PAYEE_KEY },
    routes: `
[sessions]
payee_keys = ["env:PAYEE_KEY"]

[[route]]
match = "GET /feed"
session = { price = "$0.000025", unit = "message", meter = "event", stream = true, suggested_deposit = "$1" }
`,
  });
  await shop.start();
  const buyer = await wallet(chain.url, new URL(shop.url).hostname);
  await buyer.wallet("allow", "--scheme", "session");
  await buyer.wallet("limit", "--per-payment", "1", "--hour", "5", "--day", "5");
  const url = `${shop.url}/feed`;
  const opened = await run(["channel", "open", url, "--deposit", "1", "--json"], buyer.env);
  same("a channel is opened", opened.code, 0);
  if (opened.code !== 0) console.log(opened.stderr);
  const [{ channel, id }] = (await run(["channel", "ls", "--all", "--json"], buyer.env)).json;
  const channelId = channel ?? id;

  // The probe, as mppx reads it.
  const challenge = Challenge.fromResponse(await fetch(url), { methods: undefined });
  same("mppx reads the challenge", `${challenge.method}/${challenge.intent}`, "evm/session");
  const { methodDetails } = challenge.request;
  const sign = (cumulativeAmount) => payer.signTypedData({
    domain: { name: "EVM Payment Channel", version: "1", chainId: methodDetails.chainId, verifyingContract: methodDetails.escrowContract },
    types: { Voucher: [{ name: "channelId", type: "bytes32" }, { name: "cumulativeAmount", type: "uint128" }] },
    primaryType: "Voucher",
    message: { channelId, cumulativeAmount },
  });
  const show = async (action, cumulative) => {
    const payload = { action, channelId, cumulativeAmount: String(cumulative), signature: await sign(cumulative) };
    return Ws.formatAuthorizationMessage(Credential.serialize({ challenge, payload }));
  };

  const socket = new WebSocket(url.replace("http", "ws"));
  const heard = [], words = [], needs = [];
  let unread = 0, renamed = 0, ready, receipt;
  socket.on("error", () => {});
  const closed = new Promise((done) => socket.on("close", (code) => done(code)));
  await within(new Promise((open) => socket.on("open", open)), "the opening of a socket");
  socket.on("message", async (data) => {
    let frame = Ws.parseMessage(String(data));
    if (!frame) {
      const { data: said, ...rest } = JSON.parse(String(data));
      if (said?.method === "evm") frame = Ws.parseMessage(JSON.stringify({ ...rest, data: { ...said, method: "tempo" } }));
      if (!frame) return void (unread += 1);
      renamed += 1;
    }
    heard.push(frame.mpp);
    if (frame.mpp === "message") words.push(frame.data);
    if (frame.mpp === "payment-receipt") receipt = frame.data;
    if (frame.mpp === "payment-need-voucher") {
      needs.push(frame.data);
      socket.send(await show("voucher", BigInt(frame.data.requiredCumulative)));
    }
    if (frame.mpp === "payment-close-ready") {
      ready = frame.data;
      socket.send(await show("close", BigInt(ready.spent)));
    }
  });
  socket.send(await show("voucher", PRICE));
  same("the socket ends cleanly", await within(closed, "the close of a socket"), 1000);

  same("mppx reads every frame", unread, 0);
  same("its receipts with the name of its own method", renamed, heard.filter((kind) => /receipt|ready/.test(kind)).length);
  same("and every word as it was said", JSON.stringify(words), JSON.stringify(WORDS));
  same("a voucher is asked for each time", needs.length, WORDS.length - 1);
  same("for what the next word costs", needs.map((need) => need.requiredCumulative).join(), WORDS.slice(1).map((_, n) => String(PRICE * BigInt(n + 2))).join());
  same("the first answer is a receipt", heard[0], "payment-receipt");
  same("the last receipt says what was spent", ready?.spent, String(PRICE * BigInt(WORDS.length)));
  same("the close in band is answered with its receipt", receipt?.spent, ready?.spent);
  check("and with its transaction", /^0x[0-9a-f]{64}$/.test(receipt?.txHash ?? ""), receipt);
  const end = await books(shop.store);
  check("the seller's books balance", end.balance, end.said);
});

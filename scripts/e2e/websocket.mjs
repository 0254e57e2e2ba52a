#!/usr/bin/env node
// A WebSocket is sold and bought by the unit through a channel (MPP's evm/session), by the binary from the binary, on the
// embedded chain, in both framings in use. Then the buyer stops paying, each side is killed, and strangers send what they
// should not: nothing is lost but what the rules allow, and the books, the wallets and the escrow agree to the atom.
//
//   node scripts/e2e/websocket.mjs [--units 300]

import { bin, books, check, cleanAfter, devnet, payer, rpc, run, same, script, seller, surroundings, until, usdc, wallet, within, PAYEE, repo } from "./support.mjs";
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

// The scripts have no packages of their own; viem brings this one.
const { WebSocket, WebSocketServer } = createRequire(createRequire(join(repo, "interop/package.json")).resolve("viem"))("ws");

const UNITS = Number(process.argv[process.argv.indexOf("--units") + 1] || 300) || 300;
const PRICE = 25n;
/** What the wallet signs ahead of what it has, in units: the least that a voucher adds. */
const AHEAD = 64n;
const RELAYER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const PAYEE_KEY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
const ESCROW = "0xE8693A0b6b6Ba2238aCeb8a052A5d5dE1BDF8E29";

/** A service that sends so many messages, each when the one before was taken, and repeats what it is told. */
function feed() {
  const server = createServer((_, res) => res.writeHead(426).end());
  const sockets = new WebSocketServer({ server });
  sockets.on("connection", async (socket, req) => {
    const units = Number(new URL(req.url, "http://a").searchParams.get("units"));
    socket.on("message", (data) => socket.send(JSON.stringify({ heard: String(data) })));
    socket.on("error", () => {});
    for (let unit = 1; unit <= units && socket.readyState === WebSocket.OPEN; unit += 1) {
      await new Promise((sent) => socket.send(JSON.stringify({ unit }), sent));
    }
    if (units > 0) socket.close(1000);
  });
  cleanAfter(() => {
    for (const socket of sockets.clients) socket.terminate();
    server.closeAllConnections?.();
    return new Promise((done) => server.close(done));
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(`ws://127.0.0.1:${server.address().port}`)));
}

const units = (text) => (text.match(/^\{"unit":\d+\}$/gm) ?? []).length;

/** A client by hand: what it heard, and how it was closed. */
async function stranger(url, ...says) {
  const socket = new WebSocket(url);
  const heard = [];
  socket.on("message", (data) => heard.push(JSON.parse(String(data))));
  socket.on("error", () => {});
  const closed = new Promise((done) => socket.on("close", (code) => done(code)));
  await within(new Promise((open) => socket.on("open", open)), "the opening of a socket");
  for (const text of says) socket.send(text);
  return { socket, heard, closed: () => within(closed, "the close of a socket") };
}

script(async () => {
  const chain = await devnet();
  const behind = await feed();
  const shop = await seller({
    rpcUrl: chain.url,
    upstreamUrl: behind,
    keys: { PAYEE_KEY },
    routes: `
[sessions]
payee_keys = ["env:PAYEE_KEY"]

[[route]]
match = "GET /feed"
session = { price = "$0.000025", unit = "message", meter = "event", stream = true, suggested_deposit = "$1", min_voucher_delta = "$0.0016", patience = "1s" }

[[route]]
match = "GET /once"
price = "$0.01"
`,
  });
  let gateway = await shop.start();
  const at = shop.url.replace("http", "ws");
  const buyer = await wallet(chain.url, new URL(shop.url).hostname);
  await buyer.wallet("allow", "--scheme", "session");
  await buyer.wallet("limit", "--per-payment", "1", "--hour", "5", "--day", "5");
  const sums = async () => ({
    payer: await usdc(chain.url, payer.address),
    payee: await usdc(chain.url, PAYEE),
    escrow: await usdc(chain.url, ESCROW),
    transactions: Number(await rpc(chain.url, "eth_getTransactionCount", [RELAYER, "latest"])),
  });
  const channels = async () => (await run(["channel", "ls", "--all", "--json"], buyer.env)).json ?? [];
  const address = (count) => `${at}/feed?units=${count}`;
  const before = await sums();

  // Both framings, on one channel.
  for (const framing of ["mppx", "mpp-rs"]) {
    const bought = await buyer.fetch(["--session", "--framing", framing, address(UNITS), "--max", "0.5", "-o", "-"]);
    same(`${framing}: the stream is bought`, bought.code, 0);
    if (bought.code !== 0) console.log(bought.stderr);
    same(`${framing}: every unit came, a message a line`, units(bought.stdout), UNITS);
  }
  const piped = await buyer.fetch([address(3), "--max", "0.5"]);
  same("piped it is one line of JSON", piped.json?.outcome, "paid");
  same("with what came", units(piped.json?.body ?? ""), 3);

  // The budget ends before the stream does.
  const short = await buyer.fetch([address(UNITS), "--max", "0.0032", "-o", "-"]);
  same("a buyer that stops paying has what it paid for", short.code, 1);
  const had0 = units(short.stdout);
  check("and no more", had0 > 0 && had0 <= 2 * 64, had0);

  // The seller dies in the middle.
  const dying = spawn(bin, ["fetch", address(200_000), "--max", "1", "-o", "-"], { stdio: ["ignore", "pipe", "pipe"], env: { ...surroundings(), ...buyer.env } });
  let heard = "";
  dying.stdout.setEncoding("utf8").on("data", (text) => (heard += text));
  const ended = new Promise((done) => dying.once("close", done));
  await until("some of a stream", () => units(heard) > UNITS / 2);
  await gateway.kill();
  check("a stream that breaks off is no success", (await ended) !== 0);
  gateway = await shop.start();
  const had1 = units(heard);

  // The buyer dies in the middle of the next.
  const killed = spawn(bin, ["fetch", address(200_000), "--max", "1", "-o", "-"], { stdio: ["ignore", "pipe", "ignore"], env: { ...surroundings(), ...buyer.env } });
  let more = "";
  killed.stdout.setEncoding("utf8").on("data", (text) => (more += text));
  const gone = new Promise((done) => killed.once("close", done));
  await until("some of another", () => units(more) > UNITS / 4);
  killed.kill("SIGKILL");
  await gone;
  const had2 = units(more);

  // Two at once on one channel: the second ends the first, which says so.
  const first = spawn(bin, ["fetch", `${at}/feed?units=0&n=1`, "--max", "1", "-o", "-"], { stdio: ["ignore", "pipe", "pipe"], env: { ...surroundings(), ...buyer.env } });
  let said = "";
  first.stderr.setEncoding("utf8").on("data", (text) => (said += text));
  const over = new Promise((done) => first.once("close", done));
  const status = async () => (await channels()).find((channel) => channel.state === "open");
  await until("the first stream", () => new Promise((next) => setTimeout(next, 500, true)));
  const second = await buyer.fetch([address(10), "--max", "1", "-o", "-"]);
  same("a second stream on the channel is bought", second.code, 0);
  if (second.code !== 0) console.log(second.stderr);
  same("and whole", units(second.stdout), 10);
  await within(over, "the end of the first stream");
  check("the channel is open still", await status());

  // Strangers.
  for (const [what, text, code] of [
    ["text before an authorization", "hello", 1008],
    ["a garbage frame", '{"mpp":"authorization","authorization":"Payment ????"}', 1008],
    ["a frame that is too long", JSON.stringify({ mpp: "authorization", authorization: `Payment ${"a".repeat(300_000)}` }), 1009],
  ]) {
    const { closed } = await stranger(`${at}/feed?units=5`, text);
    same(`${what} is closed`, await closed(), code);
  }
  const silent = await stranger(`${at}/feed?units=5`);
  await until("the price is said", () => silent.heard.find((frame) => frame.type === "challenge"));
  same("a client that waits is told the price", silent.heard[0].challenge.intent, "session");
  silent.socket.close();
  const unpaid = await within(
    new Promise((done) => new WebSocket(`${at}/once`).on("unexpected-response", (_, res) => done(res.statusCode)).on("error", () => {})),
    "the answer to an upgrade",
  );
  same("an upgrade of a route without a session is asked to pay", unpaid, 402);

  const open = await channels();
  same("the wallet has one channel", open.length, 1);
  const closed = await run(["channel", "close", open[0].channel ?? open[0].id, "--json"], buyer.env);
  same("the channel is closed", closed.code, 0);
  if (closed.code !== 0) console.log(closed.stderr);
  const after = await sums();
  const paid = before.payer - after.payer;
  same("the chain was touched twice", after.transactions - before.transactions, 2);
  same("what left the buyer came to the seller", after.payee - before.payee, paid);
  same("the escrow holds nothing", after.escrow, 0n);
  const received = BigInt(2 * UNITS + 3 + had0 + had1 + had2 + 10) * PRICE;
  check("the seller lost nothing", paid >= received, `${paid} paid, ${received} received`);
  check("the buyer lost no more than it signs ahead, twice", paid <= received + 2n * AHEAD * PRICE, `${paid} paid, ${received} received`);
  const end = await books(shop.store);
  check("the seller's books balance", end.balance, end.said);
});

#!/usr/bin/env node
// A WebSocket is sold and bought by the unit through a channel (MPP's evm/session), by the binary from the binary, on the
// embedded chain, in both framings in use. Then the buyer stops paying, each side is killed, and strangers send what they
// should not: nothing is lost but what the rules allow, and the books, the wallets and the escrow agree to the atom.
//
//   node scripts/e2e/websocket.mjs [--units 300]

import { check, cleanAfter, devnet, same, script, until, within, repo } from "./support.mjs";
import { accounted, buying, deaths, market } from "./by-the-unit.mjs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

// The scripts have no packages of their own; viem brings this one.
const { WebSocket, WebSocketServer } = createRequire(createRequire(join(repo, "interop/package.json")).resolve("viem"))("ws");

const UNITS = Number(process.argv[process.argv.indexOf("--units") + 1] || 300) || 300;

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
      // One that is to be interrupted lasts, however fast the machine is.
      if (units > 10_000) await new Promise((next) => setTimeout(next, 5));
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
  const fair = await market(chain, {
    upstreamUrl: await feed(),
    match: "GET /feed",
    unit: "message",
    patience: "1s",
    routes: `
[[route]]
match = "GET /once"
price = "$0.01"
`,
  });
  const { shop, buyer, sums, channels, close } = fair;
  const at = shop.url.replace("http", "ws");
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

  const had1 = await deaths(fair, address(200_000), units, UNITS / 4);

  // Two at once on one channel: the second ends the first, which says so.
  const first = buying(buyer, `${at}/feed?units=0&n=1`);
  await until("the first stream", () => new Promise((next) => setTimeout(next, 500, true)));
  const second = await buyer.fetch([address(10), "--max", "1", "-o", "-"]);
  same("a second stream on the channel is bought", second.code, 0);
  if (second.code !== 0) console.log(second.stderr);
  same("and whole", units(second.stdout), 10);
  await within(first.ended, "the end of the first stream");
  check("the channel is open still", (await channels()).some(({ state }) => state === "open"));

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

  same("the wallet has one channel", (await channels()).length, 1);
  await close("the channel");
  const after = await sums();
  const paid = before.payer - after.payer;
  same("the chain was touched twice", after.transactions - before.transactions, 2);
  same("what left the buyer came to the seller", after.payee - before.payee, paid);
  same("the escrow holds nothing", after.escrow, 0n);
  await accounted(shop, paid, 2 * UNITS + 3 + had0 + had1 + 10, 2n);
});

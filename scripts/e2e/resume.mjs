#!/usr/bin/env node
// A stream of events that is paid by the unit goes on where it broke off, by the binary from the binary, on the embedded
// chain. A proxy cuts the connection between buyer and seller, at any byte: every event arrives once and is paid for once.
// Then the gateway is killed: its service knows its own events, and what was paid and lost is no more than the wallet
// signs ahead and the gateway has on its way.
//
//   node scripts/e2e/resume.mjs [--units 400]

import { check, cleanAfter, devnet, same, script, until } from "./support.mjs";
import { PRICE, accounted, market } from "./by-the-unit.mjs";
import { createServer } from "node:http";
import { connect, createServer as createSocket } from "node:net";

const UNITS = Number(process.argv[process.argv.indexOf("--units") + 1] || 400) || 400;

/** A service that knows its events by their ids, and goes on after the one that it is asked for. */
function feed(named) {
  const server = createServer(async (req, res) => {
    const units = Number(new URL(req.url, "http://a").searchParams.get("units"));
    res.writeHead(200, { "content-type": "text/event-stream" });
    for (let unit = Number(req.headers["last-event-id"] ?? 0) + 1; unit <= units && !res.destroyed; unit += 1) {
      const id = named ? `id: ${unit}\n` : "";
      if (!res.write(`${id}data: {"unit":${unit}}\n\n`)) await new Promise((next) => res.once("drain", next).once("close", next));
    }
    res.end();
  });
  cleanAfter(() => {
    server.closeAllConnections?.();
    return new Promise((done) => server.close(done));
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(`http://127.0.0.1:${server.address().port}`)));
}

/** A way to the seller that is cut after so many bytes of an answer, one time for each. */
async function way(target) {
  const cuts = [], open = new Set();
  const server = createSocket((near) => {
    const far = connect(Number(new URL(target).port), "127.0.0.1");
    let passed = 0, after;
    for (const socket of [near, far]) {
      open.add(socket);
      socket.on("error", () => {}).on("close", () => (open.delete(socket), near.destroy(), far.destroy()));
    }
    near.on("data", (data) => {
      // A request for the stream that pays for it.
      if (/^GET [^]*authorization: Payment/im.test(String(data))) [after, passed] = [cuts.shift(), 0];
      far.write(data);
    });
    far.on("data", (data) => {
      passed += data.length;
      if (after === undefined || passed < after) return void near.write(data);
      near.write(data.subarray(0, Math.max(0, data.length - (passed - after))), () => near.resetAndDestroy?.() ?? near.destroy());
    });
  });
  cleanAfter(() => {
    for (const socket of open) socket.destroy();
    return new Promise((done) => server.close(done));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}`, cut: (...bytes) => cuts.push(...bytes), left: () => cuts.length };
}

const units = (text) => [...String(text).matchAll(/^data: \{"unit":(\d+)\}$/gm)].map(([, unit]) => Number(unit));
const inOrder = (found) => found.length === UNITS && found.every((unit, n) => unit === n + 1);

script(async () => {
  const chain = await devnet();
  for (const named of [false, true]) {
    const whose = named ? "ids of the service" : "ids of the gateway";
    const { shop, gateway, buyer, sums, close } = await market(chain, { upstreamUrl: await feed(named), match: "GET /feed" });
    let running = gateway;
    const path = await way(shop.url);
    const before = await sums();
    const address = `${path.url}/feed?units=${UNITS}`;

    // The second within the head of the answer.
    path.cut(3000, 200, 4000, 3777);
    const bought = await buyer.fetch([address, "--max", "0.5"]);
    same(`${whose}: the stream is bought`, bought.code, 0);
    if (bought.code !== 0) console.log(bought.stderr, bought.stdout.slice(-600));
    same(`${whose}: it was cut each time`, path.left(), 0);
    check(`${whose}: every event came, once, in order`, inOrder(units(bought.json?.body ?? "")), units(bought.json?.body ?? "").length);
    check(`${whose}: the summary says how it went on`, bought.json?.payment?.resumed?.times >= 3, bought.json?.payment?.resumed);
    check(`${whose}: and that some came again for nothing`, bought.json?.payment?.resumed?.replayed > 0, bought.json?.payment?.resumed);
    same(`${whose}: each was paid for once`, BigInt(bought.json?.receipt?.spent ?? 0), BigInt(UNITS) * PRICE);

    let came = UNITS;
    if (named) {
      let heard = "";
      const fetching = buyer.fetch([`${path.url}/feed?units=5000`, "--max", "0.9", "-v", "-o", "-"], (text) => (heard = text));
      await until("some of a stream", () => (heard.match(/a voucher for/g) ?? []).length > 20);
      await running.kill();
      running = await shop.start();
      const went = await fetching;
      same("a stream goes on after the gateway was killed", went.code, 0);
      if (went.code !== 0) console.log(went.stderr.slice(-1500));
      const found = units(went.stdout);
      check("every event came, once, in order", found.length === 5000 && found.every((unit, n) => unit === n + 1), found.length);
      came += 5000;
    }
    await close(`${whose}: the channel`);
    await accounted(shop, (await sums()).payee - before.payee, came, named ? 2n : 0n, `${whose}: `);
    await running.stop();
  }
});

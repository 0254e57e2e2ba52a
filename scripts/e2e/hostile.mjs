#!/usr/bin/env node
// Strangers who mean harm, against the gateway and the facilitator: those who dribble, who never ask and never read, who
// flood with heads, frames, bodies and signatures, who replay, and who hide one request in another. While each of them is
// at it, an honest client buys and asks beside them. What must hold: memory stays within a bound, honest requests are
// answered, every refusal has its code, nothing is served twice or for nothing, and no process ends.
//
//   scripts/e2e/hostile.mjs                    all of it, about a minute: what holds
//   scripts/e2e/hostile.mjs --seconds 20       so long for each attack, with the program's default limits, and figures
//   scripts/e2e/hostile.mjs --only NAME        attacks whose name holds NAME
//
// Attackers and the honest client are processes of their own, so that neither is measured by the other's delays. The
// attackers' addresses are other ones of this machine (127.0.0.2 and up, where the system has them).

import { fork } from "node:child_process";
import http from "node:http";
import http2 from "node:http2";
import net from "node:net";
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { randomBytes } from "node:crypto";

import {
  asked, books, check, decoded, devnet, facilitator, payer, repo, route, script, seller, show, sign, until, within,
} from "./support.mjs";

const MIB = 1024 * 1024;
const self = fileURLToPath(import.meta.url);
const argument = (name) => {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
};

// ---------------------------------------------------------------------------------------------------------------------
// Small tools of the trade.

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
/** The attackers' addresses: 200 of them, none of which is the honest client's. */
const from = (n) => `127.0.0.${2 + (n % 200)}`;

/** A connection that says what becomes of it, and never throws. */
function dial({ host, port, localAddress, allowHalfOpen = false }) {
  const socket = net.connect({ host, port, localAddress, allowHalfOpen });
  const state = { socket, open: false, closed: false, text: "" };
  socket.on("connect", () => (state.open = true));
  socket.on("error", () => {});
  state.ended = new Promise((done) => socket.on("close", () => {
    state.closed = true;
    done();
  }));
  state.connected = new Promise((done) => {
    socket.once("connect", done);
    socket.once("close", done);
  });
  return state;
}

/** Writes bytes and reads until the other side closes, or until `ms` are over. */
async function raw(target, bytes, ms = 5000) {
  const connection = dial(target);
  const { socket } = connection;
  let answer = "";
  socket.setEncoding("latin1").on("data", (text) => (answer += text));
  socket.write(bytes);
  await Promise.race([connection.ended, sleep(ms)]);
  socket.destroy();
  return answer;
}

const statusOf = (answer) => Number(/^HTTP\/1\.[01] (\d{3})/.exec(answer)?.[1] ?? 0);
const statuses = (answer) => [...answer.matchAll(/HTTP\/1\.[01] (\d{3})/g)].map((found) => Number(found[1]));

/** Does `work` over and over on each of `width` lanes until the time is over; returns how often. */
async function flood(ms, width, work) {
  const end = Date.now() + ms;
  let count = 0;
  await Promise.all(Array.from({ length: width }, async (_, lane) => {
    while (Date.now() < end) {
      await work(lane, count);
      count += 1;
    }
  }));
  return count;
}

/** One request over a kept connection. */
function ask(agent, target, { method = "GET", path = "/", headers = {}, body } = {}) {
  return new Promise((done) => {
    const request = http.request({ ...target, agent, method, path, headers, localAddress: target.localAddress }, (answer) => {
      let size = 0;
      answer.on("data", (chunk) => (size += chunk.length));
      answer.on("end", () => done({ status: answer.statusCode, size, headers: answer.headers }));
      answer.on("error", () => done({ status: 0, size }));
    });
    request.on("error", () => done({ status: 0, size: 0 }));
    request.end(body);
  });
}

const tally = (statuses) => {
  const counts = {};
  for (const status of statuses) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
};

// HTTP/2, by hand where a library would not do such things.

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const TYPE = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7, continuation: 9 };
function frame(type, flags, stream, payload = Buffer.alloc(0)) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}
const literal = (index, text) => Buffer.concat([Buffer.from([index, text.length]), Buffer.from(text)]);
/** GET `path`, in HPACK without a table of its own. */
const getBlock = (path) => Buffer.concat([Buffer.from([0x82, 0x86]), literal(0x04, path), literal(0x01, "shop.example")]);

/** A client of HTTP/2 by hand: writes frames as fast as they are taken, and notes what the server says. */
function speaker(target) {
  const connection = dial(target);
  const said = { ...connection, goaway: undefined, answered: 0 };
  let buffered = Buffer.alloc(0);
  connection.socket.on("data", (chunk) => {
    buffered = Buffer.concat([buffered, chunk]);
    while (buffered.length >= 9) {
      const length = buffered.readUIntBE(0, 3);
      if (buffered.length < 9 + length) return;
      if (buffered[3] === TYPE.goaway) said.goaway = buffered.readUInt32BE(9 + 4);
      if (buffered[3] === TYPE.headers) said.answered += 1;
      buffered = buffered.subarray(9 + length);
    }
  });
  said.write = (bytes) => new Promise((done) => {
    if (connection.socket.destroyed || !connection.socket.writable) return done(false);
    if (connection.socket.write(bytes)) return done(true);
    const go = () => done(true);
    connection.socket.once("drain", go);
    connection.ended.then(() => done(false));
  });
  said.isClosed = () => connection.closed || !connection.socket.writable;
  connection.socket.write(Buffer.concat([PREFACE, frame(TYPE.settings, 0, 0)]));
  return said;
}

// ---------------------------------------------------------------------------------------------------------------------
// The honest client: asks at a fixed rate, by the clock and not by the answers, and buys now and then.

const HONEST_PER_SECOND = 200;
const BUYS_PER_SECOND = 2;

async function honest({ host, port }) {
  const target = { host, port, localAddress: undefined };
  const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
  let times = [], failures = [], bought = 0, unbought = [], asking = 0;
  const began = performance.now();
  let sent = 0;
  const tick = setInterval(() => {
    const due = Math.floor(((performance.now() - began) / 1000) * HONEST_PER_SECOND);
    while (sent < due) {
      const meant = began + (sent * 1000) / HONEST_PER_SECOND;
      const free = sent % 2 === 0;
      sent += 1;
      asking += 1;
      ask(agent, target, { path: free ? "/free" : "/a" }).then(({ status }) => {
        asking -= 1;
        if (status === (free ? 200 : 402)) times.push(performance.now() - meant);
        else failures.push(status);
      });
    }
  }, 5);
  const url = `http://${host}:${port}/a`;
  const buying = setInterval(async () => {
    try {
      const payment = (await sign(await asked(url))).v2;
      // A kept connection may be closed just when it is used again; whoever has no answer shows the same payment again.
      const answer = (await show(url, payment)) ?? (await show(url, payment));
      if (answer?.status === 200 && answer.body?.goods > 0) bought += 1;
      else unbought.push(answer?.status ?? 0);
    } catch (error) {
      unbought.push(String(error.message).slice(0, 80));
    }
  }, 1000 / BUYS_PER_SECOND);
  let since = performance.now();
  return {
    /** What was answered since the last report. */
    report() {
      const seconds = (performance.now() - since) / 1000;
      since = performance.now();
      const sorted = times.sort((a, b) => a - b);
      const at = (q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? null;
      const said = {
        perSecond: sorted.length / seconds, p50: at(0.5), p99: at(0.99), worst: at(1), failures: tally(failures), bought, unbought, asking,
      };
      times = [];
      failures = [];
      bought = 0;
      unbought = [];
      return said;
    },
    stop() {
      clearInterval(tick);
      clearInterval(buying);
      agent.destroy();
    },
  };
}

// ---------------------------------------------------------------------------------------------------------------------
// The attacks. Each gets what it needs to know and returns what it saw, which the main process judges.

const ATTACKS = {
  /** Connections that never say anything, from one address. */
  async silent({ gateway, ms, places, deadline }) {
    const all = [];
    const target = { ...gateway, localAddress: from(0) };
    await flood(ms, 8, async () => {
      if (all.filter((c) => !c.closed).length >= places * 2) return sleep(20);
      const connection = dial(target);
      all.push(connection);
      await connection.connected;
    });
    await sleep(200);
    const most = all.filter((c) => !c.closed).length;
    await Promise.race([Promise.all(all.map((c) => c.ended)), sleep(deadline)]);
    const left = all.filter((c) => !c.closed).length;
    all.forEach((c) => c.socket.destroy());
    return { tried: all.length, most, left };
  },

  /** The same from many addresses at once. */
  async silentFromMany({ gateway, ms, total, deadline }) {
    const all = [];
    await flood(ms, 8, async (lane, count) => {
      if (all.filter((c) => !c.closed).length >= total * 2) return sleep(20);
      const connection = dial({ ...gateway, localAddress: from(count) });
      all.push(connection);
      await connection.connected;
    });
    await sleep(200);
    const most = all.filter((c) => !c.closed).length;
    await Promise.race([Promise.all(all.map((c) => c.ended)), sleep(deadline)]);
    const left = all.filter((c) => !c.closed).length;
    all.forEach((c) => c.socket.destroy());
    return { tried: all.length, most, left };
  },

  /** A head, a byte at a time. */
  async slowHeads({ gateway, ms, width, deadline }) {
    return dribble({ ...gateway, localAddress: from(0) }, ms, width, deadline, "GET /free HTTP/1.1\r\nhost: a\r\nx-slow: ");
  },

  /** A body, a byte at a time: on a free route, where it goes to the service behind, and with a payment, where it is kept. */
  async slowBodies({ gateway, ms, width, deadline, payment }) {
    const head = (path, more) => `POST ${path} HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n${more}\r\n`;
    const target = { ...gateway, localAddress: from(0) };
    const [free, paid] = await Promise.all([
      dribble(target, ms, width / 2, deadline, head("/free", "")),
      dribble(target, ms, width / 2, deadline, head("/post", `payment-signature: ${payment}\r\n`)),
    ]);
    return { tried: free.tried + paid.tried, left: free.left + paid.left };
  },

  /** Large answers that nobody reads: of a free route, and one that was paid for once and is shown again and again. */
  async neverReads({ gateway, ms, width, deadline, big }) {
    const all = Array.from({ length: width }, (_, n) => {
      const connection = dial({ ...gateway, localAddress: from(0) });
      connection.socket.pause();
      const paid = n % 2 === 0;
      connection.socket.write(`GET ${paid ? "/big" : "/free/big"} HTTP/1.1\r\nhost: shop.example\r\n${paid ? `payment-signature: ${big}\r\n` : ""}\r\n`);
      return connection;
    });
    // A paused socket does not see that it was closed: it is looked at by writing.
    const poking = setInterval(() => all.forEach((c) => !c.closed && c.socket.write("\r\n")), 100);
    await Promise.race([Promise.all(all.map((c) => c.ended)), sleep(ms + deadline)]);
    clearInterval(poking);
    const left = all.filter((c) => !c.closed).length;
    all.forEach((c) => c.socket.destroy());
    return { tried: all.length, left };
  },

  /** The same over HTTP/2: many answers on each connection, and no window for any. */
  async http2NeverReads({ gateway, ms, deadline, big, streams }) {
    const sessions = Array.from({ length: 8 }, () => {
      const session = http2.connect(`http://${gateway.host}:${gateway.port}`, { localAddress: from(0), settings: { initialWindowSize: 1 } });
      session.on("error", () => {});
      const closed = new Promise((done) => session.on("close", done));
      const requests = Array.from({ length: streams }, (_, n) => {
        const paid = n % 4 === 0;
        const request = session.request({ ":path": paid ? "/big" : "/free/big", ":authority": "shop.example", ...(paid ? { "payment-signature": big } : {}) });
        request.on("error", () => {});
        return request;
      });
      return { session, closed, requests, over: false };
    });
    sessions.forEach((one) => one.closed.then(() => (one.over = true)));
    await Promise.race([Promise.all(sessions.map((one) => one.closed)), sleep(ms + deadline)]);
    const left = sessions.filter((one) => !one.over).length;
    sessions.forEach((one) => one.session.destroy());
    return { tried: 8 * streams, left };
  },

  /** CVE-2024-27316: headers that go on for ever. */
  async continuations({ gateway, ms }) {
    let most = 0;
    const tried = await flood(ms, 4, async () => {
      const client = speaker({ ...gateway, localAddress: from(0) });
      await client.connected;
      await client.write(frame(TYPE.headers, 0, 1, getBlock("/free")));
      let sent = 0;
      const field = Buffer.concat([Buffer.from([0x00, 1, 0x78, 100]), Buffer.alloc(100, 0x79)]);
      const piece = frame(TYPE.continuation, 0, 1, Buffer.concat(Array.from({ length: 128 }, () => field)));
      while (sent < 64 * MIB && (await client.write(piece))) sent += piece.length;
      most = Math.max(most, sent);
      client.socket.destroy();
    });
    return { tried, most };
  },

  /** CVE-2023-44487: requests that are taken back at once. */
  async rapidResets({ gateway, ms }) {
    let sent = 0, ended = 0;
    const goaways = [];
    const tried = await flood(ms, 4, async () => {
      const client = speaker({ ...gateway, localAddress: from(0) });
      await client.connected;
      for (let stream = 1; stream < 200_000 && !client.isClosed() && client.goaway === undefined; stream += 200) {
        const frames = [];
        for (let n = stream; n < stream + 200; n += 2) {
          frames.push(frame(TYPE.headers, 5, n, getBlock("/a")), frame(TYPE.reset, 0, n, Buffer.from([0, 0, 0, 8])));
        }
        sent += 100;
        if (!(await client.write(Buffer.concat(frames)))) break;
        await sleep(0);
      }
      if (client.goaway !== undefined) goaways.push(client.goaway);
      ended += 1;
      client.socket.destroy();
    });
    return { tried, sent, ended, goaways: tally(goaways) };
  },

  /** Pings, settings and empty frames without end. */
  async idleFrames({ gateway, ms }) {
    const kinds = [frame(TYPE.ping, 0, 0, Buffer.alloc(8)), frame(TYPE.settings, 0, 0), frame(99, 0, 0)];
    let sent = 0;
    const tried = await flood(ms, 3, async (lane) => {
      const client = speaker({ ...gateway, localAddress: from(0) });
      await client.connected;
      const many = Buffer.concat(Array.from({ length: 500 }, () => kinds[lane % kinds.length]));
      // Answers are not read.
      client.socket.pause();
      const end = Date.now() + 1000;
      while (Date.now() < end && (await Promise.race([client.write(many), sleep(200)]))) sent += 500;
      client.socket.destroy();
    });
    return { tried, sent };
  },

  /** Bodies that are too long, and heads that are. */
  async hugeBodies({ gateway, ms, payment }) {
    const target = { ...gateway, localAddress: from(0) };
    const seen = [];
    let sent = 0;
    const chunk = Buffer.alloc(64 * 1024, 0x78);
    const tried = await flood(ms, 4, async (lane) => {
      const connection = dial(target);
      let answer = "";
      connection.socket.setEncoding("latin1").on("data", (text) => (answer += text));
      const framing = lane % 2 === 0 ? "content-length: 1073741824" : "transfer-encoding: chunked";
      connection.socket.write(`POST /post HTTP/1.1\r\nhost: shop.example\r\n${framing}\r\npayment-signature: ${payment}\r\n\r\n`);
      for (let n = 0; n < 256 && !connection.closed && !answer; n += 1) {
        const piece = lane % 2 === 0 ? chunk : Buffer.concat([Buffer.from("10000\r\n"), chunk, Buffer.from("\r\n")]);
        sent += piece.length;
        if (!connection.socket.write(piece)) await Promise.race([new Promise((done) => connection.socket.once("drain", done)), connection.ended, sleep(500)]);
      }
      await Promise.race([connection.ended, sleep(300)]);
      if (answer) seen.push(statusOf(answer));
      connection.socket.destroy();
    });
    return { tried, sent, seen: tally(seen) };
  },

  /** One byte to a chunk, as fast as they go. */
  async tinyChunks({ gateway, ms, payment }) {
    const target = { ...gateway, localAddress: from(0) };
    const many = Buffer.from("1;x=yyyyyyyyyyyyyyyyyyyyyyyy\r\nx\r\n".repeat(2000));
    let sent = 0;
    const tried = await flood(ms, 4, async (lane) => {
      const connection = dial(target);
      const more = lane % 2 === 0 ? `payment-signature: ${payment}\r\n` : "";
      connection.socket.resume();
      connection.socket.write(`POST ${lane % 2 === 0 ? "/post" : "/free"} HTTP/1.1\r\nhost: shop.example\r\ntransfer-encoding: chunked\r\n${more}\r\n`);
      for (let n = 0; n < 100 && !connection.closed; n += 1) {
        sent += 2000;
        if (!connection.socket.write(many)) await Promise.race([new Promise((done) => connection.socket.once("drain", done)), connection.ended, sleep(500)]);
      }
      connection.socket.destroy();
    });
    return { tried, sent };
  },

  /** Payments that nobody signed, at full speed. */
  async garbage({ gateway, ms, payments, addresses }) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
    const seen = [];
    const tried = await flood(ms, 32, async (lane, count) => {
      const target = { ...gateway, localAddress: from(count % addresses) };
      seen.push((await ask(agent, target, { path: "/a", headers: { "payment-signature": payments[count % payments.length] } })).status);
    });
    agent.destroy();
    return { tried, seen: tally(seen) };
  },

  /** One payment that is good, shown on very many connections at once. */
  async replay({ gateway, payment, connections }) {
    const goods = new Set();
    const seen = await Promise.all(Array.from({ length: connections }, async (_, n) => {
      const answer = await raw({ ...gateway, localAddress: from(n % 4) }, `GET /a HTTP/1.1\r\nhost: ${gateway.host}:${gateway.port}\r\nconnection: close\r\npayment-signature: ${payment}\r\n\r\n`, 20_000);
      const found = /"goods":(\d+)/.exec(answer)?.[1];
      if (found) goods.add(found);
      return statusOf(answer);
    }));
    return { tried: connections, seen: tally(seen), goods: [...goods] };
  },

  /** A thousand requests in one breath. */
  async pipelined({ gateway, ms }) {
    let answered = 0;
    const tried = await flood(ms, 4, async () => {
      const many = "GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\n".repeat(999) + "GET /a HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";
      const found = statuses(await raw({ ...gateway, localAddress: from(0) }, many, 10_000));
      if (found.length === 1000 && found.every((status) => status === 402)) answered += 1;
    });
    return { tried, answered };
  },

  /** New names at every turn: hosts, paths, addresses, payment ids, origins. Whatever remembers them must forget. */
  async newNames({ gateway, ms }) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
    const seen = [];
    const tried = await flood(ms, 32, async (lane, count) => {
      const name = randomBytes(12).toString("hex");
      const paths = [`/a?${name}`, `/${name}`, `/.well-known/farthing/payments/pay_${name}`];
      const headers = { host: `${name}.example`, origin: `https://${name}.example`, "x-forwarded-for": `10.${count % 256}.${lane}.1` };
      seen.push((await ask(agent, { ...gateway, localAddress: from(count) }, { path: paths[count % 3], headers })).status);
    });
    agent.destroy();
    return { tried, seen: tally(seen) };
  },

  /** The facilitator: connections without a word, and requests that are none. */
  async facilitator({ facilitator, ms, deadline, places }) {
    const target = { ...facilitator, localAddress: from(0) };
    const silent = Array.from({ length: Math.min(places, 300) }, () => dial(target));
    const deep = `{"x402Version":2,"paymentPayload":${"[".repeat(30_000)}`;
    const bomb = gzipSync(Buffer.alloc(60 * MIB, 0x20));
    const json = { "content-type": "application/json" };
    const bodies = [
      { body: deep, headers: json },
      { body: bomb, headers: { ...json, "content-encoding": "gzip" } },
      { body: Buffer.alloc(100_000, 0x20), headers: json },
      { body: "{", headers: json },
      { body: "", headers: {} },
      { body: JSON.stringify({ x402Version: 2, paymentPayload: {}, paymentRequirements: {} }), headers: json },
    ];
    const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
    const seen = [];
    const tried = await flood(ms, 16, async (lane, count) => {
      const path = count % 2 === 0 ? "/verify" : "/settle";
      seen.push((await ask(agent, target, { method: "POST", path, ...bodies[count % bodies.length] })).status);
    });
    agent.destroy();
    await Promise.race([Promise.all(silent.map((c) => c.ended)), sleep(deadline)]);
    const left = silent.filter((c) => !c.closed).length;
    silent.forEach((c) => c.socket.destroy());
    return { tried, seen: tally(seen), left };
  },
};

/** So many connections that write a byte every now and then after this beginning; all of them must be ended. */
async function dribble(target, ms, width, deadline, beginning) {
  const all = Array.from({ length: width }, () => {
    const connection = dial(target);
    connection.socket.resume();
    connection.socket.write(beginning);
    return connection;
  });
  const writing = setInterval(() => all.forEach((c) => !c.closed && c.socket.write("x")), 250);
  await Promise.race([Promise.all(all.map((c) => c.ended)), sleep(ms + deadline)]);
  clearInterval(writing);
  const left = all.filter((c) => !c.closed).length;
  all.forEach((c) => c.socket.destroy());
  return { tried: all.length, left };
}

// ---------------------------------------------------------------------------------------------------------------------
// Shapes of requests: what each is answered with, and that none of them hides another.

const SMUGGLED = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
const post = (headers, body, path = "/free") => `POST ${path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n${headers}\r\n${body}`;
const SHAPES = [
  // [what, bytes, the statuses that may be answered, in order]
  ["a length and chunks: the chunks count, and the connection ends", post("content-length: 6\r\ntransfer-encoding: chunked\r\n", `0\r\n\r\n${SMUGGLED}`), [[200]]],
  ["chunks and a length", post("transfer-encoding: chunked\r\ncontent-length: 40\r\n", `0\r\n\r\n${SMUGGLED}`), [[200]]],
  ["two lengths", post("content-length: 4\r\ncontent-length: 5\r\n", "abcde"), [[400]]],
  ["two lengths in one header", post("content-length: 4, 5\r\n", "abcde"), [[400]]],
  ["a length with a sign", post("content-length: +5\r\n", "abcde"), [[400]]],
  ["a length of ffffffffffffffff", post("content-length: 18446744073709551615\r\n", "abcde"), [[400, 413, 431]]],
  ["a length in hex", post("content-length: 0x5\r\n", "abcde"), [[400]]],
  ["a blank before the colon", post("content-length : 5\r\n", "abcde"), [[400]]],
  ["two transfer encodings, the last not chunked", post("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", `0\r\n\r\n${SMUGGLED}`), [[400]]],
  ["an unknown transfer encoding", post("transfer-encoding: xchunked\r\n", `0\r\n\r\n${SMUGGLED}`), [[400]]],
  ["chunked with a vertical tab", post("transfer-encoding: \x0bchunked\r\n", `0\r\n\r\n${SMUGGLED}`), [[400]]],
  ["a transfer encoding in HTTP/1.0", `POST /free HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`, [[400]]],
  ["a chunk's size with a sign", post("transfer-encoding: chunked\r\n", `-1\r\nx\r\n0\r\n\r\n${SMUGGLED}`), [[400, 502]]],
  ["a chunk's size that overflows", post("transfer-encoding: chunked\r\n", `ffffffffffffffffff\r\nx\r\n0\r\n\r\n${SMUGGLED}`), [[400, 502]]],
  ["a chunk that is longer than it says", post("transfer-encoding: chunked\r\n", `1\r\nxyz\r\n0\r\n\r\n${SMUGGLED}`), [[400, 502]]],
  ["chunks that end in a bare line feed", post("transfer-encoding: chunked\r\n", `1\nx\n0\n\n${SMUGGLED}`), [[400, 502]]],
  ["a chunk's extension without end", post("transfer-encoding: chunked\r\n", `1;${"x".repeat(100_000)}\r\nx\r\n0\r\n\r\n`), [[400, 502]]],
  ["trailers without end", post("transfer-encoding: chunked\r\n", `0\r\n${"x-y: z\r\n".repeat(20_000)}\r\n`), [[400, 431, 502]]],
  ["a header folded over two lines", "GET /free HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-folded: one\r\n two\r\n\r\n", [[400]]],
  ["a NUL in a header", "GET /free HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: a\0b\r\n\r\n", [[400]]],
  ["a NUL in the target", "GET /fr\0ee HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [[400]]],
  ["a bare carriage return in a header", "GET /free HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: a\rb\r\n\r\n", [[400]]],
  ["a target without a slash", "GET free HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [[400]]],
  ["no host", "GET /free HTTP/1.1\r\nconnection: close\r\n\r\n", [[400]]],
  ["two hosts", "GET /free HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", [[400]]],
  ["an absolute target: its host counts", "GET http://other.example/free HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [[200]]],
  ["an absolute target to a paid path", "GET http://other.example/a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [[402]]],
  ["an absolute target with credentials", "GET http://u:p@other.example/a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [[400]]],
  ["an authority as a target", "GET other.example:80 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [[400]]],
  ["a tunnel", "CONNECT other.example:80 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [[405]]],
  ["a trace", "TRACE /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [[405]]],
  ["an asterisk", "OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", [[400]]],
  ["an upgrade to a paid path", "GET /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n", [[402]]],
  ["an upgrade to HTTP/2", "GET /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n", [[402]]],
  ["a body too long for a digest, refused before it comes", "POST /post HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 999999999\r\nexpect: 100-continue\r\n\r\n", [[413]]],
  ["a body without a digest, priced before it comes", "POST /undigested HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 999999999\r\nexpect: 100-continue\r\n\r\n", [[402]]],
  ["two payments", "GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\npayment-signature: e30=\r\npayment-signature: e30=\r\n\r\n", [[400]]],
  ["two payments folded into one", "GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\npayment-signature: e30=, e30=\r\n\r\n", [[400]]],
  ["payments of two versions", "GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\npayment-signature: e30=\r\nx-payment: e30=\r\n\r\n", [[400]]],
  ["a payment of 30,000 brackets", `GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\npayment-signature: ${Buffer.from("[".repeat(9000)).toString("base64")}\r\n\r\n`, [[400]]],
  ["a payment that is too long", `GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\npayment-signature: ${"A".repeat(40_000)}\r\n\r\n`, [[400]]],
  ["a thousand headers", `GET /free HTTP/1.1\r\nhost: a\r\nconnection: close\r\n${Array.from({ length: 1000 }, (_, n) => `x-${n}: y\r\n`).join("")}\r\n`, [[431]]],
  ["a header of 100 kB", `GET /free HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: ${"y".repeat(100_000)}\r\n\r\n`, [[431]]],
  ["a target of 100 kB", `GET /free?${"y".repeat(100_000)} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`, [[414, 431]]],
  ["a path of 10 kB", `GET /${"y".repeat(10_000)} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`, [[400]]],
  ["HTTP/9.9", "GET /a HTTP/9.9\r\nhost: a\r\n\r\n", [[400]]],
  ["no HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", [[400]]],
  ["a request behind one that closes", `GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n${SMUGGLED}`, [[402]]],
];

async function shapes(gateway, behind) {
  for (const [what, bytes, allowed] of SHAPES) {
    const before = behind.paths.length;
    const answer = await raw(gateway, Buffer.from(bytes, "latin1"));
    const found = statuses(answer);
    const fits = found.length === allowed.length && found.every((status, n) => allowed[n].includes(status));
    check(`${what}: ${allowed.map((some) => some.join(" or ")).join(", ")}`, fits, `${found} ${answer.slice(0, 300)}`);
    const hidden = behind.paths.slice(before).filter((path) => path.includes("smuggled"));
    if (hidden.length > 0) check(`${what}: nothing is smuggled behind it`, false, hidden);
  }
}

/** Over HTTP/2, what its library would not let one say. */
async function http2Shapes(gateway) {
  const once = async (...frames) => {
    const client = speaker(gateway);
    await client.connected;
    await client.write(Buffer.concat(frames));
    await Promise.race([client.ended, until("an answer", () => client.answered > 0 || client.goaway !== undefined, 3000).catch(() => {})]);
    client.socket.destroy();
    return client;
  };
  const good = await once(frame(TYPE.headers, 5, 1, getBlock("/a")));
  check("HTTP/2: a request is answered", good.answered === 1);
  const large = Buffer.concat([getBlock("/a"), ...Array.from({ length: 900 }, () => Buffer.concat([Buffer.from([0x00, 1, 0x78, 100]), Buffer.alloc(100, 0x79)]))]);
  const parts = [];
  for (let at = 0; at < large.length; at += 16_384) {
    const last = at + 16_384 >= large.length;
    parts.push(frame(at === 0 ? TYPE.headers : TYPE.continuation, (at === 0 ? 1 : 0) | (last ? 4 : 0), 1, large.subarray(at, at + 16_384)));
  }
  const flooded = await once(...parts);
  check("HTTP/2: headers of 90 kB are refused", flooded.answered === 1 || flooded.goaway !== undefined);
  const even = await once(frame(TYPE.headers, 5, 2, getBlock("/a")));
  check("HTTP/2: a stream that only a server may open ends the connection", even.goaway !== undefined || even.isClosed());
  const torn = await once(Buffer.from([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]));
  check("HTTP/2: a frame of 16 MiB ends the connection", torn.goaway !== undefined || torn.isClosed());
}

// ---------------------------------------------------------------------------------------------------------------------
// The other processes.

async function role(name) {
  // One listener from the beginning to the end: what comes while there is none is lost.
  let hear = () => {};
  const options = await new Promise((done) => {
    hear = done;
    process.on("message", (word) => hear(word));
  });
  if (name !== "honest") {
    process.send(await ATTACKS[name](options));
    process.exit(0);
  }
  const client = await honest(options);
  hear = (word) => {
    if (word === "report") return process.send(client.report());
    client.stop();
    process.exit(0);
  };
  process.send("ready");
}

function start(name, options) {
  const child = fork(self, ["--role", name], { env: process.env });
  child.send(options);
  const gone = new Promise((_, fail) => child.once("exit", (code) => fail(new Error(`the ${name} process ended with ${code}`))));
  gone.catch(() => {});
  const heard = () => Promise.race([new Promise((done) => child.once("message", done)), gone]);
  return { child, heard };
}

// ---------------------------------------------------------------------------------------------------------------------
// The main process.

/** A service behind the gateway: answers at once, largely where that is asked for. */
async function service() {
  const paths = [], served = new Map();
  let goods = 0;
  const large = Buffer.alloc(BIG, 0x67);
  const server = createServer((req, res) => {
    if (paths.length > 100_000) paths.length = 0;
    paths.push(req.url);
    const payment = req.headers["x-farthing-payment"];
    if (payment) served.set(payment, (served.get(payment) ?? 0) + 1);
    goods += 1;
    req.on("error", () => {}).resume();
    if (req.url.includes("big")) {
      res.writeHead(200, { "content-length": large.length });
      // In pieces, as a service does that has more than its socket takes.
      let at = 0;
      const more = () => {
        while (at < large.length && res.writable) {
          const piece = large.subarray(at, at + 64 * 1024);
          at += piece.length;
          if (!res.write(piece)) return res.once("drain", more);
        }
        res.end();
      };
      return more();
    }
    res.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ goods }));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  server.unref();
  return { url: `http://127.0.0.1:${server.address().port}`, paths, served };
}

/** How large a paid answer is here: what a stranger would have us hold. */
const BIG = 7 * MIB;

/** Counts what is asked of the chain. */
async function counted(target) {
  const counts = { reads: 0 };
  const agent = new http.Agent({ keepAlive: true });
  const { hostname, port } = new URL(target);
  const server = createServer((req, res) => {
    const chunks = [];
    req.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
      const body = Buffer.concat(chunks);
      counts.reads += body.toString().split('"eth_call"').length - 1;
      const on = http.request({ hostname, port, method: "POST", agent, headers: { "content-type": "application/json" } }, (answer) => {
        res.writeHead(answer.statusCode, { "content-type": "application/json" });
        answer.pipe(res);
      });
      on.on("error", () => res.destroy());
      on.end(body);
    });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  server.unref();
  return { url: `http://127.0.0.1:${server.address().port}`, counts };
}

/** What the system says of a process's memory, in MiB; and the most so far. */
function memory(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+)/.exec(text)[1]) / 1024;
  } catch {
    return undefined;
  }
}

const SHORT = { ms: 1200, width: 100, streams: 40, connections: 1000 };
const LIMITS = `
[limits]
max_connections = 500
max_connections_per_client = 200
header_timeout = "2s"
idle_timeout = "3s"
stall_timeout = "2s"
request_timeout = "3s"
body_memory = "64MiB"
`;
/** By how much the gateway may grow under any of these: bodies, connections, and what its allocator keeps, in MiB. */
const MAY_GROW_MIB = { short: 64 * 2 + 150, long: 256 * 2 + 400 };

async function main() {
  const seconds = argument("--seconds") === undefined ? undefined : Number(argument("--seconds"));
  const only = argument("--only");
  const long = seconds !== undefined;
  const chain = await devnet();
  const node = await counted(chain.url);
  const behind = await service();
  const routes = route("GET /a", "$0.001") + route("POST /post", "$0.001") + route("POST /undigested", "$0.001", "digest = false\n") + route("GET /big", "$0.001") + '\n[[route]]\nmatch = "/free/*"\nfree = true\n';
  const shop = await seller({ rpcUrl: node.url, upstreamUrl: behind.url, routes: routes + (long ? "" : LIMITS) });
  const gateway = await shop.start();
  const settler = await facilitator(chain.url);
  const pids = { gateway: gateway.pid, facilitator: settler.pid };
  const address = (url) => ({ host: new URL(url).hostname, port: Number(new URL(url).port) });
  const at = address(shop.url);

  const wants = (name) => only === undefined || name.toLowerCase().includes(only.toLowerCase());
  if (wants("shapes")) {
    await shapes(at, behind);
    await http2Shapes(at);
  }

  // What the attackers have: payments that are good, that nobody signed, and whose payer has nothing.
  const viem = createRequire(join(repo, "interop/package.json"))("viem/accounts");
  const poor = viem.privateKeyToAccount(`0x${randomBytes(32).toString("hex")}`);
  const header = async (path, account = payer, init) => (await sign(await asked(`${shop.url}${path}`, init), account)).v2["payment-signature"];
  const toPost = await header("/post", payer, { method: "POST" });
  const changed = (text, change) => {
    const payment = decoded(text);
    change(payment.payload);
    return Buffer.from(JSON.stringify(payment)).toString("base64");
  };
  const good = await header("/a");
  const unsigned = Array.from({ length: 200 }, () => changed(good, (payload) => (payload.signature = `0x${randomBytes(64).toString("hex")}1b`)));
  const wrongly = Array.from({ length: 200 }, () => changed(good, (payload) => (payload.authorization.nonce = `0x${randomBytes(32).toString("hex")}`)));
  const unfunded = [];
  for (let n = 0; n < (long ? 2000 : 300); n += 1) unfunded.push(await header("/a", poor));
  const big = await header("/big");
  const bought = await show(`${shop.url}/big`, { "payment-signature": big, host: "shop.example" });
  check("what is large can be bought", bought?.status === 200, bought?.status);

  const deadline = long ? 60_000 : 12_000;
  const ms = long ? seconds * 1000 : SHORT.ms;
  const places = long ? 1000 : 200;
  const total = long ? 9000 : 500;
  const width = long ? 1000 : SHORT.width;
  const common = { gateway: at, facilitator: address(settler.url), ms, deadline, places, total };

  const ended = (saw) => [["all of them are ended", saw.left === 0, saw]];
  const bounded = (saw, most, what) => [[what, saw.most <= most, saw]];
  // 0: the server did not wait for the end of a body that it refused.
  const only4xx = (saw) => {
    const odd = Object.keys(saw.seen).filter((status) => !["0", "200", "400", "402", "404", "408", "413", "414", "415", "429"].includes(status));
    return [["every answer is an answer of ours, and none of them a failure", odd.length === 0 && saw.tried > 0, saw.seen]];
  };
  const fewReads = (allowed) => (saw, { reads }) => [...only4xx(saw), [`at most ${Math.round(allowed)} reads of the chain`, reads <= allowed, reads]];
  const spent = (ms / 1000 + 2);
  // Of one client: 20 refused a second after 40 at once; of these, 10 a second after 20 may cost a read. Each payment costs
  // a few calls, and the honest client's are counted too.
  const CALLS = 6;
  const honestReads = (ms / 1000 + 3) * BUYS_PER_SECOND * CALLS;

  const battery = [
    ["silent", "connections that never ask, of one address", { }, (saw) => [...ended(saw), ...bounded(saw, places, `of ${places * 2} no more than ${places} are open at once`)]],
    ["silentFromMany", "connections that never ask, of 200 addresses", {}, (saw) => [...ended(saw), ...bounded(saw, (long ? 10_000 : 500) + 20, "no more than all are open at once")]],
    ["slowHeads", "heads that dribble in", { width }, ended],
    ["slowBodies", "bodies that dribble in", { width, payment: toPost }, ended],
    ["neverReads", "answers of 7 MiB that nobody reads", { width: Math.min(width, 150), big }, ended],
    ["http2NeverReads", "the same over HTTP/2, without a window", { big, streams: long ? 200 : SHORT.streams }, ended],
    ["continuations", "HTTP/2 headers without end", {}, (saw) => [["each is cut off before 8 MiB", saw.most < 8 * MIB && saw.tried > 0, saw]]],
    ["rapidResets", "HTTP/2 requests that are taken back", {}, (saw) => [["some are told to calm down, and all go on", saw.sent > 0, saw]]],
    ["idleFrames", "HTTP/2 pings, settings and unknown frames", {}, (saw) => [["they are borne", saw.sent > 0, saw]]],
    ["hugeBodies", "bodies of 1 GiB, with and without a length", { payment: toPost }, (saw) => [["413, and never more", Object.keys(saw.seen).every((status) => ["413", "429"].includes(status)) && saw.tried > 0, saw]]],
    ["tinyChunks", "chunks of one byte", { payment: toPost }, (saw) => [["they are borne", saw.tried > 0, saw]]],
    ["garbage", "signatures of nobody, of one address", { payments: unsigned, addresses: 1 }, fewReads((20 + spent * 10) * CALLS + honestReads)],
    ["garbage", "well-formed payments, wrongly signed, of 50 addresses", { payments: wrongly, addresses: 50 }, fewReads((20 + spent * 10) * 50 * CALLS + honestReads)],
    ["garbage", "well-signed payments of one who has nothing", { payments: unfunded, addresses: 1 }, fewReads((40 + spent * 20) * CALLS + honestReads)],
    ["replay", "one good payment on 1,000 connections", { connections: SHORT.connections }, (saw, { calls }) => [
      ["all who are served have the same goods", saw.goods.length <= 1, saw],
      ["the others are told to wait or to go", Object.keys(saw.seen).every((status) => ["200", "409", "429", "503", "0"].includes(status)), saw.seen],
      ["the service is called once for any payment", calls <= 1, calls],
    ]],
    ["pipelined", "1,000 requests in one breath", {}, (saw) => [["all are answered, in order", saw.answered === saw.tried && saw.tried > 0, saw]]],
    ["newNames", "new hosts, paths, addresses and ids at every turn", {}, (saw) => only4xx(saw)],
    ["facilitator", "the facilitator: silence, depth, bombs and nonsense", {}, (saw) => [...ended(saw), ...only4xx(saw)]],
  ];

  const client = start("honest", at);
  await within(client.heard(), "the honest client's beginning");
  const report = async () => {
    client.child.send("report");
    return client.heard();
  };
  await report();
  await sleep(long ? 10_000 : 3000);
  const before = await report();
  const begun = memory(pids.gateway);
  check("before any of this, honest requests are answered", before.perSecond > HONEST_PER_SECOND / 2 && before.bought > 0, before);
  const rows = [["before", { perSecond: before.perSecond, p50: before.p50, p99: before.p99, bought: before.bought, rss: begun, failures: before.failures }]];

  for (const [attack, what, options, judge] of battery) {
    if (!wants(attack) && !wants(what)) continue;
    // Each has its own payment to replay.
    const payment = attack === "replay" ? (await sign(await asked(`${shop.url}/a`))).v2["payment-signature"] : undefined;
    const [reads, began] = [node.counts.reads, Date.now()];
    await report();
    let most = memory(pids.gateway) ?? 0, settlerMost = 0;
    const looking = setInterval(() => {
      most = Math.max(most, memory(pids.gateway) ?? 0);
      settlerMost = Math.max(settlerMost, memory(pids.facilitator) ?? 0);
    }, 50);
    const attacker = start(attack, { ...common, ...options, ...(payment ? { payment } : {}) });
    const saw = await within(attacker.heard(), `the end of ${attack}`, ms + deadline + 30_000);
    clearInterval(looking);
    const honestly = await report();
    const paid = honestly.bought;
    for (const [held, holds, detail] of judge(saw, { reads: node.counts.reads - reads, calls: Math.max(0, ...behind.served.values()) })) check(`${what}: ${held}`, holds, detail);
    const failures = Object.values(honestly.failures).reduce((a, b) => a + b, 0);
    // How fast is a matter for the long form: the short one may share its processors with a build.
    check(`${what}: honest requests are answered`, honestly.perSecond > (long ? HONEST_PER_SECOND / 4 : 0) && failures <= honestly.perSecond * 0.02 * (ms / 1000 + 1), honestly);
    check(`${what}: honest purchases succeed`, paid > 0 && honestly.unbought.length === 0, honestly);
    if (begun !== undefined) check(`${what}: memory is bounded`, most - begun < MAY_GROW_MIB[long ? "long" : "short"], `${begun} to ${most} MiB`);
    check(`${what}: both processes live`, memory(pids.gateway) !== undefined && memory(pids.facilitator) !== undefined);
    console.log(`--    ${what}: ${((Date.now() - began) / 1000).toFixed(1)} s, honest p99 ${honestly.p99?.toFixed(1)} ms, most memory ${most.toFixed(0)} MiB`);
    rows.push([what, { ...honestly, rss: attack === "facilitator" ? settlerMost : most, tried: saw.tried, saw, failures: honestly.failures }]);
  }
  client.child.send("stop");

  if (long) {
    const fixed = (value, digits = 1) => (value === null || value === undefined ? "-" : value.toFixed(digits));
    console.log(`\n| attack (${seconds} s each) | tried | honest req/s of ${HONEST_PER_SECOND} | p50 ms | p99 ms | bought | most RSS, MiB |`);
    console.log("|---|---|---|---|---|---|---|");
    for (const [what, row] of rows) {
      console.log(`| ${what} | ${row.tried ?? "-"} | ${fixed(row.perSecond)} | ${fixed(row.p50)} | ${fixed(row.p99)} | ${row.bought} | ${fixed(row.rss, 0)} |`);
    }
    for (const [what, row] of rows) if (row.saw) console.log(`${what}: ${JSON.stringify(row.saw)}`);
  }

  await gateway.stop();
  const { balance, said } = await books(shop.store);
  check("after all this the books balance", balance, said);
}

if (argument("--role")) await role(argument("--role"));
else await script(main);

#!/usr/bin/env node
// A JSON-RPC proxy that prints every call: which methods a peer needs, and how many of them a payment costs.
//
//   node interop/support/rpc-log.mjs PORT UPSTREAM_URL

import { createServer } from "node:http";

const [port, upstream] = process.argv.slice(2);
if (!port || !upstream) {
  console.error("usage: rpc-log.mjs PORT UPSTREAM_URL");
  process.exit(2);
}

createServer(async (req, res) => {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  try {
    const calls = [JSON.parse(body)].flat();
    for (const { method, params } of calls) console.log(method, JSON.stringify(params ?? []));
    const answer = await fetch(upstream, { method: "POST", headers: { "content-type": "application/json" }, body });
    res.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
  } catch (error) {
    console.log("failed", error.message);
    res.writeHead(502).end();
  }
}).listen(Number(port), "127.0.0.1");

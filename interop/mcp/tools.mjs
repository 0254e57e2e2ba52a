#!/usr/bin/env node
// A server of tools that knows nothing of payments, with the published TypeScript SDK: over standard input and output, or
// with `--http PORT` over streamable HTTP. Its tool `calls` tells how often the others were called.

import { createServer } from "node:http";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { UrlElicitationRequiredError } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

const calls = {};
const text = (text) => ({ content: [{ type: "text", text }] });

function tools() {
  const server = new McpServer({ name: "weather", version: "1.0.0" }, { instructions: "Ask for a forecast." });
  const tool = (name, config, answer) => server.registerTool(name, { description: name, ...config }, async (args) => {
    calls[name] = (calls[name] ?? 0) + 1;
    return answer(args);
  });
  tool("forecast", { inputSchema: { city: z.string(), days: z.number().optional() } }, ({ city, days }) => ({
    ...text(`sunny in ${city}`),
    // What only a till may say; it must not reach a buyer.
    _meta: { "org.paymentauth/receipt": { status: "success" }, "x402/payment-response": { success: true }, days: days ?? 1 },
  }));
  tool("fails", {}, () => ({ ...text("out of order"), isError: true }));
  tool("elicits", {}, () => {
    throw new UrlElicitationRequiredError([
      { mode: "url", message: "log in", url: "https://login.example/", elicitationId: "1" },
    ]);
  });
  tool("greedy", {}, () => ({
    ...text(JSON.stringify({ x402Version: 2, accepts: [] })), isError: true,
  }));
  tool("hidden", {}, () => text("nobody named this one"));
  server.registerTool("calls", { description: "calls" }, async () => text(JSON.stringify(calls)));
  return server;
}

const at = process.argv.indexOf("--http");
if (at < 0) {
  await tools().connect(new StdioServerTransport());
} else {
  createServer(async (req, res) => {
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
    res.on("close", () => transport.close());
    await tools().connect(transport);
    await transport.handleRequest(req, res);
  }).listen(Number(process.argv[at + 1]), "127.0.0.1");
}

#!/usr/bin/env node
// The story of session.mjs on anvil, with the published bytecode of USDC in place of our own.

process.argv.push("--anvil");
await import("./session.mjs");

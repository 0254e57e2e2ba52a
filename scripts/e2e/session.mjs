#!/usr/bin/env node
// A stream of ten thousand units is bought through a channel (MPP's evm/session), by the binary from the binary, on the
// embedded chain or on anvil with the published bytecode of USDC: two transactions, and the same amounts to the atom in the wallets, the escrow and both books. Then each
// side is killed in the middle of a stream, and nothing is lost but what the rules allow.
//
//   node scripts/e2e/session.mjs [--units 10000] [--anvil]

import { bin, books, check, devnet, eventStream, payer, rpc, run, same, script, seller, surroundings, until, usdc, wallet, PAYEE } from "./support.mjs";
import { spawn } from "node:child_process";
import { startWorld } from "../../interop/support/world.mjs";

const UNITS = Number(process.argv[process.argv.indexOf("--units") + 1] || 10_000) || 10_000;
const PRICE = 25n;
/** What the wallet signs ahead of what it has, in units: the least that a voucher adds. */
const AHEAD = 64n;
const RELAYER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const PAYEE_KEY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
const ESCROW = "0xE8693A0b6b6Ba2238aCeb8a052A5d5dE1BDF8E29";

const units = (text) => (text.match(/^data: \{"unit":\d+\}$/gm) ?? []).length;

script(async () => {
  const world = process.argv.includes("--anvil") ? await startWorld() : undefined;
  const chain = world ? { url: world.rpcUrl } : await devnet();
  try {
    await story(chain);
  } finally {
    await world?.stop();
  }
});

async function story(chain) {
  const behind = await eventStream();
  const shop = await seller({
    rpcUrl: chain.url,
    upstreamUrl: behind,
    keys: { PAYEE_KEY },
    routes: `
[sessions]
payee_keys = ["env:PAYEE_KEY"]

[[route]]
match = "GET /stream"
session = { price = "$0.000025", unit = "event", meter = "event", stream = true, suggested_deposit = "$1", min_voucher_delta = "$0.0016", patience = "5s" }
`,
  });
  let gateway = await shop.start();
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
  const address = (count) => `${shop.url}/stream?units=${count}`;

  // One stream, opened and closed.
  const before = await sums();
  const began = Date.now();
  const bought = await buyer.fetch([address(UNITS), "--max", "1", "-o", "-"]);
  const took = Date.now() - began;
  same("the stream is bought", bought.code, 0);
  if (bought.code !== 0) console.log(bought.stderr);
  same("every unit came", units(bought.stdout), UNITS);
  console.log(`      ${UNITS} units in ${took} ms`);
  const open = await channels();
  same("the wallet has one channel", open.length, 1);
  const closed = await run(["channel", "close", open[0].channel ?? open[0].id, "--json"], buyer.env);
  same("the channel is closed", closed.code, 0);
  if (closed.code !== 0) console.log(closed.stderr);
  const after = await sums();
  same("the chain was touched twice", after.transactions - before.transactions, 2);
  same("the seller has what the units cost", after.payee - before.payee, BigInt(UNITS) * PRICE);
  same("the buyer paid as much", before.payer - after.payer, BigInt(UNITS) * PRICE);
  same("the escrow holds nothing", after.escrow, 0n);
  const first = await books(shop.store);
  check("the seller's books balance", first.balance, first.said);

  // The seller dies in the middle of a stream.
  const dying = spawn(bin, ["fetch", address(UNITS), "--max", "1", "-o", "-"], { stdio: ["ignore", "pipe", "pipe"], env: { ...surroundings(), ...buyer.env } });
  let heard = "";
  dying.stdout.setEncoding("utf8").on("data", (text) => (heard += text));
  const ended = new Promise((done) => dying.once("close", done));
  await until("half of a stream", () => units(heard) > UNITS / 2);
  await gateway.kill();
  const code = await ended;
  check("a stream that breaks off is no success", code !== 0, code);
  gateway = await shop.start();
  const had = BigInt(units(heard));

  // The buyer dies in the middle of the next.
  const killed = spawn(bin, ["fetch", address(UNITS), "--max", "1", "-o", "-"], { stdio: ["ignore", "pipe", "ignore"], env: { ...surroundings(), ...buyer.env } });
  let more = "";
  killed.stdout.setEncoding("utf8").on("data", (text) => (more += text));
  const gone = new Promise((done) => killed.once("close", done));
  await until("some of a stream", () => units(more) > UNITS / 4);
  killed.kill("SIGKILL");
  await gone;
  const had2 = BigInt(units(more));

  // And a whole one, on the same channel.
  const whole = await buyer.fetch([address(100), "--max", "1", "-o", "-"]);
  same("the next stream is bought", whole.code, 0);
  if (whole.code !== 0) console.log(whole.stderr);
  same("and whole", units(whole.stdout), 100);
  const second = (await channels()).find((channel) => channel.state === "open") ?? (await channels())[0];
  const over = await run(["channel", "close", second.channel ?? second.id, "--json"], buyer.env);
  same("the second channel is closed", over.code, 0);
  if (over.code !== 0) console.log(over.stderr);
  const last = await sums();
  same("the chain was touched twice more", last.transactions - after.transactions, 2);
  const paid = after.payer - last.payer;
  same("what left the buyer came to the seller", last.payee - after.payee, paid);
  same("the escrow holds nothing again", last.escrow, 0n);
  const received = (had + had2 + 100n) * PRICE;
  check("the seller lost nothing", paid >= received, `${paid} paid, ${received} received`);
  check("the buyer lost no more than it signs ahead, twice", paid <= received + 2n * AHEAD * PRICE, `${paid} paid, ${received} received`);
  const end = await books(shop.store);
  check("the seller's books balance again", end.balance, end.said);
}

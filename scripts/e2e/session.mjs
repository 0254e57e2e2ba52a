#!/usr/bin/env node
// A stream of ten thousand units is bought through a channel (MPP's evm/session), by the binary from the binary, on the
// embedded chain or on anvil with the published bytecode of USDC: two transactions, and the same amounts to the atom in the wallets, the escrow and both books. Then each
// side is killed in the middle of a stream, and nothing is lost but what the rules allow.
//
//   node scripts/e2e/session.mjs [--units 10000] [--anvil]

import { books, check, devnet, eventStream, same, script } from "./support.mjs";
import { PRICE, accounted, deaths, market } from "./by-the-unit.mjs";
import { startWorld } from "../../interop/support/world.mjs";

const UNITS = Number(process.argv[process.argv.indexOf("--units") + 1] || 10_000) || 10_000;

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
  const fair = await market(chain, { upstreamUrl: await eventStream(), match: "GET /stream" });
  const { shop, buyer, sums, channels, close } = fair;
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
  same("the wallet has one channel", (await channels()).length, 1);
  await close("the channel");
  const after = await sums();
  same("the chain was touched twice", after.transactions - before.transactions, 2);
  same("the seller has what the units cost", after.payee - before.payee, BigInt(UNITS) * PRICE);
  same("the buyer paid as much", before.payer - after.payer, BigInt(UNITS) * PRICE);
  same("the escrow holds nothing", after.escrow, 0n);
  const first = await books(shop.store);
  check("the seller's books balance", first.balance, first.said);

  const had = await deaths(fair, address(UNITS), units, UNITS / 4);

  // And a whole one, on the same channel.
  const whole = await buyer.fetch([address(100), "--max", "1", "-o", "-"]);
  same("the next stream is bought", whole.code, 0);
  if (whole.code !== 0) console.log(whole.stderr);
  same("and whole", units(whole.stdout), 100);
  await close("the second channel");
  const last = await sums();
  same("the chain was touched twice more", last.transactions - after.transactions, 2);
  const paid = after.payer - last.payer;
  same("what left the buyer came to the seller", last.payee - after.payee, paid);
  same("the escrow holds nothing again", last.escrow, 0n);
  await accounted(shop, paid, had + 100, 2n);
}

// What the scripts share that sell and buy by the unit, through a channel on a chain. Not a script itself.

import { bin, books, check, payer, rpc, run, same, seller, surroundings, until, usdc, wallet, PAYEE } from "./support.mjs";
import { spawn } from "node:child_process";

/** What a unit costs, in atoms. */
export const PRICE = 25n;
/** What the wallet signs ahead of what it has, in units: the least that a voucher adds. */
const AHEAD = 64n;
const RELAYER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const PAYEE_KEY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
const ESCROW = "0xE8693A0b6b6Ba2238aCeb8a052A5d5dE1BDF8E29";

/**
 * A shop that sells the route `match` by the unit, and a wallet that may buy there. `sums` is what the chain has of
 * everybody, `channels` are the wallet's, and `close` closes the one that is open.
 */
export async function market(chain, { upstreamUrl, match, unit = "event", patience = "5s", routes = "" }) {
  const shop = await seller({
    rpcUrl: chain.url,
    upstreamUrl,
    keys: { PAYEE_KEY },
    routes: `
[sessions]
payee_keys = ["env:PAYEE_KEY"]

[[route]]
match = "${match}"
session = { price = "$0.000025", unit = "${unit}", meter = "event", stream = true, suggested_deposit = "$1", min_voucher_delta = "$0.0016", patience = "${patience}" }
${routes}`,
  });
  const gateway = await shop.start();
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
  const close = async (what) => {
    const all = await channels();
    const channel = all.find(({ state }) => state === "open") ?? all[0];
    const closed = await run(["channel", "close", channel.channel ?? channel.id, "--json"], buyer.env);
    same(`${what} is closed`, closed.code, 0);
    if (closed.code !== 0) console.log(closed.stderr);
  };
  return { shop, gateway, buyer, sums, channels, close };
}

/** A purchase in a process of its own: what came so far, and its exit code. */
export function buying(buyer, address) {
  const child = spawn(bin, ["fetch", address, "--max", "1", "-o", "-"], { stdio: ["ignore", "pipe", "ignore"], env: { ...surroundings(), ...buyer.env } });
  let heard = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (heard += text));
  return { heard: () => heard, ended: new Promise((done) => child.once("close", done)), kill: () => child.kill("SIGKILL") };
}

/** The seller dies in the middle of one stream, the buyer in the middle of the next. Returns how many units came. */
export async function deaths({ shop, gateway, buyer }, address, units, sooner) {
  const dying = buying(buyer, address);
  await until("some of a stream", () => units(dying.heard()) > sooner * 2);
  await gateway.kill();
  check("a stream that breaks off is no success", (await dying.ended) !== 0);
  await shop.start();
  const killed = buying(buyer, address);
  await until("some of another", () => units(killed.heard()) > sooner);
  killed.kill();
  await killed.ended;
  return units(dying.heard()) + units(killed.heard());
}

/** What was paid is what was received, but for what the wallet signs ahead and the gateway has on its way, `losses` times. */
export async function accounted(shop, paid, units, losses, what = "") {
  const received = BigInt(units) * PRICE;
  check(`${what}the seller lost nothing`, paid >= received, `${paid} paid, ${received} received`);
  check(`${what}the buyer lost no more than it signs ahead`, paid <= received + losses * AHEAD * PRICE, `${paid} paid, ${received} received`);
  const end = await books(shop.store);
  check(`${what}the seller's books balance`, end.balance, end.said);
}

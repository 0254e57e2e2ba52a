// What has to agree at the end, and where it does not: the chain (asked by viem), the ledgers of gateways and
// facilitator, the journals of buyers, what the seller's service was asked, and what buyers hold in their hands. Not a
// script itself.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { erc20, USDC } from "../../interop/support/world.mjs";
import { repo, run } from "./support.mjs";

const { parseAbi } = createRequire(join(repo, "interop/package.json"))("viem");
const events = parseAbi([
  "event Transfer(address indexed from, address indexed to, uint256 value)",
  "event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce)",
]);

const sum = (list, of) => list.reduce((total, entry) => total + of(entry), 0n);
const dollars = (atoms) => `${atoms / 1_000_000n}.${String(atoms % 1_000_000n).padStart(6, "0")}`;
const lower = (text) => text.toLowerCase();

/** What everybody has on chain before anything is bought. */
export async function open({ world, buyers, payees, relayers }) {
  const usdc = new Map();
  for (const address of [...buyers.map(({ address }) => address), ...Object.values(payees)]) usdc.set(address, await balance(world, address));
  const wei = new Map();
  for (const { address } of Object.values(relayers)) wei.set(address, await world.client.getBalance({ address }));
  return { usdc, wei, block: (await world.client.getBlockNumber()) + 1n };
}

const balance = (world, address) => world.client.readContract({ address: USDC, abi: erc20, functionName: "balanceOf", args: [address] });

/** Everything that was said by anybody, compared. Each check comes with its problems; none is good. */
export async function close(stage, opening, orders, { history, paymentsOf }) {
  const chain = await whatTheChainSays(stage, opening);
  const books = {};
  for (const [name, store] of Object.entries(stage.stores)) {
    const checked = await run(["ledger", "check", "--json", "--store", store]);
    const balances = await run(["ledger", "balances", "--json", "--store", store]);
    books[name] = { checked, balances: balances.json ?? [], payments: await paymentsOf(store) };
  }
  const journals = new Map();
  for (const buyer of stage.buyers) journals.set(buyer, await history(buyer));
  const shops = ["own", "via"];
  const sold = shops.flatMap((shop) => books[shop].payments.map((payment) => ({ ...payment, shop })));
  const settled = sold.filter(({ state }) => state === "settled");
  const purchases = [...journals].flatMap(([buyer, list]) => list.map((purchase) => ({ ...purchase, buyer })));
  const bought = purchases.filter(({ state }) => state === "settled");
  const world = { stage, opening, orders, chain, books, journals, sold, settled, purchases, bought };
  const checks = [
    ["the books of both gateways and of the facilitator balance", booksBalance(world)],
    ["what payers lost is what payees gained, and what the token's events say", balancesAgree(world)],
    ["the gateways' treasuries are what their payees received", treasuriesAgree(world)],
    ["what was served and never paid is a loss in the books, and nothing else is", lossesShow(world)],
    ["the facilitator's books are what it moved", relayAgrees(world)],
    ["no nonce was used twice, and each transfer is one settled payment", transfersAgree(world)],
    ["each settled purchase of a journal is one settled payment of a ledger, and the other way round", journalsAgree(world)],
    ["no budget was exceeded", budgetsHeld(world)],
    ["no request was signed for twice while the first could still be paid", signedOnce(world)],
    ["nothing was served free", nothingFree(world)],
    ["nothing was charged and not served", nothingKept(world)],
    ["the service was asked only for claimed payments, and for a POST once", callsAgree(world)],
    ["every order came to an end that has a name", endsAgree(world)],
    ["each wei of gas is booked, or went into a transaction that moved nothing", gasAgrees(world)],
  ];
  return { checks, world };
}

async function whatTheChainSays({ world, buyers, payees, relayers }, opening) {
  const { client } = world;
  const logs = (event) => client.getLogs({ address: USDC, event, fromBlock: opening.block, toBlock: "latest" });
  const transfers = (await logs(events[0])).map(({ args, transactionHash, logIndex }) => ({ ...args, tx: transactionHash, logIndex }));
  const used = (await logs(events[1])).map(({ args, transactionHash, logIndex }) => ({ ...args, tx: transactionHash, logIndex }));
  const usdc = new Map();
  for (const address of opening.usdc.keys()) usdc.set(address, await balance(world, address));
  const gas = new Map(Object.values(relayers).map(({ address }) => [lower(address), { spent: 0n, byTx: new Map() }]));
  const last = await client.getBlockNumber();
  for (let blockNumber = opening.block; blockNumber <= last; blockNumber += 1n) {
    const { transactions } = await client.getBlock({ blockNumber, includeTransactions: true });
    for (const { from, hash } of transactions) {
      const book = gas.get(lower(from));
      if (!book) continue;
      const receipt = await client.getTransactionReceipt({ hash });
      const fee = receipt.gasUsed * receipt.effectiveGasPrice;
      book.spent += fee;
      book.byTx.set(hash, fee);
    }
  }
  const wei = new Map();
  for (const [address, before] of opening.wei) wei.set(lower(address), before - (await client.getBalance({ address })));
  return { transfers, used, usdc, gas, wei, payers: new Set(buyers.map(({ address }) => lower(address))), payees };
}

// ---------------------------------------------------------------------------------------------------------------------
// The checks. Each returns what is wrong, in words, with the payment, purchase or order that it is about.

const wrong = (why, about = {}) => ({ why, ...about });

function booksBalance({ books }) {
  return Object.entries(books).flatMap(([name, { checked }]) =>
    checked.code === 0 && checked.json?.problems?.length === 0 ? [] : [wrong(`${name}: ${checked.stdout}${checked.stderr}`)]);
}

function balancesAgree({ stage, opening, chain }) {
  const problems = [];
  const moved = (address, key) => sum(chain.transfers.filter((transfer) => lower(transfer[key]) === lower(address)), ({ value }) => value);
  let [lost, gained] = [0n, 0n];
  for (const [address, before] of opening.usdc) {
    const difference = chain.usdc.get(address) - before;
    const [received, sent] = [moved(address, "to"), moved(address, "from")];
    if (difference !== received - sent) problems.push(wrong(`${address} has ${difference} atoms more, and the events say +${received} -${sent}`));
    if (difference < 0n) lost -= difference;
    else gained += difference;
  }
  if (lost !== gained) problems.push(wrong(`payers lost ${lost} atoms and payees gained ${gained}`));
  const known = new Set([...opening.usdc.keys()].map(lower));
  for (const { from, to, tx } of chain.transfers) {
    if (!known.has(lower(from)) || !known.has(lower(to))) problems.push(wrong(`a transfer between strangers: ${tx}`));
  }
  return problems;
}

/** Debits less credits of a kind of account in USDC; nothing may be pending. */
function net({ balances }, account, problems, name, asset = lower(USDC)) {
  const rows = balances.filter((row) => row.account === account && lower(row.asset).includes(asset));
  for (const row of rows) {
    if (row.debits_pending !== "0" || row.credits_pending !== "0") problems.push(wrong(`${name}: ${account} is not at rest: ${JSON.stringify(row)}`));
  }
  return sum(rows, (row) => BigInt(row.debits_posted) - BigInt(row.credits_posted));
}

function treasuriesAgree({ opening, chain, books, settled }) {
  return ["own", "via"].flatMap((shop) => {
    const problems = [];
    const payee = chain.payees[shop];
    const received = chain.usdc.get(payee) - opening.usdc.get(payee);
    const treasury = net(books[shop], "treasury", problems, shop);
    const payments = sum(settled.filter((payment) => payment.shop === shop), ({ atoms }) => BigInt(atoms));
    const owed = net(books[shop], "receivable", problems, shop);
    if (treasury !== received) problems.push(wrong(`${shop}: the ledger has ${treasury} atoms and the payee received ${received}`));
    if (payments !== received) problems.push(wrong(`${shop}: the settled payments are ${payments} atoms and the payee received ${received}`));
    if (owed !== 0n) problems.push(wrong(`${shop}: ${owed} atoms are still owed, and nothing is under way`));
    return problems;
  });
}

/**
 * Served on credit, and the authorization lapsed before it could be settled. As in `Payment::is_on_credit`: a delivery in
 * the background that a crash cut off counts as well, since nobody knows how much of it left.
 */
const isLoss = ({ state, delivery, resource }) => state === "failed" &&
  (delivery === "sent" || (delivery === "failed" && resource.includes("/background/")));

function lossesShow({ books, sold }) {
  return ["own", "via"].flatMap((shop) => {
    const problems = [];
    const lost = net(books[shop], "loss", problems, shop);
    const losses = sold.filter((payment) => payment.shop === shop && isLoss(payment));
    const atoms = sum(losses, ({ atoms }) => BigInt(atoms));
    if (lost !== atoms) problems.push(wrong(`${shop}: the ledger has ${lost} atoms of loss, and its failed payments ${atoms}`));
    const revenue = -net(books[shop], "revenue", problems, shop);
    const treasury = net(books[shop], "treasury", problems, shop);
    if (revenue !== treasury + lost) problems.push(wrong(`${shop}: ${revenue} atoms were earned, ${treasury} received and ${lost} lost`));
    for (const payment of losses) {
      if (!payment.resource.includes("/background/")) problems.push(wrong("a loss where nothing is served before it is settled", { payment }));
    }
    return problems;
  });
}

function relayAgrees({ opening, chain, books, settled }) {
  const problems = [];
  const received = chain.usdc.get(chain.payees.via) - opening.usdc.get(chain.payees.via);
  const moved = net(books.facilitator, "payees", problems, "facilitator");
  if (moved !== received) problems.push(wrong(`the facilitator moved ${moved} atoms and the payee received ${received}`));
  const keys = new Set(books.facilitator.payments.filter(({ state }) => state === "settled").map(({ key }) => key));
  const through = settled.filter(({ shop }) => shop === "via");
  for (const payment of through) {
    if (!keys.has(payment.key)) problems.push(wrong("settled by the gateway's ledger, and not by the facilitator's", { payment }));
  }
  if (keys.size !== through.length) problems.push(wrong(`${keys.size} payments are settled by the facilitator, ${through.length} by its gateway`));
  return problems;
}

function transfersAgree({ chain, settled }) {
  const problems = [];
  const nonces = new Map();
  for (const { authorizer, nonce, tx } of chain.used) {
    const name = `${lower(authorizer)}:${lower(nonce)}`;
    if (nonces.has(name)) problems.push(wrong(`the nonce ${name} was used in ${nonces.get(name)} and in ${tx}`));
    nonces.set(name, tx);
  }
  if (chain.used.length !== chain.transfers.length) problems.push(wrong(`${chain.used.length} authorizations and ${chain.transfers.length} transfers`));
  const paid = new Map();
  for (const payment of settled) {
    const name = payment.key.split(":").slice(-2).join(":");
    if (paid.has(name)) problems.push(wrong(`the nonce ${name} is settled twice`, { payment }));
    paid.set(name, payment);
    if (nonces.get(name) !== payment.transaction) problems.push(wrong(`settled in ${payment.transaction}, and the chain has ${nonces.get(name)}`, { payment }));
  }
  for (const [name, tx] of nonces) if (!paid.has(name)) problems.push(wrong(`the transfer in ${tx} is no payment of a gateway`, { nonce: name }));
  return problems;
}

/** Whether a purchase and a payment are the same. */
const twins = (purchase, payment) => purchase.url.endsWith(payment.resource) && lower(purchase.payer) === lower(payment.payer) &&
  purchase.transaction === payment.transaction && purchase.money.atoms === payment.atoms;

function journalsAgree({ settled, bought, purchases, journals }) {
  const problems = [];
  const byPath = new Map(settled.map((payment) => [payment.resource, payment]));
  if (byPath.size !== settled.length) problems.push(wrong("a resource was paid for more than once"));
  for (const purchase of bought) {
    const payment = byPath.get(new URL(purchase.url).pathname);
    if (!payment || !twins(purchase, payment)) problems.push(wrong("settled by the journal, and not by the gateway's ledger", { purchase, payment }));
    if (!purchase.confirmed) problems.push(wrong("settled by the seller's word only", { purchase, payment }));
  }
  if (bought.length !== settled.length) {
    for (const payment of settled) {
      if (!bought.some((purchase) => twins(purchase, payment))) problems.push(wrong("settled by the gateway's ledger, and not by the journal", { payment }));
    }
  }
  for (const purchase of purchases) {
    if (!["settled", "released"].includes(purchase.state)) problems.push(wrong(`a purchase is still ${purchase.state}`, { purchase }));
  }
  if (journals.size === 0) problems.push(wrong("there are no journals"));
  return problems;
}

function budgetsHeld({ journals, opening, chain }) {
  return [...journals].flatMap(([buyer, list]) => {
    const spent = opening.usdc.get(buyer.address) - chain.usdc.get(buyer.address);
    const cap = BigInt(Math.round(Number(buyer.hour) * 1e6));
    const journal = sum(list.filter(({ state }) => state === "settled"), ({ money }) => BigInt(money.atoms));
    const problems = [];
    if (spent > cap) problems.push(wrong(`${buyer.name} spent ${spent} atoms, and may spend ${cap} in an hour`));
    if (spent !== journal) problems.push(wrong(`${buyer.name} lost ${spent} atoms, and its journal says ${journal}`));
    return problems;
  });
}

function signedOnce({ purchases }) {
  const problems = [];
  const byRequest = new Map();
  for (const purchase of purchases) byRequest.set(purchase.url, [...(byRequest.get(purchase.url) ?? []), purchase]);
  for (const list of byRequest.values()) {
    list.sort((a, b) => (a.created < b.created ? -1 : 1));
    list.slice(1).forEach((purchase, i) => {
      const earlier = list[i];
      // What was never signed or shown can be given up at once; what was shown, only once it has lapsed.
      const dead = earlier.state === "released" && (earlier.shown === 0 || earlier.expires <= purchase.created);
      if (!dead) problems.push(wrong(`signed again while ${earlier.id} could still be paid (${earlier.state}, shown ${earlier.shown} times)`, { purchase, earlier }));
    });
  }
  return problems;
}

/** Goods that left in the background and stay unpaid, visible in the ledger: a loss, or cut off as the gateway was killed. */
const isExposure = (payment, order) => order.goods.name === "background" &&
  (isLoss(payment) || (payment.state === "refused" && payment.reason === "interrupted"));

function nothingFree({ sold, orders }) {
  const problems = [];
  const byId = new Map(sold.map((payment) => [payment.payment, payment]));
  const holders = new Map();
  for (const order of orders) {
    if (order.done === "free") problems.push(wrong("answered without a price", { order }));
    if (!order.body) continue;
    const payment = byId.get(order.body.payment);
    if (!payment) problems.push(wrong(`served for the payment ${order.body.payment}, which no ledger knows`, { order }));
    else if (payment.resource !== order.path) problems.push(wrong(`served for the payment of ${payment.resource}`, { order, payment }));
    else if (payment.state !== "settled" && !isExposure(payment, order)) problems.push(wrong(`served, and the payment is ${payment.state} (${payment.reason})`, { order, payment }));
    if (holders.has(order.body.payment)) problems.push(wrong("one payment bought twice", { order, payment }));
    holders.set(order.body.payment, order);
  }
  return problems;
}

function nothingKept({ settled, orders }) {
  const byPath = new Map(orders.map((order) => [order.path, order]));
  return settled.flatMap((payment) => {
    const order = byPath.get(payment.resource);
    if (!order) return [wrong("nobody ordered what was paid for", { payment })];
    if (order.body) return [];
    // What was streamed is used up once it left: whoever was killed while it came in had it.
    const streamed = ["upfront", "background"].includes(order.goods.name) && payment.delivery === "sent";
    return streamed ? [] : [wrong(`charged and not served: delivery ${payment.delivery}, asked again ${order.resumed}`, { order, payment })];
  });
}

function callsAgree({ stage, sold }) {
  const byId = new Map(sold.map((payment) => [payment.payment, payment]));
  const byPayment = new Map();
  const problems = [];
  for (const call of stage.service.calls) {
    const payment = byId.get(call.payment);
    if (!payment) problems.push(wrong(`called for ${call.payment}, which no ledger knows: ${call.path}`));
    else if (payment.resource !== call.path) problems.push(wrong(`${call.path} called for the payment of ${payment.resource}`, { payment }));
    byPayment.set(call.payment, [...(byPayment.get(call.payment) ?? []), call]);
  }
  for (const [id, calls] of byPayment) {
    const payment = byId.get(id);
    if (calls.length > 1 && calls[0].method === "POST") problems.push(wrong(`a POST was made ${calls.length} times`, { payment }));
    if (calls.some(({ key }) => !key || key !== calls[0].key)) problems.push(wrong("the service cannot tell that it is the same order", { payment }));
  }
  return problems;
}

/** Why a wallet may deny: its owner's limits, what it cannot reach, and a seller that took payments and gave nothing. */
const MAY_DENY = new Set(["over_hour_cap", "over_day_cap", "breaker_open"]);

function endsAgree({ orders }) {
  return orders.flatMap((order) => {
    if (!order.done) return [wrong(`never ended; lately ${JSON.stringify(order.last)}`, { order })];
    if (order.done === "denied" && !order.objections.some((code) => MAY_DENY.has(code))) return [wrong(`denied: ${order.objections.join(", ")}`, { order })];
    return ["paid", "denied", "refused"].includes(order.done) ? [] : [wrong(`ended with ${order.done}`, { order })];
  });
}

function gasAgrees({ stage, chain, books }) {
  return Object.entries(stage.relayers).flatMap(([name, { address }]) => {
    const problems = [];
    const { spent, byTx } = chain.gas.get(lower(address));
    if (spent !== chain.wei.get(lower(address))) problems.push(wrong(`${name}: its transactions cost ${spent} wei, and it has ${chain.wei.get(lower(address))} less`));
    const booked = net(books[name], "gas", problems, name, "");
    const paid = new Set(chain.transfers.map(({ tx }) => tx));
    const useful = sum([...byTx].filter(([tx]) => paid.has(tx)), ([, fee]) => fee);
    if (booked !== useful) problems.push(wrong(`${name}: ${booked} wei are booked, and its settlements cost ${useful}`));
    return problems;
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// For people.

export function print({ checks, world }, { counts, orders, stage, seed, struckMs, tookMs }) {
  const { opening, chain, books, settled, bought, sold, purchases } = world;
  const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
  const has = (test) => orders.filter(test).length;
  const change = (address) => chain.usdc.get(address) - opening.usdc.get(address);
  const kills = Object.values(counts).reduce((a, b) => a + b, 0);
  const rows = [
    ["paid by payers, by the token", -sum(stage.buyers, ({ address }) => change(address))],
    ["received by payees, by the token", sum(Object.values(stage.payees), change)],
    ["settled in the gateways' ledgers", sum(settled, ({ atoms }) => BigInt(atoms))],
    ["settled in the buyers' journals", sum(bought, ({ money }) => BigInt(money.atoms))],
  ];
  const through = sum(settled.filter(({ shop }) => shop === "via"), ({ atoms }) => BigInt(atoms));
  const exposed = orders.filter((order) => order.body && sold.some((payment) => payment.payment === order.body.payment && payment.state !== "settled"));
  const useless = [...chain.gas.values()].flatMap(({ byTx }) => [...byTx.keys()]).filter((tx) => !chain.transfers.some((transfer) => transfer.tx === tx));
  const states = (list) => Object.entries(list.reduce((by, { state }) => ({ ...by, [state]: (by[state] ?? 0) + 1 }), {})).map(([state, n]) => `${n} ${state}`).join(", ");
  console.log(`
${kills} kills in ${seconds(struckMs)}, all healed and counted after ${seconds(tookMs)} (seed ${seed})
  killed      gateway that settles itself ${counts.own ?? 0}, gateway through a facilitator ${counts.via ?? 0}, facilitator ${counts.facilitator ?? 0}, wallet ${counts.wallet ?? 0}; line to the node cut ${counts.node ?? 0}
  orders      ${orders.length}: ${has(({ body }) => body)} delivered, ${has(({ done, body }) => done === "refused" && !body)} refused, ${has(({ done }) => done === "denied")} denied by the owner's limits or the breaker
              ${has(({ runs }) => runs > 1)} had to be asked for again, ${has(({ kills, late }) => kills > 0 && !late)} of them since their wallet was killed; ${has(({ late }) => late)} wallets were killed after their last word
  payments    gateways ${states(sold)}; facilitator ${states(books.facilitator.payments)}
  purchases   ${states(purchases)}
  service     asked ${stage.service.calls.length} times
  chain       ${chain.transfers.length} transfers in ${new Set(chain.transfers.map(({ tx }) => tx)).size} transactions, and ${useless.length} transactions that moved nothing`);
  for (const [what, atoms] of rows) console.log(`  ${what.padEnd(36)} ${dollars(atoms).padStart(12)} USDC`);
  console.log(`  ${"of which the facilitator moved".padEnd(36)} ${dollars(through).padStart(12)} USDC`);
  if (exposed.length > 0) {
    const atoms = sum(exposed, ({ goods }) => BigInt(goods.atoms));
    const losses = sold.filter(isLoss);
    console.log(`  ${exposed.length} answers left in the background unpaid, within the seller's exposure: ${dollars(atoms)} USDC, of which ${dollars(sum(losses, (loss) => BigInt(loss.atoms)))} are losses in its books`);
  }
  console.log(checks.every(([, problems]) => problems.length === 0) ? "  All agree to the atom.\n" : "  THEY DO NOT AGREE.\n");
}

/** The story of the payment that a problem is about, from everybody who has something to say of it. */
export async function story({ why, payment, purchase, earlier, order }, stage, events) {
  const path = order?.path ?? payment?.resource ?? (purchase && new URL(purchase.url).pathname);
  console.log(`\nThe first problem: ${why}`);
  for (const [what, value] of Object.entries({ payment, purchase, earlier })) if (value) console.log(`  ${what} ${JSON.stringify(value)}`);
  if (!path) return;
  const mine = events.filter((event) => event.path === path);
  const [from, to] = [mine[0]?.ms ?? 0, mine.at(-1)?.ms ?? 0];
  console.log(`  What happened to ${path}, and who was killed meanwhile:`);
  for (const { ms, who, what, path: of, ...about } of events) {
    const kill = /KILLED|CUT|listens|works/.test(what);
    if (of !== path && !(kill && of === undefined && ms >= from - 500 && ms <= to + 500)) continue;
    const more = Object.entries(about).filter(([, value]) => value).map(([name, value]) => `${name} ${value}`).join(", ");
    console.log(`  ${(ms / 1000).toFixed(3).padStart(9)} s  ${who.padEnd(30)} ${what}${more ? `  (${more})` : ""}`);
  }
  for (const [name, store] of Object.entries(stage.stores)) {
    const { json } = await run(["ledger", "payments", "--json", "--store", store, "--limit", "1000"]);
    for (const found of (json ?? []).filter(({ resource, key }) => resource === path || key === payment?.key || resource.endsWith(path))) {
      const { stdout } = await run(["ledger", "show", found.payment, "--json", "--store", store]);
      console.log(`  ledger of ${name}: ${stdout.trim()}`);
    }
    const log = readFileSync(store.replace(/\.db$/, ".log"), "utf8").split("\n");
    const ids = new Set([payment?.payment].filter(Boolean));
    for (const said of log.filter((text) => [...ids].some((id) => text.includes(id)))) console.log(`  log of ${name}: ${said}`);
  }
}

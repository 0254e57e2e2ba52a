#!/usr/bin/env node
// A settlement whose receipt is late: the client is told `settlement_pending`, nobody is asked to pay again, and the
// payer is debited once. `farthing fetch` ends with the goods, or says that it does not know and how to ask again.

import { asked, books, check, devnet, facilitator, ledgerOf, route, rpc, same, script, seller, show, sign, until, upstream, wallet, within } from "./support.mjs";

const PATIENCE = 'answer_within = "1s"';

/** Resolves `heard` once what is said matches. */
function listener(pattern) {
  let found;
  const heard = new Promise((done) => (found = done));
  return { heard, hear: (text) => pattern.test(text) && found() };
}

async function suite(name, chain, behind, shop) {
  const gateway = await shop.start();
  const url = `${shop.url}/get`;
  const blocks = (on) => rpc(chain.url, "evm_setAutomine", [on]);

  // Whoever signs by hand.
  let payment = await sign(await asked(url));
  let count = await ledgerOf(chain.url, behind);
  await blocks(false);
  const told = await show(url, payment.v2);
  same(`${name}: a late receipt is answered with 503`, told?.status, 503);
  same(`${name}: by its name`, told?.body?.error, "settlement_pending");
  check(`${name}: with the payment's id`, /^pay_/.test(told?.body?.payment ?? ""), told?.body);
  check(`${name}: with when to ask again`, Number(told?.headers?.get("retry-after")) > 0);
  check(`${name}: with the transaction`, /^0x[0-9a-f]{64}$/.test(told?.body?.transaction ?? ""), told?.body);
  check(`${name}: with no price`, !told?.headers?.get("payment-required") && told?.body?.accepts === undefined);
  check(`${name}: without the goods`, told?.body?.goods === undefined, told?.body);
  same(`${name}: nothing moved yet`, (await count()).paid, 0n);
  same(`${name}: asked again, still pending`, (await show(url, payment.v2))?.status, 503);
  await blocks(true);
  const got = await until(`${name}: the goods`, async () => {
    const answer = await show(url, payment.v2);
    return answer?.status === 200 ? answer : undefined;
  });
  check(`${name}: in the end the goods, with a receipt`, got.body?.goods > 0 && got.receipt?.success === true, got.body);
  let done = await count();
  same(`${name}: debited once`, done.paid, payment.atoms);
  same(`${name}: one transfer`, done.transfers, 1);
  same(`${name}: one call of the service`, done.calls, 1);

  // `farthing fetch`, while the receipt comes late: it asks again with the same payment.
  const agent = await wallet(chain.url, shop.url);
  count = await ledgerOf(chain.url, behind);
  await blocks(false);
  const { heard, hear } = listener(/the same payment again/);
  const fetching = agent.fetch([url, "--max", "0.02", "-v"], hear);
  await within(heard, "a second showing");
  await blocks(true);
  const late = await fetching;
  same(`${name}: farthing fetch ends with exit code 0`, late.code, 0);
  check(`${name}: and with the goods`, late.json?.body?.goods > 0, late.stdout + late.stderr);
  check(`${name}: it showed its payment more than once`, late.json?.payment?.shown > 1, late.json?.payment);
  done = await count();
  same(`${name}: debited once`, done.paid, 10_000n);
  same(`${name}: one transfer`, done.transfers, 1);
  same(`${name}: one call of the service`, done.calls, 1);

  // `farthing fetch` with less patience than the chain: it says that it does not know, and how to ask again.
  count = await ledgerOf(chain.url, behind);
  await blocks(false);
  const unknown = await agent.fetch([url, "--max", "0.02", "--max-time", "3"]);
  same(`${name}: out of patience, exit code 5`, unknown.code, 5);
  same(`${name}: it says unknown`, unknown.json?.outcome, "unknown");
  const id = unknown.json?.payment?.id;
  check(`${name}: it says how to ask again`, unknown.json?.messages?.some((line) => line.includes(`--resume ${id}`)), unknown.json?.messages);
  await blocks(true);
  const again = await agent.fetch([url, "--max", "0.02"]);
  same(`${name}: the same command again, exit code 0`, again.code, 0);
  check(`${name}: and with the goods`, again.json?.body?.goods > 0, again.stdout + again.stderr);
  same(`${name}: for the same payment`, again.json?.payment?.id, id);
  done = await count();
  same(`${name}: debited once`, done.paid, 10_000n);
  same(`${name}: one transfer`, done.transfers, 1);
  same(`${name}: one call of the service`, done.calls, 1);
  const history = await agent.wallet("history");
  check(`${name}: the journal has two purchases, both settled`, history.length === 2 && history.every(({ state }) => state === "settled"), history);

  await gateway.stop();
  const { balance, said } = await books(shop.store);
  check(`${name}: the books balance`, balance, said);
}

await script(async () => {
  const chain = await devnet();
  const behind = await upstream();
  const routes = route("GET /get", "$0.01");
  const own = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes, payments: PATIENCE });
  await suite("settling itself", chain, behind, own);
  const settler = await facilitator(chain.url, PATIENCE);
  const remote = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes, payments: 'answer_within = "2s"', facilitator: settler.url });
  await suite("through a facilitator", chain, behind, remote);
});

#!/usr/bin/env node
// Many at once: 20 copies of one payment buy once; one authorization shown in both generations at once buys once; and
// a payment for one route buys nothing on another of the same price.

import { asked, books, check, devnet, facilitator, ledgerOf, route, same, script, seller, show, sign, upstream } from "./support.mjs";

const COPIES = 20;

async function suite(name, chain, shop, behind) {
  const gateway = await shop.start();
  const a = `${shop.url}/a`, b = `${shop.url}/b`;

  const once = await sign(await asked(a));
  let count = await ledgerOf(chain.url, behind);
  const gate = behind.slow();
  const showing = Array.from({ length: COPIES }, () => show(a, once.v2));
  await gate.called;
  gate.release();
  const answers = await Promise.all(showing);
  let done = await count();
  same(`${name}: of ${COPIES} copies, one transfer`, done.transfers, 1);
  same(`${name}: of ${COPIES} copies, one price`, done.paid, once.atoms);
  same(`${name}: of ${COPIES} copies, one call of the service`, done.calls, 1);
  const served = answers.filter((answer) => answer?.status === 200);
  check(`${name}: every copy has the same goods or is told to wait`, answers.every((answer) =>
    (answer?.status === 200 && answer.body.goods === served[0].body.goods) || answer?.status === 409 || answer?.status === 503),
    answers.map((answer) => answer?.status));
  check(`${name}: at least one copy is served`, served.length > 0);

  const both = await sign(await asked(a));
  count = await ledgerOf(chain.url, behind);
  const pair = await Promise.all([show(a, both.v2), show(a, both.v1)]);
  done = await count();
  same(`${name}: one authorization as v1 and v2 at once, one transfer`, done.transfers, 1);
  same(`${name}: one authorization as v1 and v2 at once, one service`, done.calls, 1);
  check(`${name}: both are answered alike, or one waits`, pair.some((answer) => answer?.status === 200) &&
    pair.every((answer) => [200, 409, 503].includes(answer?.status)), pair.map((answer) => [answer?.status, answer?.body]));

  const forA = await sign(await asked(a));
  count = await ledgerOf(chain.url, behind);
  const onB = await show(b, forA.v2);
  done = await count();
  same(`${name}: a v2 payment for /a on /b is refused`, onB?.status, 402);
  same(`${name}: and nothing moved`, done.transfers, 0);
  same(`${name}: and nothing was served`, done.calls, 0);
  same(`${name}: on /a it is still good`, (await show(a, forA.v2))?.status, 200);

  await gateway.stop();
  const { balance, said } = await books(shop.store);
  check(`${name}: the books balance`, balance, said);
}

await script(async () => {
  const chain = await devnet();
  const behind = await upstream();
  const routes = route("GET /a", "$0.01") + route("GET /b", "$0.01");
  await suite("settling itself", chain, await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes }), behind);
  const settler = await facilitator(chain.url);
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes, facilitator: settler.url });
  await suite("through a facilitator", chain, shop, behind);
});

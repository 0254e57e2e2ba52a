#!/usr/bin/env node
// The gateway is killed (SIGKILL) at each step between a claim and its answer, and started again. Nothing may be paid
// twice, nothing served free, and whoever shows the same payment again gets what the rules promise.

import { asked, books, check, devnet, facilitator, held, ledgerOf, route, rpc, same, script, seller, show, sign, until, upstream } from "./support.mjs";

const PRICE = "$0.01";

/** Strikes at `shop`, whose node and facilitator can be held up. */
function striker({ chain, behind, shop, name: suite }) {
  let gateway;

  /** One payment, interrupted at one step. `step` arms a trap, which says when to strike. */
  async function strike(what, { path = "/get", init = {}, step, expect }) {
    const name = `${suite}: ${what}`;
    const url = `${shop.url}${path}`;
    const payment = await sign(await asked(url, init));
    const count = await ledgerOf(chain.url, behind);
    const trap = step();
    const showing = show(url, payment.v2, init);
    await trap.reached;
    // With settlement in the background the answer comes first; else whoever waits has none.
    if (expect.answered) same(`${name}: answered before it is settled`, (await showing)?.status, 200);
    await gateway.kill();
    if (!expect.answered) same(`${name}: the client that waited has no answer`, await showing, undefined);
    await trap.undo?.();
    gateway = await shop.start();
    const again = () => show(url, payment.v2, init);
    const answer = await until(`an answer after ${name}`, async () => {
      const got = await again();
      return got && got.status !== 503 ? got : undefined;
    });
    if (expect.paid) await until(`the settlement of ${name}`, async () => (await count()).transfers > 0);
    const done = await count();
    same(`${name}: shown again`, answer.status, expect.status);
    same(`${name}: paid`, done.paid, expect.paid ? payment.atoms : 0n);
    same(`${name}: earned is paid`, done.earned, done.paid);
    same(`${name}: transfers`, done.transfers, expect.paid ? 1 : 0);
    same(`${name}: calls of the service`, done.calls, expect.calls);
    if (expect.status === 200) check(`${name}: the answer has the goods`, answer.body?.goods > 0, answer.body);
    else check(`${name}: the answer has no goods`, answer.body?.goods === undefined, answer.body);
    const calls = behind.calls.slice(-done.calls);
    if (done.calls > 1) {
      check(`${name}: the service can tell that it is the same order`, calls.every((call) => call.key && call.key === calls[0].key), calls);
    }
    if (expect.status === 200) {
      const third = await again();
      // What is paid upfront is not stored: once delivered, it is used up.
      if (expect.once) same(`${name}: shown once more, used up`, third?.status, 409);
      else same(`${name}: shown once more, the same goods`, third?.body?.goods, answer.body?.goods);
      same(`${name}: shown once more, no other transfer`, (await count()).transfers, 1);
      same(`${name}: shown once more, no other call`, (await count()).calls, expect.calls);
    }
  }

  return {
    strike,
    start: async () => (gateway = await shop.start()),
    kill: async () => {
      await gateway.kill();
      gateway = await shop.start();
    },
    end: async () => {
      await gateway.stop();
      const { balance, said } = await books(shop.store);
      check(`${suite}: after all this the books balance`, balance, said);
    },
  };
}

const at = (place, pattern, options) => () => {
  const caught = place.hold(pattern, options);
  return { reached: caught.caught, undo: caught.release };
};

const served = { status: 200, paid: true, calls: 1 };
const servedTwice = { status: 200, paid: true, calls: 2 };
const usedUp = { status: 409, paid: true, calls: 1 };
const interrupted = { status: 409, paid: false, calls: 1 };

async function settlingItself(chain, behind) {
  const node = await held(chain.url);
  const routes = route("GET /get", PRICE) + route("POST /post", PRICE) + route("GET /upfront", PRICE, 'flow = "upfront"') +
    route("GET /background", PRICE, 'flow = "background"\nexposure = { per_payer = "100000", total = "100000" }');
  const shop = await seller({ rpcUrl: node.url, upstreamUrl: behind.url, routes });
  const { strike, start, kill, end } = striker({ chain, behind, shop, name: "settling itself" });
  const atService = () => {
    const slow = behind.slow();
    return { reached: slow.called, undo: slow.release };
  };
  const atBlock = () => ({
    reached: rpc(chain.url, "evm_setAutomine", [false]).then(() =>
      until("a pending transaction", async () => BigInt((await rpc(chain.url, "txpool_status")).pending) > 0n)),
    undo: () => rpc(chain.url, "evm_setAutomine", [true]),
  });
  const receipts = /eth_getTransactionReceipt|eth_getLogs/;
  await start();

  // Claimed; whether the payer has the money is being asked.
  await strike("killed while the funds are read", { step: at(node, /eth_call/), expect: served });
  // The service works; nothing is stored. Released unsettled: a GET may be called again, a POST may not.
  await strike("killed while the service works", { step: atService, expect: servedTwice });
  await strike("killed while the service works on a POST", {
    path: "/post", init: { method: "POST", body: "{}" }, step: atService, expect: interrupted,
  });
  // The answer is stored. Settled after the restart, and served from the store.
  await strike("killed before the transaction is sent", { step: at(node, /eth_sendRawTransaction/), expect: served });
  await strike("killed when the node has the transaction", { step: at(node, /eth_sendRawTransaction/, { after: true }), expect: served });
  await strike("killed while the block is awaited", { step: atBlock, expect: served });
  // It is in a block, and nobody here knows.
  await strike("killed before the receipt is read", { step: at(node, receipts), expect: served });

  // Upfront: the money is there before the service is asked. A crash leaves an entitlement: shown again, it is free.
  await strike("upfront, killed before the receipt is read", { path: "/upfront", step: at(node, receipts), expect: { ...served, once: true } });
  await strike("upfront, killed while the service works", { path: "/upfront", step: atService, expect: { ...servedTwice, once: true } });

  // In the background: answered already, settled after the restart. What was streamed is not kept.
  await strike("background, killed while the block is awaited", { path: "/background", step: atBlock, expect: { ...usedUp, answered: true } });

  // Everything is answered: a restart changes nothing.
  const url = `${shop.url}/get`;
  const payment = await sign(await asked(url));
  const first = await show(url, payment.v2);
  const count = await ledgerOf(chain.url, behind);
  await kill();
  const replayed = await show(url, payment.v2);
  same("killed after the answer: the same goods again", replayed?.body?.goods, first?.body?.goods);
  same("killed after the answer: no other transfer", (await count()).transfers, 0);
  same("killed after the answer: no other call", (await count()).calls, 0);
  await end();
}

async function throughAFacilitator(chain, behind) {
  const settler = await held((await facilitator(chain.url)).url);
  const routes = route("GET /get", PRICE) + route("POST /post", PRICE);
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes, facilitator: settler.url });
  const { strike, start, end } = striker({ chain, behind, shop, name: "through a facilitator" });
  await start();
  await strike("killed while it verifies", { step: at(settler, /\/verify/), expect: served });
  await strike("killed before it is asked to settle", { step: at(settler, /\/settle/), expect: served });
  await strike("killed when it has settled", { step: at(settler, /\/settle/, { after: true }), expect: served });
  await strike("killed when a POST is settled", {
    path: "/post", init: { method: "POST", body: "{}" }, step: at(settler, /\/settle/, { after: true }), expect: served,
  });
  await end();
}

await script(async () => {
  const chain = await devnet();
  const behind = await upstream();
  await settlingItself(chain, behind);
  await throughAFacilitator(chain, behind);
});

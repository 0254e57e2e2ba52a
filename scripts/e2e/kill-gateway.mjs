#!/usr/bin/env node
// The gateway is killed (SIGKILL) at each step between a claim and its answer, and started again. Nothing may be paid
// twice, nothing served free, and whoever shows the same payment again gets what the rules promise.

import { asked, books, check, devnet, heldNode, ledgerOf, route, rpc, same, script, seller, show, sign, until, upstream } from "./support.mjs";

const PRICE = "$0.01";

await script(async () => {
  const chain = await devnet();
  const node = await heldNode(chain.url);
  const behind = await upstream();
  const routes = route("GET /get", PRICE) + route("POST /post", PRICE) + route("GET /upfront", PRICE, 'flow = "upfront"');
  const shop = await seller({ rpcUrl: node.url, upstreamUrl: behind.url, routes });
  let gateway = await shop.start();

  const restart = async () => {
    await gateway.kill();
    gateway = await shop.start();
  };

  /** One payment, interrupted at one step. `step` arms a trap, which says when to strike. */
  async function strike(name, { path = "/get", init = {}, step, expect }) {
    const url = `${shop.url}${path}`;
    const payment = await sign(await asked(url, init));
    const count = await ledgerOf(chain.url, behind);
    const trap = step();
    const showing = show(url, payment.v2, init);
    await trap.reached;
    await gateway.kill();
    same(`${name}: the client that waited has no answer`, await showing, undefined);
    await trap.undo?.();
    gateway = await shop.start();
    const again = () => show(url, payment.v2, init);
    const answer = await until(`an answer after ${name}`, async () => {
      const got = await again();
      return got && got.status !== 503 ? got : undefined;
    });
    const done = await count();
    same(`${name}: shown again`, answer.status, expect.status);
    same(`${name}: paid`, done.paid, expect.paid ? payment.atoms : 0n);
    same(`${name}: earned is paid`, done.earned, done.paid);
    same(`${name}: transfers`, done.transfers, expect.paid ? 1 : 0);
    same(`${name}: calls of the service`, done.calls, expect.calls);
    if (expect.paid) check(`${name}: the answer has the goods and a receipt`, answer.body?.goods > 0 && answer.receipt?.success === true, answer.body);
    else check(`${name}: without payment no goods`, answer.body?.goods === undefined, answer.body);
    const calls = behind.calls.slice(-done.calls);
    if (done.calls > 1) {
      check(`${name}: the service can tell that it is the same order`, calls.every((call) => call.key && call.key === calls[0].key), calls);
    }
    if (expect.paid) {
      const third = await again();
      same(`${name}: shown once more, the same goods`, third?.body?.goods, answer.body?.goods);
      same(`${name}: shown once more, no other transfer`, (await count()).transfers, 1);
      same(`${name}: shown once more, no other call`, (await count()).calls, expect.calls);
    }
  }

  const atNode = (pattern, options) => () => {
    const held = node.hold(pattern, options);
    return { reached: held.caught, undo: held.release };
  };
  const atService = () => {
    const slow = behind.slow();
    return { reached: slow.called, undo: slow.release };
  };

  // Claimed; whether the payer has the money is being asked.
  await strike("killed while the funds are read", { step: atNode(/eth_call/), expect: { status: 200, paid: true, calls: 1 } });
  // The service works; nothing is stored. Released unsettled: a GET may be called again, a POST may not.
  await strike("killed while the service works", { step: atService, expect: { status: 200, paid: true, calls: 2 } });
  await strike("killed while the service works on a POST", {
    path: "/post", init: { method: "POST", body: "{}" }, step: atService, expect: { status: 409, paid: false, calls: 1 },
  });
  // The answer is stored. Settled after the restart, and served from the store.
  await strike("killed before the transaction is sent", { step: atNode(/eth_sendRawTransaction/), expect: { status: 200, paid: true, calls: 1 } });
  await strike("killed when the node has the transaction", { step: atNode(/eth_sendRawTransaction/, { after: true }), expect: { status: 200, paid: true, calls: 1 } });
  // The transaction waits for its block.
  await rpc(chain.url, "evm_setAutomine", [false]);
  await strike("killed while the block is awaited", {
    step: () => ({
      reached: until("a pending transaction", async () => BigInt((await rpc(chain.url, "txpool_status")).pending) > 0n),
      undo: () => rpc(chain.url, "evm_setAutomine", [true]),
    }),
    expect: { status: 200, paid: true, calls: 1 },
  });
  // It is in a block, and nobody here knows.
  await strike("killed before the receipt is read", { step: atNode(/eth_getTransactionReceipt|eth_getLogs/), expect: { status: 200, paid: true, calls: 1 } });

  // Upfront: the money is there before the service is asked. A crash leaves an entitlement: shown again, it is free.
  await strike("upfront, killed before the receipt is read", {
    path: "/upfront", step: atNode(/eth_getTransactionReceipt|eth_getLogs/), expect: { status: 200, paid: true, calls: 1 },
  });
  await strike("upfront, killed while the service works", { path: "/upfront", step: atService, expect: { status: 200, paid: true, calls: 2 } });

  // Everything is answered: a restart changes nothing.
  const url = `${shop.url}/get`;
  const payment = await sign(await asked(url));
  const first = await show(url, payment.v2);
  const count = await ledgerOf(chain.url, behind);
  await restart();
  const replayed = await show(url, payment.v2);
  same("killed after the answer: the same goods again", replayed?.body?.goods, first?.body?.goods);
  same("killed after the answer: no other transfer", (await count()).transfers, 0);
  same("killed after the answer: no other call", (await count()).calls, 0);

  await gateway.stop();
  const { balance, said } = await books(shop.store);
  check("after all this the books balance", balance, said);
});

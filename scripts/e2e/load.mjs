#!/usr/bin/env node
// The load generator against our own facilitator and gateway: every payment is used once, what it counts as good is what
// the chain moved, and it spends nothing where it was not told to.

import { PAYEE, check, devnet, facilitator, route, run, same, script, seller, transfersFrom, upstream, usdc } from "./support.mjs";

const ATOMS = 1_000n;

async function load(...words) {
  const done = await run(["load", ...words]);
  return { ...done, report: done.json?.report };
}

await script(async () => {
  const chain = await devnet();
  const settler = await facilitator(chain.url);
  const behind = await upstream();
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes: route("GET /a", "$0.001") });
  await shop.start();
  const fund = ["--fund", chain.url, "--payers", "5"];
  const rate = ["--rate", "20", "--seconds", "1", "--arrivals", "constant"];

  const unfunded = await load("verify", settler.url, ...rate, "--seed", "nobody gave us anything");
  same("payers without tokens: nothing is good", unfunded.report.good, 0);
  same("payers without tokens: the exit code says so", unfunded.code, 3);
  same("payers without tokens: counted by its code", unfunded.report.wrong.invalid_exact_evm_insufficient_balance, 20);

  const verified = await load("verify", settler.url, ...fund, ...rate);
  same("verify: all are good", verified.report.good, 20);
  check("verify: latencies in order", verified.report.p50_ms > 0 && verified.report.p50_ms <= verified.report.p99_ms, verified.report);
  same("verify: said to be signed before the clock starts", verified.json.signed, "before the clock starts");
  const old = await load("verify", settler.url, ...fund, ...rate, "--x402", "1");
  same("verify, version 1: all are good", old.report.good, 20);

  const payTo = "0x00000000000000000000000000000000000000a1";
  const settled = await load("settle", settler.url, ...fund, ...rate, "--pay-to", payTo, "--atoms", String(ATOMS));
  same("settle: all are good", settled.report.good, 20);
  same("settle: the payee has what was counted", await usdc(chain.url, payTo), 20n * ATOMS);

  for (const more of [[], ["--ask-each"]]) {
    const [before, calls] = [await usdc(chain.url, PAYEE), behind.calls.length];
    const paid = await load("paid", `${shop.url}/a`, ...fund, ...rate, ...more);
    const what = ["paid", ...more].join(" ");
    same(`${what}: all are good`, paid.report?.good, 20);
    same(`${what}: the payee has what was counted`, (await usdc(chain.url, PAYEE)) - before, 20n * ATOMS);
    same(`${what}: the service was called as often`, behind.calls.length - calls, 20);
  }

  const found = await load("verify", settler.url, ...fund, "--find-saturation", "--p99", "0.000001", "--rate", "4", "--seconds", "0.3");
  same("a limit that nothing keeps: no rate is found", found.json.saturation.rate, 0);
  check("a limit that nothing keeps: every step says why", found.json.saturation.steps.every(({ kept_up, why }) => !kept_up && why), found.json.saturation.steps);

  const listed = await run(["load", "payers", "--payers", "5"]);
  const payers = listed.stdout.trim().split("\n");
  same("payers are printed", payers.length, 5);
  same("and they are those who paid", (await Promise.all(payers.map((payer) => transfersFrom(chain.url, payer)))).reduce((a, b) => a + b), 60);

  const remote = await load("verify", "https://facilitator.example.com", ...rate);
  same("somebody else's host: refused", remote.code, 2);
  const money = await load("verify", settler.url, ...rate, "--network", "base");
  same("a network of worth: refused", money.code, 2);
});

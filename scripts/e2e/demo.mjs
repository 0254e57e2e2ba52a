#!/usr/bin/env node
// The demonstration, as a stranger runs it: its exit code, its books, its refusals, and how long it took.

import { check, devnet, held, rpc, run, same, script, USDC } from "./support.mjs";

const LIMIT_MS = 60_000;

await script(async () => {
  const { code, json, stdout, stderr } = await run(["demo", "--json"]);
  same("the demonstration ends with exit code 0", code, 0);
  check("it says so in JSON", json !== undefined, stdout + stderr);
  if (!json) return;
  check("the books reconcile", json.reconciles === true && json.summary.differences.length === 0, json.summary.differences);
  check("something was bought", json.summary.payments >= 3, json.summary.payments);
  const moved = (key) => json.summary.lines.reduce((sum, line) => sum + BigInt(line[key]), 0n);
  same("what is sent is received", moved("sent"), moved("received"));
  same("no atom is made or lost", moved("balance_before"), moved("balance_after"));
  same("the car's purchases by the watt-hour took two transactions", json.summary.transactions.volt, 2);
  check("every refusal held", json.refusals.length >= 6 && json.refusals.every(({ held }) => held), json.refusals);
  check(`it takes less than ${LIMIT_MS / 1000} s`, json.took_ms < LIMIT_MS, json.took_ms);

  const shown = await run(["demo", "--story", "hire"]);
  same("one story alone ends with exit code 0", shown.code, 0);
  check("piped, it is plain text", !shown.stdout.includes("\u001b"), shown.stdout);
  check("it shows what was paid", /0x[0-9a-f]{4}/.test(shown.stdout), shown.stdout);

  // A summary that cannot fail proves nothing: while the story runs, somebody slips a seller one atom.
  const chain = await devnet();
  const node = await held(chain.url);
  const { caught, release } = node.hold(/eth_sendRawTransaction/);
  const cheated = run(["demo", "--json", "--story", "weather", "--rpc", node.url]);
  await caught;
  const [stranger, nimbus] = (await rpc(chain.url, "eth_accounts")).filter((_, index) => index === 12 || index === 5).reverse();
  const data = `0xa9059cbb${nimbus.slice(2).toLowerCase().padStart(64, "0")}${"1".padStart(64, "0")}`;
  await rpc(chain.url, "eth_sendTransaction", [{ from: stranger, to: USDC, data }]);
  release();
  const found = await cheated;
  same("one atom too many ends with exit code 1", found.code, 1);
  check("and is found", found.json?.reconciles === false && found.json.summary.differences.some((line) => line.startsWith("nimbus:")), found.stdout);

  const absent = await run(["demo", "--rpc", "http://127.0.0.1:1"]);
  check("without a chain it says what is missing", absent.code !== 0 && absent.stderr.includes("127.0.0.1:1"), absent.stderr);
});

#!/usr/bin/env node
// `farthing demo --kill`, as a stranger runs it: each kill cost once and brought the goods, the books agree, and where
// they do not, it says so.

import { check, devnet, held, rpc, run, same, script, USDC } from "./support.mjs";

const LIMIT_MS = 60_000;
const PRICE = 2_500n;
const WHO = { claim: "gateway", broadcast: "gateway", buyer: "buyer" };

function checkKill({ name, held, problems, purchase, payments, transaction, shown, debited, timeline }) {
  check(`${name}: it held`, held, problems);
  same(`${name}: the payer was debited once`, BigInt(debited), PRICE);
  check(`${name}: one payment was shown more than once`, shown > 1 && /^buy_/.test(purchase), [purchase, shown]);
  check(`${name}: it names payment and transaction`, payments.length > 0 && payments.every((id) => /^pay_/.test(id)) && /^0x[0-9a-f]{64}$/.test(transaction));
  const killed = timeline.findIndex(({ who }) => who === "kill");
  const at = (who, pattern, from = 0) => timeline.findIndex((moment, i) => i >= from && moment.who === who && pattern.test(moment.what));
  check(`${name}: somebody was killed`, killed > 0 && timeline[killed].what.endsWith(`the ${WHO[name]}`), timeline);
  check(`${name}: after the payment was claimed`, at("gateway", /claimed/) >= 0 && at("gateway", /claimed/) < killed, timeline);
  check(`${name}: and before anybody knew that it was settled`, at("gateway", /settled/) > killed, timeline);
  check(`${name}: the goods came after it`, at("buyer", /has its goods/) > killed, timeline);
  check(`${name}: the times do not go back`, timeline.every(({ ms }, i) => i === 0 || ms >= timeline[i - 1].ms), timeline);
}

await script(async () => {
  const { code, json, stdout, stderr } = await run(["demo", "--kill", "--json"]);
  same("the show ends with exit code 0", code, 0);
  check("it says so in JSON", json !== undefined, stdout + stderr);
  if (!json) return;
  check("the books reconcile", json.reconciles === true && json.summary.differences.length === 0, json.summary.differences);
  same("somebody was killed at each moment", json.kills.map(({ name }) => name).join(), Object.keys(WHO).join());
  json.kills.forEach(checkKill);
  same("each kill was of one payment", json.summary.payments, json.kills.length);
  same("and each cost once", BigInt(json.summary.moved), PRICE * BigInt(json.kills.length));
  const transactions = json.kills.map(({ transaction }) => transaction);
  same("by a transaction of its own", new Set(transactions).size, transactions.length);
  check(`it takes less than ${LIMIT_MS / 1000} s`, json.took_ms < LIMIT_MS, json.took_ms);

  const shown = await run(["demo", "--kill"]);
  same("for people it ends with exit code 0", shown.code, 0);
  check("piped, it is plain text", !shown.stdout.includes("\u001b"), shown.stdout);
  check("it shows the kill", /SIGKILL +to process \d+, the gateway/.test(shown.stdout), shown.stdout);
  check("and that the books agree", shown.stdout.includes("agree to the atom"), shown.stdout);

  // A show that cannot fail proves nothing: while it runs, somebody slips the seller one atom.
  const chain = await devnet();
  const node = await held(chain.url);
  const { caught, release } = node.hold(/eth_sendRawTransaction/);
  const cheated = run(["demo", "--kill", "--json", "--rpc", node.url]);
  await caught;
  const accounts = await rpc(chain.url, "eth_accounts");
  const data = `0xa9059cbb${accounts[5].slice(2).toLowerCase().padStart(64, "0")}${"1".padStart(64, "0")}`;
  await rpc(chain.url, "eth_sendTransaction", [{ from: accounts[12], to: USDC, data }]);
  release();
  const found = await cheated;
  same("one atom too many ends with exit code 1", found.code, 1);
  check("and is found", found.json?.reconciles === false && found.json.summary.differences.some((line) => line.startsWith("seller:")), found.stdout);

  const both = await run(["demo", "--kill", "--story", "hire"]);
  same("a story and a kill at once are a wrong call", both.code, 2);
});

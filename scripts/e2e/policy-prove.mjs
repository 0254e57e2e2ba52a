#!/usr/bin/env node
// `farthing policy prove` with Cedar's published program and cvc5: one narrow change of a policy after the other is proved to
// allow nothing more, and refuted the other way round by a payment that our own decisions confirm; children and parents in a
// tree of agents; what is not looked into; and what is said where a program is missing, is another, or takes too long.
//
// FARTHING_CEDAR is Cedar's program, built with --features analyze; scripts/test installs it where it is looked for.

import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { cacheDir } from "../../interop/support/paths.mjs";
import { check, run, same, scratch, script } from "./support.mjs";

const cedar = process.env.FARTHING_CEDAR ?? join(cacheDir(), "cedar/bin/cedar");
const PAYEE = "0x0101010101010101010101010101010101010101";
const OTHER = "0x0202020202020202020202020202020202020202";
const USDC = "eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913";
const EURC = "eip155:8453/erc20:0x60a3e35cc302bfa44cb288bc5a4f316fdb1adb42";

/** A policy with one part replaced. JSON is YAML. */
const policy = (change = {}) => ({
  version: 1,
  budgets: { acme: { per_payment: "$1", rolling: { "24h": "$5" }, lifetime: "$500" } },
  allow: [{ name: "shops", hosts: ["*"] }],
  ...change,
});
const allow = (rule) => policy({ allow: [{ name: "shops", hosts: ["*"], ...rule }] });
const deny = (rule) => policy({ deny: [{ name: "not", ...rule }] });
const approve = (rule) => policy({ approve: [{ name: "dear", ...rule }] });
const budget = (limits) => policy({ budgets: { acme: { lifetime: "$500", ...limits } } });
const huge = (dollars) => policy({ budgets: { acme: { per_payment: `$${dollars}` } } });
const follow = (change) => budget({
  rolling: { "24h": { follow: "spend", last: "10d", percent: 150, floor: "$1", ceiling: "$5", ...change } },
});

/** What differs, the narrower one, and the wider one; and what is said of the wider one and the narrower one, if not the usual. */
const dimensions = [
  ["the amount of one payment", budget({ per_payment: "$1" }), budget({ per_payment: "$1.000001" })],
  ["an amount beyond 64 bits", huge("20000000000"), huge("20000000001.000000000000000001")],
  ["less than any token has atoms for", huge("20000000000"), huge("20000000000.000000000000000001"), "unknown"],
  ["a window that rolls", budget({ rolling: { "24h": "$5" } }), budget({ rolling: { "24h": "$5.5" } })],
  ["a window more", budget({ rolling: { "1h": "$2", "24h": "$5" } }), budget({ rolling: { "24h": "$5" } })],
  ["a longer window", budget({ rolling: { "24h": "$5" } }), budget({ rolling: { "1h": "$5" } })],
  ["a window of the calendar", budget({ rolling: { "24h": "$5" } }), budget({ calendar: { day: "$5" } })],
  ["all time", budget({ lifetime: "$499" }), budget({ lifetime: "$500" })],
  ["a limit for one host", budget({ per_host: { "1h": "$1" } }), budget({ per_host: { "1h": "$2" } })],
  ["a limit for one payee", budget({ per_payee: { "1h": "$1" } }), budget({})],
  ["a limit for one tool", budget({ per_tool: { "1h": "$1" } }), budget({ per_tool: { "1h": "$3" } })],
  ["less in a shorter window", budget({ per_tool: { "1h": "$1" } }), budget({ per_tool: { "2h": "$3" } }), "refuted", "refuted"],
  ["a number of payments", budget({ payments: { "1m": 3 } }), budget({ payments: { "1m": 4 } })],
  ["atoms of a token that is a dollar", budget({ per_payment: { [USDC]: "999999" } }), budget({ per_payment: { [USDC]: "1000000" } })],
  ["dollars against atoms", budget({ per_payment: "$0.5" }), budget({ per_payment: { [USDC]: "500000" } })],
  ["another token", policy(), policy({ budgets: { acme: { per_payment: { [EURC]: "1000000" }, lifetime: "$500" } } })],
  ["what a limit follows", follow({}), follow({ percent: 200 })],
  ["the ceiling of what follows", follow({ ceiling: "$4" }), follow({})],
  ["a host", allow({ hosts: ["api.example"] }), allow({ hosts: ["api.example", "b.example"] })],
  ["a port", allow({ hosts: ["api.example:8443"] }), allow({ hosts: ["api.example"] })],
  ["hosts below a name", allow({ hosts: ["*.a.example"] }), allow({ hosts: ["*.example"] })],
  ["a path", allow({ paths: ["/v1/now"] }), allow({ paths: ["/v1/*"] })],
  ["a method", allow({ methods: ["GET"] }), allow({ methods: ["GET", "POST"] })],
  ["a tool", allow({ tools: ["forecast"] }), allow({})],
  ["a network", allow({ networks: ["eip155:8453"] }), allow({ networks: ["eip155:8453", "eip155:84532"] })],
  ["an asset", allow({ assets: [USDC] }), allow({ networks: ["eip155:8453", "eip155:84532"] })],
  ["a scheme", allow({ schemes: ["exact"] }), allow({ schemes: ["exact", "upto"] })],
  ["a payee", allow({ pay_to: [PAYEE] }), allow({ pay_to: [PAYEE, OTHER] })],
  ["an agent", allow({ agents: ["acme/a"] }), allow({ agents: ["acme"] })],
  ["hours", allow({ hours: { days: ["mon"], from: "08:00", to: "12:00", offset: "+01:00" } }), allow({ hours: { days: ["mon", "tue"], from: "07:00", to: "11:01" } })],
  ["the most of a rule", allow({ max: "$0.25" }), allow({ max: "$0.30" })],
  ["how long a payment is valid", allow({ max_validity: "30s" }), allow({ max_validity: "31s" })],
  ["private addresses", allow({}), allow({ private: true })],
  ["TLS", allow({}), allow({ plaintext: true })],
  ["a rule that denies", deny({ over: "$0.4", hosts: ["api.example"] }), deny({ over: "$0.5", hosts: ["api.example"] })],
  ["a path that is denied", deny({ paths: ["/v1/*"] }), deny({ paths: ["/v1/secret/*"] })],
  ["an expression", deny({ when: "host == 'x.example'" }), policy(), "unknown"],
  ["how many people", approve({ over: "$0.3", quorum: 2 }), approve({ over: "$0.3", quorum: 1 })],
  ["asking at all", approve({ over: "$0.3" }), policy()],
  ["a newcomer", approve({}), approve({ new_payee: true })],
  ["refusals", policy({ breaker: { refusals: 3, within: "20m" } }), policy({ breaker: { refusals: 3, within: "10m" } })],
  ["prices that jump", policy({ breaker: { price_jump: 3 } }), policy({ breaker: { price_jump: 10 } })],
  ["payments that come fast", policy({ breaker: { velocity_jump: 3 } }), policy({ breaker: { velocity_jump: 10 } })],
  ["secrets in an address", policy(), policy({ secrets_in_url: "allow" })],
  ["names from others", policy({ taint: "deny" }), policy({ taint: "off" })],
  ["a screener", policy({ screen: { command: ["/bin/ask"] } }), policy()],
  ["what a screener leaves to people", policy({ screen: { command: ["/bin/ask"], quorum: 2 } }), policy({ screen: { command: ["/bin/ask"] } })],
];

await script(async () => {
  check("Cedar's program is there (scripts/test installs it)", existsSync(cedar), cedar);
  const dir = scratch();
  let files = 0;
  const file = (value) => {
    const path = join(dir, `${(files += 1)}.yaml`);
    writeFileSync(path, JSON.stringify(value));
    return path;
  };
  const env = { CVC5: process.env.CVC5 ?? "cvc5" };
  const prove = (words, more = {}) => run(["policy", "prove", ...words, "--cedar", cedar, "--json"], { ...env, ...more });
  const compared = async (narrow, wide) => {
    const { code, json, stderr } = await prove([file(narrow), "--against", file(wide)]);
    // Besides, children are compared with their parents.
    const verdicts = json?.claims?.filter((claim) => claim.code.startsWith("allows_no_more")).map((claim) => claim.verdict) ?? [];
    const verdict = ["refuted", "unknown", "proved"].find((one) => verdicts.includes(one));
    check("the exit code says so", code === { proved: 0, refuted: 5, unknown: 6 }[json?.verdict], `${code} ${stderr}`);
    return { verdict, json: json ?? {}, stderr };
  };

  for (const [what, narrow, wide, back = "refuted", forth = "proved"] of dimensions) {
    const down = await compared(narrow, wide);
    check(`${what}: the narrower one is ${forth}`, down.verdict === forth, JSON.stringify(down));
    const up = await compared(wide, narrow);
    check(`${what}: the wider one is ${back}`, up.verdict === back, JSON.stringify(up));
    for (const claim of up.json.claims?.filter((claim) => claim.verdict === "refuted") ?? []) {
      const { allowed, denied } = claim.counterexample;
      check(`${what}: it is a payment that one allows and the other does not`, allowed.length > 0 && denied.length > 0, claim);
    }
  }
  const itself = await compared(approve({ when: "amount > 5 * amount" }), approve({ when: "amount > 5 * amount" }));
  same("a policy with an expression allows no more than itself", itself.json.verdict, "proved");
  check("and the expression is not looked into", itself.json.not_looked_into.some((part) => part.includes("amount > 5")), itself.json);

  const screened = (...command) => policy({ screen: { command } });
  const others = await compared(screened("/bin/ask", "--deny a"), screened("/bin/ask", "--deny", "a"));
  check("what another program says is another thing", others.verdict !== "proved", others.json);

  // Children and parents.
  const tree = (change = {}) => policy({
    budgets: { acme: { rolling: { "24h": "$5" } }, "acme/team": { rolling: { "24h": "$4" } }, "acme/team/scout": { per_payment: "$0.5" } },
    ...change,
  });
  const narrower = await prove([file(tree())]);
  same("every child of a tree is within its parent", narrower.json?.verdict, "proved");
  same("which is said of each of them", narrower.json.claims.filter((claim) => claim.code === "child_within_parent").length, 2);
  const own = await prove([file(tree({ allow: [{ hosts: ["a.example"] }, { hosts: ["b.example"], agents: ["acme/team/scout"] }] }))]);
  const wide = own.json.claims.find((claim) => claim.verdict === "refuted");
  check("a rule for the child alone is wider", own.code === 5 && wide.claim === "acme/team/scout may pay nothing that acme/team may not", own.json);
  const { url, agent, instead, denied } = wide.counterexample;
  check("by a payment of the child's at its own host", url.startsWith("https://b.example") && agent === "acme/team/scout" && instead === "acme/team", wide);
  check("which its parent is denied", denied.some((fact) => fact.code === "host_not_allowed" || fact.code === "not_allowed"), denied);
  const counted = await prove([file(policy({ budgets: { acme: { rolling: { "24h": "$5" } }, "acme/euro": { per_payment: { [EURC]: "1000000" } } } }))]);
  const token = counted.json.claims.find((claim) => claim.verdict === "refuted")?.counterexample;
  check("a child with a token that its parent has no limit for is wider", token?.asset === EURC && token.denied[0].code === "asset_not_allowed", counted.json);
  const one = await prove([file(tree()), "--agent", "acme/team/scout/new"]);
  check("an agent that is not named yet", one.code === 0 && one.json.claims[1].claim === "acme/team/scout/new may pay nothing that acme/team/scout may not", one);
  const nobody = await prove([file(tree()), "--agent", "other"]);
  check("one that nobody is above is an error", nobody.code === 2 && nobody.stderr.includes("nobody above other"), nobody.stderr);

  const alone = await prove([file(policy())]);
  check("nothing to compare is an error", alone.code === 2 && alone.stderr.includes("--against"), alone.stderr);

  // Files only, for which nothing is needed.
  const out = join(dir, "out");
  const written = await run(["policy", "prove", file(tree()), "--against", file(policy()), "--export", out, "--cedar", "/nowhere", "--json"], { CVC5: "/nowhere" });
  same("files are written without any solver", written.code, 0);
  check("for each question", readdirSync(out).sort().join() === "against,agent-acme+team,agent-acme+team+scout,policy", readdirSync(out));
  check("in Cedar's language", readFileSync(join(out, "against/unasked/narrower.cedar"), "utf8").includes("permit (principal, action == Action::\"pay\", resource)"));

  // Programs that are not there, are others, or take too long.
  const words = [file(policy()), "--against", file(policy())];
  const bare = await run(["policy", "prove", ...words, "--cedar", "/nowhere/cedar", "--cvc5", "/nowhere/cvc5", "--json"]);
  check("both are missing", bare.code === 7 && bare.json.code === "solver_missing" && bare.json.missing.length === 2, bare);
  check("and how to install them is said", bare.stderr.includes("cargo install cedar-policy-cli --locked --features analyze") && bare.stderr.includes("apt install cvc5"), bare.stderr);
  same("nothing is proved then", bare.json.verdict, "unknown");
  const lone = await prove(words, { CVC5: "/nowhere/cvc5" });
  check("one is missing", lone.code === 7 && lone.json.missing.map((one) => one.program).join() === "cvc5", lone);
  const bin = join(dir, "bin");
  mkdirSync(bin);
  const stub = (name, body) => {
    writeFileSync(join(bin, name), `#!/bin/sh\ncase "$*" in *--version*|*--help*) echo stub; exit 0;; esac\n${body}\n`);
    chmodSync(join(bin, name), 0o755);
    return join(bin, name);
  };
  const slow = Date.now();
  const late = await prove([...words, "--timeout", "1"], { CVC5: stub("slow", "sleep 300") });
  check("a solver that takes too long proves nothing", late.code === 6 && late.json.claims.some((claim) => claim.reason?.includes("more than 1 s")), late);
  check("and is not waited for", Date.now() - slow < 30_000, Date.now() - slow);
  for (const [what, body] of [
    ["fails with the right words", "echo '✓ Policy set 1 implies policy set 2: VERIFIED'; exit 1"],
    ["says something like it", "echo '✓ Policy set 1 implies policy set 2: VERIFIED or so'"],
    ["says nothing", "exit 0"],
    ["says far too much", "yes '✓ Policy set 1 implies policy set 2: VERIFIED' | head -c 3000000"],
    ["has a counterexample of its own", "echo '✗ Policy set 1 implies policy set 2: DOES NOT HOLD'; echo 'context: {usd: 1}'"],
    ["has one that cannot be read", "echo '✗ Policy set 1 implies policy set 2: DOES NOT HOLD'; echo 'context: {usd: [1]}'"],
  ]) {
    const odd = await run(["policy", "prove", ...words, "--cedar", stub("odd", body), "--json"], env);
    check(`a program that ${what} proves and refutes nothing`, odd.code === 6 && odd.json.claims.every((claim) => claim.verdict === "unknown"), odd);
  }
});

// Tests of the escrow and of the vault, on a real EVM with Circle's USDC and Uniswap's Permit2.
//
//   node contracts/test.mjs                    all of it
//   node contracts/test.mjs --gas              writes snapshots/ anew
//   node contracts/test.mjs -- ARGUMENTS       gives forge other arguments, such as --match-test settle -vvvv
//
// Every leaf of spec/**/*.tree names the test that shows it: a leaf without a passing test fails, and so does a test that no
// leaf names. `npm ci` here and in ../interop comes first.
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { writeFixtures } from "./scripts/fixtures.mjs";
import { forgeBin, run } from "./scripts/forge.mjs";

const here = dirname(fileURLToPath(import.meta.url));
function forge(words, options = {}) {
  return spawnSync(forgeBin(), ["test", ...words], { cwd: here, encoding: "utf8", maxBuffer: 1 << 28, ...options });
}

/** Where each contract's figures are told. */
const references = { PaymentChannelEscrow: "channels-contract.md", AllowanceVault: "vault.md" };

/** Test names by leaf: `└── it … [test_name]`. */
function leaves() {
  const named = new Map();
  const dir = join(here, "spec");
  for (const file of readdirSync(dir, { recursive: true }).filter((name) => name.endsWith(".tree")).sort()) {
    const lines = readFileSync(join(dir, file), "utf8").trimEnd().split("\n");
    lines.forEach((line, i) => {
      const depth = (text) => text?.search(/[^│├└─ ]/) ?? -1;
      const test = line.match(/\[(test\w+)\]$/)?.[1];
      const isLeaf = i > 0 && depth(lines[i + 1]) <= depth(line);
      if (isLeaf && !test) throw new Error(`${file}:${i + 1}: a leaf names no test`);
      if (!test) return;
      if (named.has(test)) throw new Error(`${file}:${i + 1}: ${test} is named twice`);
      named.set(test, `${file}:${i + 1}`);
    });
  }
  return named;
}

/** Where the gas of a function is not what `snapshots/` says. Forge compares only in a run that reports no JSON. */
function gasDifferences() {
  const { status, stdout, stderr } = forge(["--match-contract", "GasTest"]);
  if (status === 0) return [];
  return [`${stdout}${stderr}\nthe gas of a function has changed; if so it shall be: node contracts/test.mjs --gas`];
}

/** What docs/reference says of a contract's deployment and gas, and should not. */
function staleDocs() {
  const read = (path) => readFileSync(join(here, path), "utf8");
  return Object.entries(references).flatMap(([name, page]) => {
    const docs = read(`../docs/reference/${page}`);
    const { address, runtimeCodeHash } = JSON.parse(read(`artifacts/${name}.json`)).deployment;
    const gas = Object.values(JSON.parse(read(`snapshots/${name}.json`)));
    const wanted = [address, runtimeCodeHash, ...gas.map((figure) => ` ${Number(figure).toLocaleString("en-US")} |`)];
    return wanted
      .filter((text) => text && !docs.includes(text))
      .map((text) => `docs/reference/${page} does not say ${text}`);
  });
}

function report({ status: exit, stdout, stderr }) {
  let suites;
  try {
    suites = JSON.parse(stdout);
  } catch {
    throw new Error(`forge did not report:\n${stdout}${stderr}`);
  }
  const named = leaves();
  let passed = 0;
  const failures = [];
  for (const [suite, { test_results: tests }] of Object.entries(suites).sort()) {
    const kinds = [];
    let good = 0;
    for (const [signature, { status, reason, kind, counterexample }] of Object.entries(tests)) {
      const name = signature.replace(/\(.*/, "");
      if (status !== "Success") {
        failures.push(`${name}: ${reason ?? status}${counterexample ? ` ${JSON.stringify(counterexample)}` : ""}`);
        continue;
      }
      good += 1;
      if (kind.Invariant) kinds.push(`${kind.Invariant.runs} runs, ${kind.Invariant.calls} calls, ${kind.Invariant.reverts} reverts`);
      if (kind.Fuzz) kinds.push(`${name}: ${kind.Fuzz.runs} runs`);
      if (!kind.Invariant && !named.delete(name)) failures.push(`${name}: no leaf of spec/**/*.tree names it`);
    }
    passed += good;
    console.log(`${suite.replace(/^.*:/, "").padEnd(19)} ${String(good).padStart(3)} passed${kinds.length ? `  (${kinds.join("; ")})` : ""}`);
  }
  if (exit !== 0 && failures.length === 0) failures.push(`forge ended with ${exit}:\n${stderr}`);
  failures.push(...gasDifferences(), ...staleDocs());
  for (const [test, place] of named) failures.push(`${place}: ${test} has not passed`);
  for (const failure of failures) console.log(`FAILED ${failure}`);
  console.log(`\n${passed} passed, ${failures.length} failed`);
  return failures.length === 0;
}

const words = process.argv.slice(2);
writeFixtures();
if (words[0] === "--") {
  process.exit(forge(words.slice(1), { stdio: "inherit" }).status ?? 1);
} else if (words[0] === "--gas") {
  const env = { ...process.env, FORGE_SNAPSHOT_CHECK: "false" };
  process.exit(forge(["--match-contract", "GasTest"], { stdio: "inherit", env }).status ?? 1);
} else if (words.length > 0) {
  console.error(`unknown option ${words[0]}`);
  process.exit(2);
}
console.log(run(forgeBin(), ["--version"]).split("\n")[0]);
process.exit(report(forge(["--json"])) ? 0 : 1);

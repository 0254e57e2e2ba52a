// Plants faults into a contract, one at a time, and fails if the tests don't notice one. By hand, after a change to the
// contract or its tests; it takes some ten minutes. `npm ci` here and in ../interop comes first.
//
//   node scripts/mutate.mjs                               all of scripts/faults/
//   node scripts/mutate.mjs AllowanceVault                those of one contract
//   node scripts/mutate.mjs AllowanceVault guard nonce    those whose name contains one of these
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { writeFixtures } from "./fixtures.mjs";
import { forgeBin } from "./forge.mjs";

/** Which tests are a contract's. */
const testsOf = {
  PaymentChannelEscrow: ["--no-match-path", "test/vault/*"],
  AllowanceVault: ["--match-path", "test/vault/*"],
};
/** Fewer random sequences than the real run: a fault that only the last of them finds would be a lucky find. */
const INVARIANT_RUNS = "8";

const contracts = join(dirname(fileURLToPath(import.meta.url)), "..");
// Below `contracts/`, so that the compiler is found as it is for the real run.
const work = join(contracts, ".forge/mutants");
const home = join(work, "contracts");
const solc = createRequire(import.meta.url)("solc");

const sources = Object.fromEntries(
  readdirSync(join(contracts, "src"))
    .filter((name) => name.endsWith(".sol"))
    .map((name) => [name, { content: readFileSync(join(contracts, "src", name), "utf8") }]),
);

/** What becomes of the contract with this source. */
function compile(name, content) {
  const settings = {
    viaIR: true,
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 1 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { [`${name}.sol`]: { [name]: ["evm.bytecode.object", "evm.deployedBytecode.object"] } },
  };
  const input = { language: "Solidity", sources: { ...sources, [`${name}.sol`]: { content } }, settings };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const { evm } = output.contracts?.[`${name}.sol`]?.[name] ?? {};
  if (!evm?.bytecode.object) throw new Error(output.errors?.[0]?.formattedMessage ?? "nothing was compiled");
  return { bytecode: `0x${evm.bytecode.object}`, deployedBytecode: `0x${evm.deployedBytecode.object}` };
}

/**
 * The tests that failed with this code. The random sequences come last, and only for what the others don't notice. The
 * stated address and the gas are of the right code only.
 */
function failures(name, code) {
  rmSync(join(home, ".forge/failures"), { recursive: true, force: true });
  const artifact = JSON.parse(readFileSync(join(contracts, "artifacts", `${name}.json`), "utf8"));
  writeFileSync(join(home, "artifacts", `${name}.json`), JSON.stringify({ ...artifact, ...code }));
  const plain = forge(name, ["--no-match-contract", "GasTest|InvariantsTest", "--no-match-test", "addressAndCode"]);
  return plain.length > 0 ? plain : forge(name, ["--match-contract", "InvariantsTest"]);
}

function forge(name, words) {
  const env = { ...process.env, FOUNDRY_INVARIANT_RUNS: INVARIANT_RUNS };
  const all = ["test", "--json", ...testsOf[name], ...words];
  const { stdout, stderr } = spawnSync(forgeBin(), all, { cwd: home, env, encoding: "utf8", maxBuffer: 1 << 28 });
  let suites;
  try {
    suites = JSON.parse(stdout);
  } catch {
    throw new Error(`forge did not report:\n${stdout}${stderr}`);
  }
  return Object.values(suites).flatMap(({ test_results: tests }) =>
    Object.entries(tests).filter(([, { status }]) => status !== "Success").map(([test]) => test.replace(/\(.*/, "")),
  );
}

function prepare() {
  writeFixtures();
  rmSync(work, { recursive: true, force: true });
  mkdirSync(join(home, ".forge"), { recursive: true });
  for (const part of ["artifacts", "foundry.toml", "scripts", "snapshots", "src", "test", ".forge/fixtures.json"]) {
    cpSync(join(contracts, part), join(home, part), { recursive: true });
  }
  cpSync(join(contracts, "../vectors/evm"), join(work, "vectors/evm"), { recursive: true });
}

const words = process.argv.slice(2);
const chosen = words[0] in testsOf ? [words.shift()] : Object.keys(testsOf);
let noticed = 0;
let unnoticed = 0;
for (const name of chosen) {
  prepare();
  const { default: faults } = await import(`./faults/${name}.mjs`);
  const source = sources[`${name}.sol`].content;
  const unharmed = failures(name, compile(name, source));
  if (unharmed.length > 0) throw new Error(`the tests fail without any fault: ${unharmed.join(", ")}`);
  for (const [fault, is, becomes] of faults) {
    if (words.length > 0 && !words.some((word) => fault.includes(word))) continue;
    if (source.split(is).length !== 2) throw new Error(`${fault}: the source has its place not exactly once`);
    const failed = failures(name, compile(name, source.replace(is, () => becomes)));
    if (failed.length === 0) unnoticed += 1;
    else noticed += 1;
    console.log(failed.length === 0 ? `NOT NOTICED  ${fault}` : `noticed by ${String(failed.length).padStart(2)}: ${fault} (${failed[0]}${failed.length > 1 ? ", …" : ""})`);
  }
}
rmSync(work, { recursive: true, force: true });
console.log(`\n${noticed} passed, ${unnoticed} failed`);
process.exit(unnoticed === 0 ? 0 : 1);

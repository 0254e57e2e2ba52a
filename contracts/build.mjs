// Compiles the contracts into `artifacts/`. With `--check` it writes nothing and fails if the committed
// artifacts are not what the sources compile to. Needs `npm ci` in this folder, once.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const solc = createRequire(import.meta.url)("solc");
const EXPECTED_SOLC = "0.8.37+";
const contracts = [
  "DevUSDC",
  "Permit2SignatureTransfer",
  "X402ExactPermit2Proxy",
  "Multicall3",
  "DevSmartWallet",
  "DevWalletFactory",
];

if (!solc.version().startsWith(EXPECTED_SOLC)) {
  console.error(`wrong compiler: have ${solc.version()}, want ${EXPECTED_SOLC}`);
  process.exit(1);
}

const sourceDir = join(here, "src");
const sources = Object.fromEntries(
  readdirSync(sourceDir)
    .filter(name => name.endsWith(".sol"))
    .sort()
    .map(name => [name, { content: readFileSync(join(sourceDir, name), "utf8") }]),
);
const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: "Solidity",
      sources,
      settings: {
        // What the embedded chain runs at least; later opcodes are not needed.
        evmVersion: "cancun",
        optimizer: { enabled: true, runs: 1000 },
        // Without the metadata hash the bytecode depends on the code alone, not on comments or paths.
        metadata: { bytecodeHash: "none", appendCBOR: false },
        outputSelection: {
          "*": {
            "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"],
          },
        },
      },
    }),
    {
      import: name =>
        sources[name.replace(/^\.\//, "")] ? { contents: sources[name.replace(/^\.\//, "")].content } : { error: "not found" },
    },
  ),
);

const problems = output.errors ?? [];
for (const problem of problems) console.error(problem.formattedMessage);
if (problems.length > 0) {
  console.error("the compiler has something to say; nothing is written");
  process.exit(1);
}

const artifacts = new Map();
for (const name of contracts) {
  const contract = output.contracts[`${name}.sol`]?.[name];
  if (!contract) {
    console.error(`no contract ${name} in ${name}.sol`);
    process.exit(1);
  }
  const immutables = Object.keys(contract.evm.deployedBytecode.immutableReferences ?? {});
  if (immutables.length > 0) {
    console.error(`${name} has immutables: its deployed bytecode could not be placed without a constructor`);
    process.exit(1);
  }
  artifacts.set(
    `${name}.json`,
    JSON.stringify(
      {
        contractName: name,
        compiler: solc.version().split(".Emscripten")[0],
        abi: contract.abi,
        bytecode: `0x${contract.evm.bytecode.object}`,
        deployedBytecode: `0x${contract.evm.deployedBytecode.object}`,
      },
      null,
      2,
    ) + "\n",
  );
}

const artifactDir = join(here, "artifacts");
if (process.argv.includes("--check")) {
  const committed = readdirSync(artifactDir).sort();
  const wanted = [...artifacts.keys()].sort();
  const wrong = [
    ...committed.filter(name => !artifacts.has(name)).map(name => `${name}: no such contract`),
    ...wanted
      .filter(name => !committed.includes(name) || readFileSync(join(artifactDir, name), "utf8") !== artifacts.get(name))
      .map(name => `${name}: differs from its source`),
  ];
  for (const line of wrong) console.error(line);
  if (wrong.length > 0) {
    console.error("run `npm ci && node build.mjs` in contracts/ and commit the artifacts");
    process.exit(1);
  }
  console.log(`${wanted.length} artifacts match their sources`);
} else {
  rmSync(artifactDir, { recursive: true, force: true });
  mkdirSync(artifactDir);
  for (const [name, text] of artifacts) writeFileSync(join(artifactDir, name), text);
  console.log(`${artifacts.size} artifacts written`);
}

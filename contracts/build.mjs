// Compiles the contracts into `artifacts/`. With `--check` it writes nothing and fails if the committed
// artifacts are not what the sources compile to. Needs `npm ci` in this folder, once.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** What is deployed by anybody with the usual CREATE2 deployer, to one address on every chain: name to salt. */
const deployed = { PaymentChannelEscrow: `0x${"00".repeat(32)}` };
/** What is deployed with arguments of its owner's, and so to an address that depends on them: only its code is known. */
const deployedWithArguments = ["AllowanceVault"];
const CREATE2_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C";

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const solc = require("solc");
const { keccak256 } = require("js-sha3");
const EXPECTED_SOLC = "0.8.37+";
/** Compiled through the intermediate representation: a fifth smaller, and cheaper to call. */
const viaIntermediate = ["PaymentChannelEscrow", "AllowanceVault"];
const contracts = [
  "DevUSDC",
  "Permit2SignatureTransfer",
  "X402ExactPermit2Proxy",
  "Multicall3",
  "DevSmartWallet",
  "DevWalletFactory",
  ...viaIntermediate,
];

const bytesOf = hex => Buffer.from(hex.replace(/^0x/, ""), "hex");

/** The checksummed form of an address given as 40 hex digits (EIP-55). */
function checksummed(hex) {
  const hash = keccak256(hex);
  return `0x${[...hex].map((digit, i) => (parseInt(hash[i], 16) >= 8 ? digit.toUpperCase() : digit)).join("")}`;
}

/** The hash by which a registry knows a contract's code (EIP-1052). */
const runtimeCodeHash = ({ evm }) => `0x${keccak256(bytesOf(evm.deployedBytecode.object))}`;

/** Where the contract comes to be, by EIP-1014, and its code's hash. */
function deployment(contract, salt) {
  const { evm } = contract;
  const initCodeHash = keccak256(bytesOf(evm.bytecode.object));
  const hash = keccak256(Buffer.concat(["0xff", CREATE2_DEPLOYER, salt, initCodeHash].map(bytesOf)));
  return {
    deployer: CREATE2_DEPLOYER,
    salt,
    address: checksummed(hash.slice(24)),
    initCodeHash: `0x${initCodeHash}`,
    runtimeCodeHash: runtimeCodeHash(contract),
  };
}

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

/** Compiles every source and returns what the selected contracts became. */
function compile(names, viaIR) {
  const outputs = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"];
  const settings = {
    // What the embedded chain runs at least; later opcodes are not needed.
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 1000 },
    ...(viaIR ? { viaIR } : {}),
    // Without the metadata hash the bytecode depends on the code alone, not on comments or paths.
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: Object.fromEntries(names.map(name => [`${name}.sol`, { [name]: outputs }])),
  };
  const output = JSON.parse(
    solc.compile(JSON.stringify({ language: "Solidity", sources, settings }), {
      import: name => ({ error: `not found: ${name}` }),
    }),
  );
  const problems = output.errors ?? [];
  for (const problem of problems) console.error(problem.formattedMessage);
  if (problems.length > 0) {
    console.error("the compiler has something to say; nothing is written");
    process.exit(1);
  }
  return output.contracts;
}

const compiled = {
  ...compile(contracts.filter(name => !viaIntermediate.includes(name)), false),
  ...compile(viaIntermediate, true),
};

const artifacts = new Map();
for (const name of contracts) {
  const contract = compiled[`${name}.sol`]?.[name];
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
        ...(deployed[name] ? { deployment: deployment(contract, deployed[name]) } : {}),
        ...(deployedWithArguments.includes(name)
          ? { deployment: { deployer: CREATE2_DEPLOYER, runtimeCodeHash: runtimeCodeHash(contract) } }
          : {}),
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

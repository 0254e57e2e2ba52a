#!/usr/bin/env node
// Every pairing of server, client and facilitator: ours, and the published packages in both generations, on a real
// chain node with the real token. What counts is what the token says: the payer has exactly 1,000 atoms less and the
// payee exactly 1,000 more; or, where the handler fails, nobody has more or less.
//
//   node interop/x402/run.mjs [--only peers|ours] [--filter TEXT] [--list]

import { join } from "node:path";
import { concat, encodeDeployData, encodeFunctionData, maxUint256, zeroAddress, zeroHash } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";

import { Bench, FUNDS, indent, lastLine, start } from "../support/bench.mjs";
import { farthingBin, repo } from "../support/paths.mjs";
import { runToEnd, stopAll } from "../support/process.mjs";
import { NETWORK, PERMIT2, USDC, erc20, freePort, ourArtifact, startWorld } from "../support/world.mjs";

const PRICE = 1_000n;
const CLIENT_TIMEOUT_MS = 30_000;
const NO_SALT = zeroHash;
const factory = ourArtifact("DevWalletFactory").abi;

const AUTHORIZATION = "/exact/evm/eip3009";
const PERMIT = "/exact/evm/permit2";
const SPONSORED = "/exact/evm/permit2-eip2612GasSponsoring";
const V1 = "/protected";
const FAILS = "/fails";

const at = (path) => join(repo, "interop", path);
const ours = (role) => ({ run: at(`x402/${role}`), versions: [1, 2] });
const FACILITATORS = {
  ours: ours("facilitator"),
  ts2: { run: at("support/peers/facilitator-v2.mjs"), versions: [1, 2] },
  ts1: { run: at("support/peers/facilitator-v1.mjs"), versions: [1] },
};
const CLIENTS = {
  ours: ours("client"),
  ts2: { run: at("support/peers/client-v2.mjs"), versions: [1, 2] },
  ts1: { run: at("support/peers/client-v1.mjs"), versions: [1] },
};
const SERVERS = {
  ours: { ...ours("server"), paths: { 1: [V1, FAILS], 2: [AUTHORIZATION, PERMIT, SPONSORED, V1, FAILS] } },
  ts2: { run: at("support/peers/server-v2.mjs"), paths: { 2: [AUTHORIZATION, PERMIT, SPONSORED, FAILS] } },
  ts1: { run: at("support/peers/server-v1.mjs"), paths: { 1: [V1, FAILS] } },
};

/** A wallet that exists, one that only will (ERC-6492), and a key whose account has a wallet's code (EIP-7702). */
const SMART_PAYERS = ["deployed", "counterfactual", "delegated"];

/**
 * The list is derived, so that no pairing can be forgotten: a server and a client speak the highest version that both
 * know, and the facilitator must know it too. Where it doesn't, a server that knows several falls back.
 */
function pairings() {
  const rows = [];
  for (const facilitator of Object.keys(FACILITATORS)) {
    for (const server of Object.keys(SERVERS)) {
      const spoken = Object.keys(SERVERS[server].paths).map(Number).filter((v) => FACILITATORS[facilitator].versions.includes(v));
      for (const client of Object.keys(CLIENTS)) {
        const version = Math.max(...spoken.filter((v) => CLIENTS[client].versions.includes(v)));
        if (!Number.isFinite(version)) continue;
        const row = { facilitator, server, client, version };
        for (const path of SERVERS[server].paths[version]) rows.push({ ...row, path, payer: "key" });
        // Accounts that are contracts. Of the clients only this one can sign for them.
        if (version === 2 && client === "ts2") {
          for (const payer of SMART_PAYERS) rows.push({ ...row, path: AUTHORIZATION, payer });
        }
      }
    }
  }
  return rows;
}

const isOurs = (row) => [row.facilitator, row.server, row.client].includes("ours");

function readArguments(words) {
  const options = { keep: () => true, list: false };
  const narrow = (test) => {
    const { keep } = options;
    options.keep = (row) => keep(row) && test(row);
  };
  for (let i = 0; i < words.length; i++) {
    if (words[i] === "--list") options.list = true;
    else if (words[i] === "--only" && words[i + 1] === "peers") narrow((row) => !isOurs(row)), i++;
    else if (words[i] === "--only" && words[i + 1] === "ours") narrow(isOurs), i++;
    else if (words[i] === "--filter" && words[i + 1]) {
      const text = words[++i];
      narrow((row) => title(row).includes(text));
    } else throw new Error(`unknown option: ${words.slice(i).join(" ")}`);
  }
  return options;
}

const title = ({ facilitator, server, client, version, path, payer }) =>
  `server=${server} client=${client} facilitator=${facilitator} v${version} payer=${payer} ${path}`;

/** Payers of all kinds. */
class Payers extends Bench {
  /** A payer nobody has seen before, so that no row can profit from an earlier one's nonce or allowance. */
  async payer({ path, payer: kind }) {
    const { client, test, walletFactory } = this.world;
    const privateKey = generatePrivateKey();
    const owner = privateKeyToAccount(privateKey).address;
    const env = { EVM_PRIVATE_KEY: privateKey };
    let address = owner;
    if (kind === "deployed" || kind === "counterfactual") {
      Object.assign(env, { SMART_WALLET: kind, WALLET_FACTORY: walletFactory });
      address = await client.readContract({ address: walletFactory, abi: factory, functionName: "walletOf", args: [owner, NO_SALT] });
    }
    if (kind === "deployed") {
      await this.send({ to: walletFactory, data: encodeFunctionData({ abi: factory, functionName: "deploy", args: [owner, NO_SALT] }) });
    }
    if (kind === "delegated") await test.setCode({ address, bytecode: await this.delegation() });
    await this.fund(address);
    if (path === PERMIT) {
      // Without sponsoring, a payer has approved Permit2 with gas of its own.
      await test.setBalance({ address, value: 10n ** 18n });
      const wallet = this.wallet(privateKey);
      const data = encodeFunctionData({ abi: erc20, functionName: "approve", args: [PERMIT2, maxUint256] });
      await client.waitForTransactionReceipt({ hash: await wallet.sendTransaction({ to: USDC, data }) });
    }
    return { address, env };
  }

  /** The code of an account that delegates to a wallet contract; the contract is deployed at the first call. */
  delegation() {
    this.wallets ??= this.send({
      data: encodeDeployData({ ...ourArtifact("DevSmartWallet"), args: [zeroAddress] }),
    }).then(({ contractAddress }) => concat(["0xef0100", contractAddress]));
    return this.wallets;
  }
}

/** Runs all rows of one facilitator. */
async function lane(bench, name, rows, relayerKey, report) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  let facilitator;
  const servers = new Map();
  try {
    facilitator = await start(
      FACILITATORS[name].run, `${name} facilitator`,
      bench.environment({ PORT: String(port), EVM_PRIVATE_KEY: relayerKey, WALLET_FACTORY: bench.world.walletFactory }), url,
    );
    for (const row of rows) {
      let logs = [facilitator];
      const started = Date.now();
      try {
        if (!servers.has(row.server)) servers.set(row.server, await startServer(bench, row.server, url));
        const server = servers.get(row.server);
        logs = [facilitator, server.program];
        await play(bench, row, server);
        report(row, Date.now() - started);
      } catch (error) {
        report(row, Date.now() - started, error, logs);
      }
    }
  } catch (error) {
    for (const row of rows) report(row, 0, error, []);
  } finally {
    for (const { program } of servers.values()) await program.stop();
    await facilitator?.stop();
  }
}

async function startServer(bench, name, facilitatorUrl) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const payee = privateKeyToAccount(generatePrivateKey()).address;
  const env = bench.environment({ PORT: String(port), FACILITATOR_URL: facilitatorUrl, EVM_PAYEE_ADDRESS: payee });
  return { url, payee, program: await start(SERVERS[name].run, `${name} server`, env, url) };
}

/** One payment, and what the token says before and after. */
async function play(bench, row, server) {
  const payer = await bench.payer(row);
  const before = await bench.balance(server.payee);
  const env = bench.environment({ ...payer.env, RESOURCE_SERVER_URL: server.url, ENDPOINT_PATH: row.path });
  const run = await runToEnd(CLIENTS[row.client].run, [], { env, timeoutMs: CLIENT_TIMEOUT_MS });
  const said = lastLine(run);
  const paid = FUNDS - (await bench.balance(payer.address));
  const received = (await bench.balance(server.payee)) - before;
  const facts = `paid ${paid}, received ${received}; client exit ${run.signal ?? run.code}: ${run.stdout.trim().split("\n").at(-1)} ${run.stderr.trim().slice(-600)}`;
  const expect = (condition, text) => {
    if (!condition) throw new Error(`${text} (${facts})`);
  };
  if (row.path === FAILS) {
    expect(paid === 0n && received === 0n, "a failed answer was charged");
    expect(said.status_code === 500 && said.success === false && run.code !== 0, "the client should see a failed answer");
    return;
  }
  expect(paid === PRICE && received === PRICE, `expected ${PRICE} atoms to move`);
  expect(run.code === 0 && said.success === true && said.status_code === 200, "the client should report success");
  expect(JSON.stringify(said.data ?? "").includes("Protected endpoint accessed"), "the goods should arrive");
  expect(/^0x[0-9a-f]{64}$/i.test(said.payment_response?.transaction ?? ""), "the receipt should name the transaction");
  const receipt = await bench.world.client.getTransactionReceipt({ hash: said.payment_response.transaction });
  expect(receipt.status === "success", "the transaction that the receipt names should have succeeded");
}

async function main() {
  const options = readArguments(process.argv.slice(2));
  const rows = pairings().filter(options.keep);
  if (options.list) {
    for (const row of rows) console.log(title(row));
    return 0;
  }
  // Better one clear sentence now than sixty failures later.
  if (rows.some(isOurs)) farthingBin();
  const world = await startWorld();
  const bench = new Payers(world);
  let passed = 0;
  let failed = 0;
  let lastError;
  const report = (row, ms, error, programs = []) => {
    if (error) failed++;
    else passed++;
    console.log(`${error ? "FAIL" : "ok  "} ${columns(row)} ${String(ms).padStart(6)} ms`);
    if (!error) return;
    console.log(`     ${error.message === lastError ? "as above" : error.message}`);
    if (error.message === lastError) return;
    lastError = error.message;
    for (const program of programs) console.log(indent(`${program.name}:\n${program.output().slice(-2_000)}`));
  };
  console.log(`     ${"server".padEnd(7)}${"client".padEnd(7)}${"facilitator".padEnd(12)}${"x402".padEnd(5)}${"path".padEnd(42)}payer`);
  try {
    await Promise.all(Object.keys(FACILITATORS).map((name, i) => {
      const mine = rows.filter((row) => row.facilitator === name);
      return mine.length === 0 ? undefined : lane(bench, name, mine, world.accounts[i + 1].privateKey, report);
    }));
  } finally {
    await stopAll();
    await world.stop();
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 && passed === rows.length && passed > 0 ? 0 : 1;
}

const columns = ({ server, client, facilitator, version, path, payer }) =>
  `${server.padEnd(7)}${client.padEnd(7)}${facilitator.padEnd(12)}${`v${version}`.padEnd(5)}${path.padEnd(42)}${payer.padEnd(14)}`;

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => stopAll().then(() => process.exit(130)));
}
try {
  process.exitCode = await main();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

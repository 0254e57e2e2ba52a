// What a test of payments needs of a chain: payers that nobody has seen before, and what the token says of them.

import { createWalletClient, encodeFunctionData, http } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";

import { Program } from "./process.mjs";
import { NETWORK, USDC, erc20 } from "./world.mjs";

/** What each payer has to begin with, in atoms of USDC. */
export const FUNDS = 1_000_000n;

/** A chain and its bank. */
export class Bench {
  constructor(world) {
    this.world = world;
    this.bank = this.wallet(world.accounts[0].privateKey);
    this.queue = Promise.resolve();
  }

  environment(extra) {
    const { PATH, HOME, FARTHING_BIN, CARGO_TARGET_DIR } = process.env;
    const common = { PATH, HOME, EVM_NETWORK: NETWORK, EVM_RPC_URL: this.world.rpcUrl };
    if (FARTHING_BIN) common.FARTHING_BIN = FARTHING_BIN;
    if (CARGO_TARGET_DIR) common.CARGO_TARGET_DIR = CARGO_TARGET_DIR;
    return { ...common, ...extra };
  }

  balance(address) {
    return this.world.client.readContract({ address: USDC, abi: erc20, functionName: "balanceOf", args: [address] });
  }

  /** A key with money, and nothing else. */
  async freshPayer() {
    const privateKey = generatePrivateKey();
    const { address } = privateKeyToAccount(privateKey);
    await this.fund(address);
    return { address, privateKey, env: { EVM_PRIVATE_KEY: privateKey } };
  }

  fund(address) {
    return this.send({ to: USDC, data: encodeFunctionData({ abi: erc20, functionName: "transfer", args: [address, FUNDS] }) });
  }

  wallet(privateKey) {
    return createWalletClient({
      account: privateKeyToAccount(privateKey), chain: this.world.chain, transport: http(this.world.rpcUrl),
    });
  }

  /** One transaction after another: the bank has one nonce, and lanes run side by side. */
  send(request) {
    const receipt = this.queue.then(async () => {
      const receipt = await this.world.client.waitForTransactionReceipt({ hash: await this.bank.sendTransaction(request) });
      if (receipt.status !== "success") throw new Error(`preparing transaction ${receipt.transactionHash} failed`);
      return receipt;
    });
    this.queue = receipt.catch(() => {});
    return receipt;
  }
}

/** Starts a participant and waits for its `/health`. */
export async function start(run, name, env, url, args = []) {
  const program = new Program(run, args, env, name);
  try {
    return await program.ready(`${url}/health`);
  } catch (error) {
    await program.stop();
    throw error;
  }
}

/** What a client said at its end. */
export function lastLine({ stdout }) {
  try {
    return JSON.parse(stdout.trim().split("\n").at(-1));
  } catch {
    return {};
  }
}

export const indent = (text) => text.split("\n").map((line) => `     | ${line}`).join("\n");

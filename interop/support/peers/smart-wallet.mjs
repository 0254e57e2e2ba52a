// A payer that is a contract: its key signs, the contract vouches (ERC-1271). `deployed` shows the bare signature;
// `counterfactual` wraps it with what deploys the wallet (ERC-6492), through the factory that `WALLET_FACTORY` names.

import { encodeFunctionData, parseAbi, serializeErc6492Signature, zeroHash } from "viem";

import { env } from "./common.mjs";

const factoryAbi = parseAbi([
  "function deploy(address owner, bytes32 salt) returns (address)",
  "function walletOf(address owner, bytes32 salt) view returns (address)",
]);

export async function smartWallet(owner, client, kind) {
  if (!["deployed", "counterfactual"].includes(kind)) throw new Error(`SMART_WALLET is neither deployed nor counterfactual: ${kind}`);
  const factory = env("WALLET_FACTORY");
  const args = [owner.address, zeroHash];
  const address = await client.readContract({ address: factory, abi: factoryAbi, functionName: "walletOf", args });
  const data = encodeFunctionData({ abi: factoryAbi, functionName: "deploy", args });
  return {
    address,
    async signTypedData(message) {
      const signature = await owner.signTypedData(message);
      return kind === "deployed" ? signature : serializeErc6492Signature({ address: factory, data, signature });
    },
  };
}

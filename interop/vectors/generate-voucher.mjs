// Writes vectors/evm/voucher.json with viem: the typed data of the "evm" method's "session" intent, channel ids, and
// the nonces that bind an EIP-3009 deposit to its channel.
//
// Run it with `node interop/vectors/generate-voucher.mjs` after `npm install` in `interop/`. The output depends on
// nothing but this file and the version of viem, which it records.
//
// Spec: draft-evm-session-00.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  encodeAbiParameters,
  getAddress,
  hashDomain,
  hashTypedData,
  keccak256,
  maxUint256,
  parseAbiParameters,
  toBytes,
  zeroAddress,
} from "viem";
import { privateKeyToAccount } from "viem/accounts";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "..", "vectors", "evm", "voucher.json");
const version = JSON.parse(
  readFileSync(join(dirname(createRequire(import.meta.url).resolve("viem")), "..", "package.json"), "utf8"),
).version;

// Keys that protect nothing: hashes of words.
const keys = ["payer", "payee"].map(word => keccak256(toBytes(`farthing vectors: channel ${word}`)));
const [payer, payee] = keys.map(key => privateKeyToAccount(key));
const escrow = getAddress("0x1234567890abcdef1234567890abcdef12345678");
const permit2 = getAddress("0x000000000022D473030F116dDEE9F6B43aC78BA3");
const token = getAddress("0x74b7F16337b8972027F6196A17a631ac6dE26d22");
const salts = ["0xaaaa1234bbbb5678cccc9012dddd3456eeee7890ffff1234aaaa5678bbbb9012", `0x${"00".repeat(32)}`];
const maxUint128 = 2n ** 128n - 1n;

const authorizationFields = [
  { name: "channelId", type: "bytes32" },
  { name: "cumulativeAmount", type: "uint128" },
  { name: "nonce", type: "uint256" },
  { name: "deadline", type: "uint256" },
];
const permit = witness => [
  { name: "permitted", type: "TokenPermissions" },
  { name: "spender", type: "address" },
  { name: "nonce", type: "uint256" },
  { name: "deadline", type: "uint256" },
  { name: "witness", type: witness },
];
const TokenPermissions = [
  { name: "token", type: "address" },
  { name: "amount", type: "uint256" },
];
const types = {
  Voucher: { Voucher: authorizationFields.slice(0, 2) },
  SettleAuthorization: { SettleAuthorization: authorizationFields },
  CloseAuthorization: { CloseAuthorization: authorizationFields },
  ChannelOpen: {
    PermitWitnessTransferFrom: permit("ChannelOpenWitness"),
    ChannelOpenWitness: [
      { name: "payee", type: "address" },
      { name: "salt", type: "bytes32" },
      { name: "authorizedSigner", type: "address" },
    ],
    TokenPermissions,
  },
  ChannelTopUp: {
    PermitWitnessTransferFrom: permit("ChannelTopUpWitness"),
    ChannelTopUpWitness: [{ name: "channelId", type: "bytes32" }],
    TokenPermissions,
  },
};

const channels = [];
for (const chainId of [196, 84532, 1]) {
  for (const salt of salts) {
    for (const authorizedSigner of [zeroAddress, payee.address]) {
      const parts = [payer.address, payee.address, token, salt, authorizedSigner];
      const id = keccak256(
        encodeAbiParameters(
          parseAbiParameters("address payer, address payee, address token, bytes32 salt, address signer, address escrow, uint256 chainId"),
          [...parts, escrow, BigInt(chainId)],
        ),
      );
      const additionalDeposit = 5_000_000n;
      channels.push({
        payer: payer.address, payee: payee.address, token, salt, authorizedSigner, escrow, chainId, id,
        openNonce: keccak256(
          encodeAbiParameters(
            parseAbiParameters("address payer, address payee, address token, bytes32 salt, address signer"), parts,
          ),
        ),
        additionalDeposit,
        topUpNonce: keccak256(
          encodeAbiParameters(
            parseAbiParameters("bytes32 id, uint128 amount, address payer, bytes32 salt"),
            [id, additionalDeposit, payer.address, salt],
          ),
        ),
      });
    }
  }
}

const digests = [];
const sign = async (account, kind, domain, message) => {
  const primaryType = kind.startsWith("Channel") ? "PermitWitnessTransferFrom" : kind;
  const data = { domain, types: types[kind], primaryType, message };
  const domainFields = [
    { name: "name", type: "string" },
    ...(domain.version === undefined ? [] : [{ name: "version", type: "string" }]),
    { name: "chainId", type: "uint256" },
    { name: "verifyingContract", type: "address" },
  ];
  digests.push({
    kind, domain, message,
    separator: hashDomain({ domain, types: { EIP712Domain: domainFields } }),
    digest: hashTypedData(data),
    signer: account.address,
    signature: await account.signTypedData(data),
  });
};
for (const channel of [channels[0], channels.at(-1)]) {
  const { chainId, id: channelId, salt, authorizedSigner } = channel;
  const domain = { name: "EVM Payment Channel", version: "1", chainId, verifyingContract: escrow };
  for (const cumulativeAmount of [0n, 250_000n, maxUint128]) {
    await sign(payer, "Voucher", domain, { channelId, cumulativeAmount });
    await sign(payee, "SettleAuthorization", domain, { channelId, cumulativeAmount, nonce: 1n, deadline: 1743523500n });
    await sign(payee, "CloseAuthorization", domain, { channelId, cumulativeAmount, nonce: maxUint256, deadline: maxUint256 });
  }
  const permitDomain = { name: "Permit2", chainId, verifyingContract: permit2 };
  const permitted = { token, amount: 10_000_000n };
  const shared = { permitted, spender: escrow, nonce: 1n, deadline: 1743523500n };
  await sign(payer, "ChannelOpen", permitDomain, { ...shared, witness: { payee: payee.address, salt, authorizedSigner } });
  await sign(payer, "ChannelTopUp", permitDomain, { ...shared, witness: { channelId } });
}

writeFileSync(
  out,
  JSON.stringify(
    { made_with: `viem ${version}`, keys, channels, digests },
    (_, value) => (typeof value === "bigint" ? value.toString() : value),
    2,
  ) + "\n",
);

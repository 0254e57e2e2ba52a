// Golden values of the escrow's hashes, made by viem and so by nobody of ours: `vectors/evm/payment-channel.json`.
//
//   node scripts/vectors.mjs            writes them
//   node scripts/vectors.mjs --check    fails if the committed ones differ
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(join(here, "../../interop/support/world.mjs"));
const { encodeAbiParameters, hashDomain, hashStruct, hashTypedData, keccak256, parseAbiParameters } =
  await import(pathToFileURL(require.resolve("viem")));
const { privateKeyToAccount } = await import(pathToFileURL(require.resolve("viem/accounts")));

const chainId = 196;
const escrow = "0x1234567890abcdef1234567890abcdef12345678";
const permit2 = "0x000000000022d473030f116ddee9f6b43ac78ba3";
const token = "0x74b7f16337b8972027f6196a17a631ac6de26d22";
const payee = "0x742d35cc6634c0532925a3b844bc9e7595f8fe00";
const salt = "0xaaaa1234bbbb5678cccc9012dddd3456eeee7890ffff1234aaaa5678bbbb9012";
const topUpSalt = "0xcccc5678dddd9012eeee3456ffff7890aaaa1234bbbb5678cccc9012dddd3456";
// The first two accounts of the mnemonic that every development node knows.
const payer = privateKeyToAccount("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
const signer = privateKeyToAccount("0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d");
const zero = "0x0000000000000000000000000000000000000000";

const hash = (types, values) => keccak256(encodeAbiParameters(parseAbiParameters(types), values));
const typesOf = (text) =>
  Object.fromEntries(
    [...text.matchAll(/(\w+)\(([^)]*)\)/g)].map(([, name, fields]) => [
      name,
      fields.split(",").map((field) => ({ type: field.split(" ")[0], name: field.split(" ")[1] })),
    ]),
  );
const lower = (value) => value.toLowerCase();

async function channel(authorizedSigner, key) {
  const channelId = hash("address, address, address, bytes32, address, address, uint256", [
    payer.address, payee, token, salt, authorizedSigner, escrow, BigInt(chainId),
  ]);
  const domain = { name: "EVM Payment Channel", version: "1", chainId, verifyingContract: escrow };
  const typed = (type, message) => {
    const types = typesOf(type);
    return { domain, types, primaryType: Object.keys(types)[0], message };
  };
  const signed = async (by, type, message) => {
    const data = typed(type, message);
    return { digest: hashTypedData(data), signature: await by.signTypedData(data) };
  };
  const cumulativeAmount = "250000", nonce = "7", deadline = "1743523500", additionalDeposit = "5000000";
  const authorization = { channelId, cumulativeAmount, nonce, deadline };
  const permit = (witness, value) => {
    const types = typesOf(
      `PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,${witness.split("(")[0]} witness)${witness}TokenPermissions(address token,uint256 amount)`,
    );
    return {
      witnessHash: hashStruct({ types, primaryType: witness.split("(")[0], data: value }),
      digest: hashTypedData({
        domain: { name: "Permit2", chainId, verifyingContract: permit2 },
        types,
        primaryType: "PermitWitnessTransferFrom",
        message: { permitted: { token, amount: additionalDeposit }, spender: escrow, nonce, deadline, witness: value },
      }),
    };
  };
  return {
    authorizedSigner,
    channelId,
    domainSeparator: hashDomain({ domain, types: typesOf("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)") }),
    cumulativeAmount,
    voucher: await signed(key, "Voucher(bytes32 channelId,uint128 cumulativeAmount)", { channelId, cumulativeAmount }),
    nonce,
    deadline,
    // Signed by the payer's key: only the hashes matter here.
    settleAuthorization: await signed(
      payer, "SettleAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)", authorization,
    ),
    closeAuthorization: await signed(
      payer, "CloseAuthorization(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)", authorization,
    ),
    additionalDeposit,
    topUpSalt,
    openNonce: hash("address, address, address, bytes32, address", [payer.address, payee, token, salt, authorizedSigner]),
    topUpNonce: hash("bytes32, uint128, address, bytes32", [channelId, BigInt(additionalDeposit), payer.address, topUpSalt]),
    openPermit: permit("ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)", { payee, salt, authorizedSigner }),
    topUpPermit: permit("ChannelTopUpWitness(bytes32 channelId)", { channelId }),
  };
}

const vectors = {
  about: "draft-evm-session-00: channel ids, EIP-712 digests, derived EIP-3009 nonces and Permit2 witnesses, computed by viem. Inputs are the draft's examples where it has any.",
  chainId,
  escrow,
  permit2,
  token,
  payee,
  salt,
  payer: lower(payer.address),
  signer: lower(signer.address),
  signedByPayer: await channel(zero, payer),
  signedByDelegate: await channel(lower(signer.address), signer),
};

const path = join(here, "../../vectors/evm/payment-channel.json");
const text = `${JSON.stringify(vectors, null, 2)}\n`;
if (process.argv.includes("--check")) {
  if (readFileSync(path, "utf8") !== text) {
    console.error("vectors/evm/payment-channel.json is not what viem computes: run node contracts/scripts/vectors.mjs");
    process.exit(1);
  }
  console.log("the golden hashes are what viem computes");
} else {
  writeFileSync(path, text);
  console.log("golden hashes written");
}

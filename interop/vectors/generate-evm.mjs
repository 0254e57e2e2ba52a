// Writes vectors/evm/*.json with viem: digests, signatures, calldata, wrapped signatures, reverts.
//
// Run it with `node interop/vectors/generate-evm.mjs` after `npm install` in `interop/`. The output depends on nothing but this
// file and the version of viem, which it records.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  encodeAbiParameters,
  encodeErrorResult,
  encodeFunctionData,
  encodeFunctionResult,
  getAddress,
  hashDomain,
  hashTypedData,
  keccak256,
  maxUint256,
  parseAbi,
  parseSignature,
  serializeCompactSignature,
  serializeErc6492Signature,
  serializeSignature,
  signatureToCompactSignature,
  toBytes,
  toEventSelector,
  toHex,
} from "viem";
import { privateKeyToAccount, sign } from "viem/accounts";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "..", "vectors", "evm");
const version = JSON.parse(
  readFileSync(join(dirname(createRequire(import.meta.url).resolve("viem")), "..", "package.json"), "utf8"),
).version;

const write = (name, body) => {
  mkdirSync(out, { recursive: true });
  const text = JSON.stringify(
    { made_with: `viem ${version}`, ...body },
    (_, value) => (typeof value === "bigint" ? value.toString() : value),
    2,
  );
  writeFileSync(join(out, name), text + "\n");
};

// Keys that protect nothing: hashes of words.
const keys = ["payer", "other", "relayer"].map(word => keccak256(toBytes(`farthing vectors: ${word}`)));
const [payer, other] = keys.map(key => privateKeyToAccount(key));
const payee = getAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C");
const permit2 = getAddress("0x000000000022D473030F116dDEE9F6B43aC78BA3");
const proxy = getAddress("0x402085c248EeA27D92E8b30b2C58ed07f9E20001");

const tokens = [
  { name: "USDC", version: "2", chainId: 84532, verifyingContract: getAddress("0x036CbD53842c5426634e7929541eC2318f3dCF7e") },
  { name: "USD Coin", version: "2", chainId: 8453, verifyingContract: getAddress("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913") },
  { name: "Euro Ⓔ Coin", version: "1", chainId: 9007199254740991, verifyingContract: other.address },
];
const domainTypes = [
  { name: "name", type: "string" },
  { name: "version", type: "string" },
  { name: "chainId", type: "uint256" },
  { name: "verifyingContract", type: "address" },
];
const permit2DomainTypes = domainTypes.filter(field => field.name !== "version");

const authorization = [
  { name: "from", type: "address" },
  { name: "to", type: "address" },
  { name: "value", type: "uint256" },
  { name: "validAfter", type: "uint256" },
  { name: "validBefore", type: "uint256" },
  { name: "nonce", type: "bytes32" },
];
const types = {
  TransferWithAuthorization: { TransferWithAuthorization: authorization },
  ReceiveWithAuthorization: { ReceiveWithAuthorization: authorization },
  CancelAuthorization: {
    CancelAuthorization: [
      { name: "authorizer", type: "address" },
      { name: "nonce", type: "bytes32" },
    ],
  },
  Permit: {
    Permit: [
      { name: "owner", type: "address" },
      { name: "spender", type: "address" },
      { name: "value", type: "uint256" },
      { name: "nonce", type: "uint256" },
      { name: "deadline", type: "uint256" },
    ],
  },
  PermitWitnessTransferFrom: {
    PermitWitnessTransferFrom: [
      { name: "permitted", type: "TokenPermissions" },
      { name: "spender", type: "address" },
      { name: "nonce", type: "uint256" },
      { name: "deadline", type: "uint256" },
      { name: "witness", type: "Witness" },
    ],
    TokenPermissions: [
      { name: "token", type: "address" },
      { name: "amount", type: "uint256" },
    ],
    Witness: [
      { name: "to", type: "address" },
      { name: "validAfter", type: "uint256" },
    ],
  },
};

const nonce = word => keccak256(toBytes(`farthing nonce: ${word}`));
const authorizations = [
  { from: payer.address, to: payee, value: 1000n, validAfter: 0n, validBefore: 1740672154n, nonce: nonce("a") },
  { from: payer.address, to: payee, value: 1n, validAfter: 1740672089n, validBefore: maxUint256, nonce: nonce("b") },
  { from: other.address, to: payer.address, value: maxUint256, validAfter: maxUint256, validBefore: 0n, nonce: `0x${"00".repeat(32)}` },
  { from: payer.address, to: payee, value: 2n ** 128n - 1n, validAfter: 1n, validBefore: 2n ** 64n, nonce: `0x${"ff".repeat(32)}` },
];

const digests = [];
const typed = async (domain, kind, message) => {
  const account = message.from === other.address || message.owner === other.address ? other : payer;
  const data = { domain, types: types[kind], primaryType: kind, message };
  digests.push({
    kind,
    domain,
    message,
    separator: hashDomain({
      domain,
      types: { EIP712Domain: domain.version === undefined ? permit2DomainTypes : domainTypes },
    }),
    digest: hashTypedData(data),
    signer: account.address,
    signature: await account.signTypedData(data),
  });
};

for (const domain of tokens) {
  for (const message of authorizations) {
    await typed(domain, "TransferWithAuthorization", message);
    await typed(domain, "ReceiveWithAuthorization", message);
  }
  await typed(domain, "CancelAuthorization", { authorizer: payer.address, nonce: nonce("c") });
  await typed(domain, "Permit", { owner: payer.address, spender: permit2, value: 1000n, nonce: 0n, deadline: 1740672154n });
  await typed(domain, "Permit", { owner: other.address, spender: permit2, value: maxUint256, nonce: 7n, deadline: maxUint256 });
}

const transfers = [
  { from: payer.address, permitted: { token: tokens[0].verifyingContract, amount: 10000n }, spender: proxy, nonce: 0n, deadline: 1740672154n, witness: { to: payee, validAfter: 0n } },
  { from: payer.address, permitted: { token: tokens[1].verifyingContract, amount: maxUint256 }, spender: proxy, nonce: BigInt(nonce("d")), deadline: maxUint256, witness: { to: other.address, validAfter: 1740672089n } },
];
for (const chainId of [84532, 8453, 1]) {
  for (const { from: _, ...message } of transfers) {
    await typed({ name: "Permit2", chainId, verifyingContract: permit2 }, "PermitWitnessTransferFrom", message);
  }
}

write("typed-data.json", { keys, addresses: keys.map(key => privateKeyToAccount(key).address), digests });

// Signatures of plain digests, and every way to spell or spoil one.
const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const signatures = [];
const bad = [];
for (let i = 0; i < 16; i++) {
  const digest = keccak256(toBytes(`farthing digest ${i}`));
  const full = await sign({ hash: digest, privateKey: keys[0], to: "object" });
  const bytes = serializeSignature(full);
  signatures.push({
    digest,
    signer: payer.address,
    canonical: bytes,
    parity: `${bytes.slice(0, -2)}${toHex(full.yParity, { size: 1 }).slice(2)}`,
    compact: serializeCompactSignature(signatureToCompactSignature(full)),
  });
  const high = toHex(order - BigInt(full.s), { size: 32 }).slice(2);
  const flipped = full.yParity === 0 ? "1c" : "1b";
  bad.push({ digest, signature: `0x${bytes.slice(2, 66)}${high}${flipped}`, error: "high-s" });
  if (i > 0) continue;
  const body = bytes.slice(0, -2);
  for (const v of ["02", "1a", "1d", "23", "ff"]) bad.push({ digest, signature: body + v, error: "recovery-byte" });
  for (const cut of [0, 2, 64, 126, 132]) {
    bad.push({ digest, signature: `0x${(bytes.slice(2) + "00".repeat(8)).slice(0, cut)}`, error: "length" });
  }
  bad.push({ digest, signature: `0x${"00".repeat(32)}${bytes.slice(66)}`, error: "unrecoverable" });
  bad.push({ digest, signature: `0x${"ff".repeat(32)}${bytes.slice(66)}`, error: "unrecoverable" });
  bad.push({ digest, signature: `0x${bytes.slice(2, 66)}${"00".repeat(32)}1b`, error: "unrecoverable" });
}
write("signatures.json", { key: keys[0], signatures, bad });

// Calldata.
const abi = parseAbi([
  "function balanceOf(address account) view returns (uint256)",
  "function allowance(address owner, address spender) view returns (uint256)",
  "function nonces(address owner) view returns (uint256)",
  "function transfer(address to, uint256 value) returns (bool)",
  "function approve(address spender, uint256 value) returns (bool)",
  "function authorizationState(address authorizer, bytes32 nonce) view returns (bool)",
  "function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s)",
  "function isValidSignature(bytes32 hash, bytes signature) view returns (bytes4)",
  "function nonceBitmap(address owner, uint256 word) view returns (uint256)",
  "struct Call3 { address target; bool allowFailure; bytes callData; }",
  "struct Result { bool success; bytes returnData; }",
  "function aggregate3(Call3[] calls) payable returns (Result[] returnData)",
]);
const vrs = parseAbi(["function transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"]);
const anyBytes = parseAbi(["function transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"]);
const settleAbi = parseAbi([
  "struct TokenPermissions { address token; uint256 amount; }",
  "struct PermitTransferFrom { TokenPermissions permitted; uint256 nonce; uint256 deadline; }",
  "struct Witness { address to; uint256 validAfter; }",
  "struct EIP2612Permit { uint256 value; uint256 deadline; bytes32 r; bytes32 s; uint8 v; }",
  "function settle(PermitTransferFrom permit, address owner, Witness witness, bytes signature)",
  "function settleWithPermit(EIP2612Permit permit2612, PermitTransferFrom permit, address owner, Witness witness, bytes signature)",
]);
const signature = signatures[0].canonical;
const parsed = parseSignature(signature);
const long = `0x${"5a".repeat(133)}`;
const calldata = [];
const call = (abi, functionName, args, inputs) =>
  calldata.push({ function: functionName, inputs, data: encodeFunctionData({ abi, functionName, args }) });

call(abi, "balanceOf", [payer.address], { account: payer.address });
call(abi, "allowance", [payer.address, permit2], { owner: payer.address, spender: permit2 });
call(abi, "nonces", [payer.address], { owner: payer.address });
call(abi, "transfer", [payee, 1000n], { to: payee, value: 1000n });
call(abi, "approve", [permit2, maxUint256], { spender: permit2, value: maxUint256 });
call(abi, "authorizationState", [payer.address, nonce("a")], { authorizer: payer.address, nonce: nonce("a") });
call(abi, "cancelAuthorization", [payer.address, nonce("a"), Number(parsed.v), parsed.r, parsed.s], { authorizer: payer.address, nonce: nonce("a"), signature });
call(abi, "isValidSignature", [nonce("e"), long], { hash: nonce("e"), signature: long });
for (const n of [0n, 255n, 256n, maxUint256, BigInt(nonce("d"))]) {
  call(abi, "nonceBitmap", [payer.address, n >> 8n], { owner: payer.address, nonce: n, bit: Number(n & 255n) });
}
for (const a of authorizations) {
  const args = [a.from, a.to, a.value, a.validAfter, a.validBefore, a.nonce];
  call(vrs, "transferWithAuthorization", [...args, Number(parsed.v), parsed.r, parsed.s], { overload: "vrs", authorization: a, signature });
  call(anyBytes, "transferWithAuthorization", [...args, long], { overload: "bytes", authorization: a, signature: long });
}
for (const t of transfers) {
  const permit = { permitted: t.permitted, nonce: t.nonce, deadline: t.deadline };
  call(settleAbi, "settle", [permit, t.from, t.witness, long], { transfer: t, signature: long });
  const permit2612 = { value: t.permitted.amount, deadline: 1740672154n, r: parsed.r, s: parsed.s, v: Number(parsed.v) };
  call(settleAbi, "settleWithPermit", [permit2612, permit, t.from, t.witness, signature], {
    transfer: t, signature, permitDeadline: 1740672154n, permitSignature: signature,
  });
}
const calls = [
  { target: payee, allowFailure: true, callData: calldata[0].data },
  { target: permit2, allowFailure: false, callData: "0x" },
];
call(abi, "aggregate3", [calls], { calls });
const results = [
  { success: true, returnData: toHex(5n, { size: 32 }) },
  { success: false, returnData: "0x" },
];
write("calldata.json", {
  calldata,
  aggregate3_result: { results, data: encodeFunctionResult({ abi, functionName: "aggregate3", result: results }) },
});

// Wrapped signatures, and bytes that only look so.
const wrapped = [
  { factory: other.address, factoryData: "0xdeadbeef", signature },
  { factory: payee, factoryData: "0x", signature: "0x" },
  { factory: payee, factoryData: `0x${"ab".repeat(700)}`, signature: long },
].map(({ factory, factoryData, signature }) => ({
  factory, factoryData, signature, wrapped: serializeErc6492Signature({ address: factory, data: factoryData, signature }),
}));
const magic = "6492".repeat(16);
const params = [{ type: "address" }, { type: "bytes" }, { type: "bytes" }];
const good = encodeAbiParameters(params, [payee, "0xdeadbeef", signature]).slice(2);
const word = n => toHex(n, { size: 32 }).slice(2);
const spoiled = (at, n) => `0x${good.slice(0, at * 64)}${word(n)}${good.slice((at + 1) * 64)}${magic}`;
write("erc6492.json", {
  wrapped,
  malformed: {
    "only the magic": `0x${magic}`,
    "two words": `0x${good.slice(0, 128)}${magic}`,
    "truncated": `0x${good.slice(0, -64)}${magic}`,
    "offset beyond the end": spoiled(1, 1_000_000n),
    "offset beyond 64 bits": spoiled(2, 2n ** 64n),
    "offset that overflows": spoiled(2, maxUint256),
    "length beyond the end": spoiled(3, 4096n),
    "length that overflows": spoiled(3, maxUint256),
    "factory that is no address": spoiled(0, 2n ** 160n),
    "wrapped twice": serializeErc6492Signature({ address: payee, data: "0x", signature: wrapped[0].wrapped }),
  },
});

// Reverts and topics.
const errors = parseAbi([
  "error Error(string reason)",
  "error Panic(uint256 code)",
  "error InvalidNonce()",
  "error SignatureExpired(uint256 signatureDeadline)",
  "error InvalidContractSignature()",
  "error Permit2612AmountMismatch()",
  "error PaymentTooEarly()",
  "error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed)",
  "error SomethingElse(uint256 a)",
]);
const revert = (errorName, args, text) => ({ data: encodeErrorResult({ abi: errors, errorName, args }), text });
write("reverts.json", {
  reverts: [
    { data: "0x", text: "reverted without a reason" },
    { data: "0x08c3", text: "reverted with data that is no error" },
    { data: "0x08c379a0ffff", text: "reverted with data that is no error" },
    revert("Error", ["FiatTokenV2: authorization is used or canceled"], "FiatTokenV2: authorization is used or canceled"),
    revert("Error", ["a\nb\u001b[31m\u00e9"], "a?b?[31m?"),
    revert("Error", ["x".repeat(500)], "x".repeat(120)),
    revert("Panic", [17n], "panic 0x11"),
    revert("InvalidNonce", [], "InvalidNonce"),
    revert("SignatureExpired", [5n], "SignatureExpired"),
    revert("InvalidContractSignature", [], "InvalidContractSignature"),
    revert("Permit2612AmountMismatch", [], "Permit2612AmountMismatch"),
    revert("PaymentTooEarly", [], "PaymentTooEarly"),
    { data: encodeErrorResult({ abi: parseAbi(["error InvalidAmount()"]), errorName: "InvalidAmount" }), text: "InvalidAmount" },
    revert("ERC20InsufficientBalance", [payer.address, 1n, 2n], "ERC20InsufficientBalance"),
    { ...revert("SomethingElse", [1n]), text: `error ${keccak256(toBytes("SomethingElse(uint256)")).slice(2, 10)}` },
  ],
  topics: {
    Transfer: toEventSelector("Transfer(address,address,uint256)"),
    AuthorizationUsed: toEventSelector("AuthorizationUsed(address,bytes32)"),
  },
});

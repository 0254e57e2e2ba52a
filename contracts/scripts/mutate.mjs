// Plants faults into the escrow, one at a time, and fails if the tests don't notice one. By hand, after a change to the
// contract or its tests; it takes some ten minutes. `npm ci` here and in ../interop comes first.
//
//   node scripts/mutate.mjs                all of them
//   node scripts/mutate.mjs guard nonce    those whose name contains one of these
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { writeFixtures } from "./fixtures.mjs";
import { forgeBin } from "./forge.mjs";

const NAME = "PaymentChannelEscrow";
/** Fewer random sequences than the real run: a fault that only the last of them finds would be a lucky find. */
const INVARIANT_RUNS = "8";

/** Name, what stands in the source exactly once, and what is put in its place. */
const faults = [
  ["no guard", "if (_entered) revert Reentered();", ""],
  ["open takes any nonce", "if (nonce != keccak256(abi.encode(from, payee, token, salt, authorizedSigner))) revert NonceMismatch();", ""],
  ["open's nonce leaves out the signer", "abi.encode(from, payee, token, salt, authorizedSigner))) revert", "abi.encode(from, payee, token, salt, address(0)))) revert"],
  ["top-up takes any nonce", "if (nonce != keccak256(abi.encode(channelId, additionalDeposit, from, topUpSalt))) revert NonceMismatch();", ""],
  ["anybody tops up", "        // Check: \"topUp\", payer only.\n        if (msg.sender != channel.payer) revert NotPayer();", ""],
  ["anybody settles", "        // Check: \"settle\", payee only.\n        if (msg.sender != channel.payee) revert NotPayee();", ""],
  ["anybody closes", "        // Check: \"close\", payee only.\n        if (msg.sender != channel.payee) revert NotPayee();", ""],
  ["anybody requests", "        // Check: \"requestClose\", payer only.\n        if (msg.sender != channel.payer) revert NotPayer();", ""],
  ["a second request starts anew", "if (channel.closeRequestedAt != 0) return;", ""],
  ["withdrawal without a request", "requestedAt == 0 || ", ""],
  ["withdrawal a second late", "block.timestamp < requestedAt + CLOSE_GRACE_PERIOD", "block.timestamp <= requestedAt + CLOSE_GRACE_PERIOD"],
  ["withdrawal a second early", "block.timestamp < requestedAt + CLOSE_GRACE_PERIOD", "block.timestamp + 1 < requestedAt + CLOSE_GRACE_PERIOD"],
  ["withdrawal does not finalize", "        // Effect.\n        channel.finalized = true;\n        (uint128 deposit, uint128 settled)", "        (uint128 deposit, uint128 settled)"],
  ["withdrawal refunds all", "uint128 refund = deposit - settled;\n        emit ChannelClosed(channelId, msg.sender", "uint128 refund = deposit;\n        emit ChannelClosed(channelId, msg.sender"],
  ["zero payee", "if (key.payee == address(0)) revert InvalidPayee();", ""],
  ["zero payer", "if (key.payer == address(0)) revert InvalidPayer();", ""],
  ["zero deposit", "if (deposit == 0) revert ZeroDeposit();", ""],
  ["an id opens twice", "if (channel.payer != address(0)) revert ChannelAlreadyExists();", ""],
  ["a finalized id opens again", "if (channel.payer != address(0)) revert", "if (channel.payer != address(0) && !channel.finalized) revert"],
  ["zero top-up", "if (amount == 0) revert ZeroDeposit();", ""],
  ["top-up overflows", "if (amount > type(uint128).max - deposit) revert DepositOverflow();", ""],
  ["a third party takes a close back", "if (from == payer && channel.closeRequestedAt != 0)", "if (channel.closeRequestedAt != 0)"],
  ["nobody takes a close back", "            channel.closeRequestedAt = 0;\n", ""],
  ["a settlement pays the total again", "delta = cumulativeAmount - channel.settled;\n        channel.settled", "delta = cumulativeAmount;\n        channel.settled"],
  ["a close does not record what it paid", "            channel.settled = settled;\n", ""],
  ["a close does not finalize", "        // Effect.\n        channel.finalized = true;\n        uint128 refund", "        uint128 refund"],
  ["a forfeit wants a voucher", "if (cumulativeAmount > settled) {", "if (cumulativeAmount >= settled) {"],
  ["finalized channels live", "if (channel.finalized) revert ChannelFinalized();", ""],
  ["the id leaves out the chain", "key.authorizedSigner, address(this), block.chainid", "key.authorizedSigner, address(this), uint256(1)"],
  ["a batch pays finalized channels", "if (channel.finalized) return ChannelFinalized.selector;", ""],
  ["a batch pays for others", "if (msg.sender != channel.payee) return NotPayee.selector;", ""],
  ["a batch mixes tokens", "if (token != channel.token) return TokenMismatch.selector;", ""],
  ["an equal amount settles", "if (cumulativeAmount <= channel.settled) return", "if (cumulativeAmount < channel.settled) return"],
  ["the whole deposit does not settle", "if (cumulativeAmount > channel.deposit) return", "if (cumulativeAmount >= channel.deposit) return"],
  ["more than the deposit settles", "if (cumulativeAmount > channel.deposit) return AmountExceedsDeposit.selector;", ""],
  ["the payer signs instead of its delegate", "channel.delegated ? channel.authorizedSigner : channel.payer", "channel.payer"],
  ["a deadline a second short", "if (block.timestamp > deadline)", "if (block.timestamp >= deadline)"],
  ["no deadline", "if (block.timestamp > deadline) revert AuthorizationExpired();", ""],
  ["a nonce works twice", "if (bits & bit != 0) revert NonceAlreadyUsed();", ""],
  ["a nonce is not kept", "_usedNonces[payee][channelId][nonce >> 8] = bits | bit;", ""],
  ["a nonce frees others", "[nonce >> 8] = bits | bit;", "[nonce >> 8] = bit;"],
  ["no signature of the payee", "if (!_signedBy(payee, digest, signature)) revert InvalidSignature();", ""],
  ["code counts before the key", "if (recovered != address(0) && recovered == signer) return true;", "if (signer.code.length == 0 && recovered != address(0) && recovered == signer) return true;"],
  ["a short answer of a wallet", "answered && answer.length >= 32\n            && abi", "answered && abi"],
  ["a wallet that reverts says yes", "return answered && answer.length", "return answer.length"],
  ["a dirty answer of a wallet", "abi.decode(answer, (bytes32)) == bytes32(IERC1271.isValidSignature.selector)", "bytes4(abi.decode(answer, (bytes32))) == IERC1271.isValidSignature.selector"],
  ["longer signatures", "if (signature.length != SIGNATURE_BYTES) return", "if (signature.length < SIGNATURE_BYTES) return"],
  ["a high s", "if (uint256(s) > HALF_ORDER) return address(0);", ""],
  ["any deposit will do", "if (_held(token) != before + amount) revert InexactDeposit();", ""],
  ["more than the deposit will do", "if (_held(token) != before + amount) revert", "if (_held(token) < before + amount) revert"],
  ["a token may say no", "if (!done || !accepted) revert TransferFailed();", "if (!done) revert TransferFailed();"],
  ["a token may be gone", "answer.length == 0 ? token.code.length != 0 :", "answer.length == 0 ? true :"],
  ["a token may revert in silence", "if (!done || !accepted) revert TransferFailed();", "if (!accepted) revert TransferFailed();"],
  ["one type for settle and close", "abi.encode(CLOSE_AUTHORIZATION_TYPEHASH, channelId", "abi.encode(SETTLE_AUTHORIZATION_TYPEHASH, channelId"],
  ["the refund goes to the payee", "if (refund != 0) _push(token, payer, refund);", "if (refund != 0) _push(token, payee, refund);"],
  ["an empty batch", "if (paid == 0) revert NothingToSettle();", ""],
  ["the domain leaves out the contract", "DOMAIN_VERSION_HASH, block.chainid, address(this))", "DOMAIN_VERSION_HASH, block.chainid, address(0))"],
  ["the guard stays shut", "        _;\n        _entered = false;", "        _;"],
];

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
const artifact = JSON.parse(readFileSync(join(contracts, "artifacts", `${NAME}.json`), "utf8"));

function compile(content) {
  const settings = {
    viaIR: true,
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 1 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { [`${NAME}.sol`]: { [NAME]: ["evm.bytecode.object", "evm.deployedBytecode.object"] } },
  };
  const input = { language: "Solidity", sources: { ...sources, [`${NAME}.sol`]: { content } }, settings };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const { evm } = output.contracts?.[`${NAME}.sol`]?.[NAME] ?? {};
  if (!evm?.bytecode.object) throw new Error(output.errors?.[0]?.formattedMessage ?? "nothing was compiled");
  return { bytecode: `0x${evm.bytecode.object}`, deployedBytecode: `0x${evm.deployedBytecode.object}` };
}

/** The tests that failed with this code. The stated address and the gas are of the right code only. */
function failures(code) {
  rmSync(join(home, ".forge/failures"), { recursive: true, force: true });
  writeFileSync(join(home, "artifacts", `${NAME}.json`), JSON.stringify({ ...artifact, ...code }));
  const words = ["test", "--json", "--no-match-contract", "GasTest", "--no-match-test", "addressAndCode"];
  const env = { ...process.env, FOUNDRY_INVARIANT_RUNS: INVARIANT_RUNS };
  const { stdout, stderr } = spawnSync(forgeBin(), words, { cwd: home, env, encoding: "utf8", maxBuffer: 1 << 28 });
  let suites;
  try {
    suites = JSON.parse(stdout);
  } catch {
    throw new Error(`forge did not report:\n${stdout}${stderr}`);
  }
  return Object.values(suites).flatMap(({ test_results: tests }) =>
    Object.entries(tests).filter(([, { status }]) => status !== "Success").map(([name]) => name.replace(/\(.*/, "")),
  );
}

writeFixtures();
rmSync(work, { recursive: true, force: true });
mkdirSync(join(home, ".forge"), { recursive: true });
for (const part of ["artifacts", "foundry.toml", "scripts", "snapshots", "src", "test", ".forge/fixtures.json"]) {
  cpSync(join(contracts, part), join(home, part), { recursive: true });
}
cpSync(join(contracts, "../vectors/evm"), join(work, "vectors/evm"), { recursive: true });

const source = sources[`${NAME}.sol`].content;
const unharmed = failures(compile(source));
if (unharmed.length > 0) throw new Error(`the tests fail without any fault: ${unharmed.join(", ")}`);
const wanted = process.argv.slice(2);
let noticed = 0;
const unnoticed = [];
for (const [name, is, becomes] of faults) {
  if (wanted.length > 0 && !wanted.some((word) => name.includes(word))) continue;
  if (source.split(is).length !== 2) throw new Error(`${name}: the source has its place not exactly once`);
  const failed = failures(compile(source.replace(is, () => becomes)));
  if (failed.length === 0) unnoticed.push(name);
  else noticed += 1;
  console.log(failed.length === 0 ? `NOT NOTICED  ${name}` : `noticed by ${String(failed.length).padStart(2)}: ${name} (${failed[0]}${failed.length > 1 ? ", …" : ""})`);
}
rmSync(work, { recursive: true, force: true });
console.log(`\n${noticed} passed, ${unnoticed.length} failed`);
process.exit(unnoticed.length === 0 ? 0 : 1);

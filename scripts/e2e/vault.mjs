#!/usr/bin/env node
// An allowance vault from the command line, on the embedded chain. The owner makes and fills it; a thief with the hot
// wallet's key spends and refills for hours; the guardian freezes; the owner takes the rest out. Two wallets, as on two
// machines.

import { createRequire } from "node:module";
import { join } from "node:path";

import { PAYEE, USDC, check, repo, rpc, run, same, scratch, script, service, usdc } from "./support.mjs";

// The scripts have no packages of their own.
const { generatePrivateKey, privateKeyToAccount } = createRequire(join(repo, "interop/package.json"))("viem/accounts");

const HOUR = 3_600;
const FLOAT = 500_000_000n;
const PER_HOUR = 20_000_000n;
const PER_DAY = 50_000_000n;
const TARGET = 10_000_000n;
const keys = { owner: generatePrivateKey(), guardian: generatePrivateKey(), agent: generatePrivateKey() };
const [owner, guardian, agent] = Object.values(keys).map((key) => privateKeyToAccount(key));

await script(async () => {
  const node = await service([
    "devnet", "--listen", "127.0.0.1:0", "--usdc", `${owner.address}=${FLOAT}`, "--usdc", `${agent.address}=${TARGET}`,
  ]);
  for (const { address } of [owner, guardian, agent]) {
    await rpc(node.url, "anvil_setBalance", [address, "0xde0b6b3a7640000"]);
  }
  const later = async (seconds) => {
    await rpc(node.url, "evm_increaseTime", [seconds]);
    await rpc(node.url, "evm_mine");
  };

  // The owner's machine and the agent's: each knows its own key only.
  const homes = { owner: scratch(), agent: scratch() };
  const at = (home) => (...words) =>
    run(words, { FARTHING_HOME: homes[home], FARTHING_PASSPHRASE: "correct horse", FARTHING_RPC: node.url, OWNER: keys.owner, GUARDIAN: keys.guardian, AGENT: keys.agent });
  const [atOwners, atAgents] = [at("owner"), at("agent")];
  const done = async (what, running) => {
    const { code, json, stderr } = await running;
    check(what, code === 0, stderr);
    return json ?? {};
  };
  const refused = async (what, running, code, why) => {
    const ended = await running;
    check(what, ended.code === code && ended.stderr.includes(why), `${ended.code}: ${ended.stderr}`);
  };
  await done("the owner's key", atOwners("wallet", "import", "owner", "--from", "env:OWNER"));
  await done("the agent's key", atAgents("wallet", "import", "agent", "--from", "env:AGENT"));

  const caps = ["--per-hour", "20", "--per-day", "50", "--target", "10"];
  await refused("one key for both is refused", atOwners("vault", "deploy", "--key", "owner", "--hot", "owner", ...caps), 2, "are the same");
  const deploy = ["vault", "deploy", "--key", "owner", "--hot", agent.address, "--guardian", guardian.address, "--delay", "1h", ...caps];
  const made = await done("the owner makes a vault", atOwners(...deploy));
  const vault = made.vault;
  check("with a transaction", /^0x[0-9a-f]{64}$/.test(made.transaction), made);
  same("the contract enforces it", made.enforced_by, "contract");
  check("each cap says so", ["per_hour", "per_day", "target", "refillable"].every((name) => made.tokens[0][name].enforced_by === "contract"), made.tokens[0]);
  const again = await done("the same command again", atOwners(...deploy));
  check("finds it there", again.vault === vault && again.transaction === null, again);

  await refused("nothing is sent to what is no vault", atOwners("vault", "fund", PAYEE, "--key", "owner", "--amount", "1"), 1, "no contract is at");
  await done("the owner fills it", atOwners("vault", "fund", vault, "--key", "owner", "--amount", "500"));
  same("with the float", await usdc(node.url, vault), FLOAT);
  const idle = await done("a refill at the target", atAgents("vault", "refill", vault, "--key", "agent"));
  same("does nothing", idle.reason, "at_target");

  // The agent's key is stolen.
  let nonce = Number(await rpc(node.url, "eth_getTransactionCount", [agent.address, "latest"]));
  const spend = async () => {
    const atoms = await usdc(node.url, agent.address);
    if (atoms === 0n) return;
    const data = `0xa9059cbb${PAYEE.slice(2).padStart(64, "0")}${atoms.toString(16).padStart(64, "0")}`;
    nonce = Number(await rpc(node.url, "eth_getTransactionCount", [agent.address, "latest"]));
    const raw = await agent.signTransaction({ chainId: 84532, type: "eip1559", to: USDC, data, nonce, gas: 100_000n, maxFeePerGas: 10_000_000_000n, maxPriorityFeePerGas: 1_000_000n });
    await rpc(node.url, "eth_sendRawTransaction", [raw]);
  };
  const before = await usdc(node.url, PAYEE);
  let refilled = 0n;
  for (let hour = 1n; hour <= 4n; hour += 1n) {
    for (;;) {
      await spend();
      const said = await done("the thief refills", atAgents("vault", "refill", vault, "--key", "agent"));
      if (said.done !== "refilled") break;
      refilled += BigInt(said.money.atoms);
    }
    check(`within the caps after ${hour} h`, refilled <= hour * PER_HOUR && refilled <= PER_DAY, refilled);
    // What counts for an hour counts for five minutes more at most.
    await later(HOUR + 300);
  }
  same("the day's cap is what it gets", refilled, PER_DAY);

  for (const [what, ...words] of [
    ["withdraw", "withdraw", vault, "--all"],
    ["loosen", "loosen", vault, "--per-hour", "400"],
    ["tighten", "tighten", vault, "--per-hour", "1"],
    ["freeze", "freeze", vault],
  ]) {
    await refused(`the hot key may not ${what}`, atAgents("vault", ...words, "--key", "agent"), 2, "hot wallet");
  }
  const tight = await done("the guardian tightens", atOwners("vault", "tighten", vault, "--key", "env:GUARDIAN", "--per-hour", "5"));
  same("at once", tight.tokens[0].per_hour.amount, "5");
  await refused("the guardian does not loosen", atOwners("vault", "loosen", vault, "--key", "env:GUARDIAN", "--per-hour", "6"), 2, "no say");
  await refused("loosening is no tightening", atOwners("vault", "tighten", vault, "--key", "owner", "--per-hour", "6"), 2, "loosen");
  await done("the guardian freezes", atOwners("vault", "freeze", vault, "--key", "env:GUARDIAN"));
  await later(48 * HOUR);
  const frozen = await done("a refill days later", atAgents("vault", "refill", vault, "--key", "agent"));
  same("does nothing: frozen", frozen.reason, "frozen");
  await spend();
  same("the loss is the wallet and what was refilled before", (await usdc(node.url, PAYEE)) - before, TARGET + refilled);
  same("the rest is in the vault", await usdc(node.url, vault), FLOAT - refilled);

  // Another hot wallet, and the end of the freeze: announced, waited for, applied.
  const hot = privateKeyToAccount(generatePrivateKey()).address;
  const told = await done("the owner announces another hot wallet", atOwners("vault", "loosen", vault, "--key", "owner", "--hot", hot));
  check("that waits", told.what === "hot" && told.state === "waiting", told);
  await done("and the end of the freeze", atOwners("vault", "unfreeze", vault, "--key", "owner"));
  await refused("not before the delay", atOwners("vault", "apply", vault, "--key", "owner"), 1, "ready at");
  await later(HOUR);
  const applied = await done("after it, both", atOwners("vault", "apply", vault, "--key", "owner"));
  check("are in force", applied.hot_wallet === hot && applied.frozen === false && applied.announced.length === 0, applied);
  await done("anybody refills", atOwners("vault", "refill", vault, "--key", "env:GUARDIAN"));
  same("the new wallet, within the tighter cap", await usdc(node.url, hot), 5_000_000n);

  await done("the owner takes the rest", atOwners("vault", "withdraw", vault, "--key", "owner", "--all"));
  same("all of it", await usdc(node.url, owner.address), FLOAT - refilled - 5_000_000n);
  const text = await run(["vault", "--help"]);
  check("the help has examples", text.stdout.includes("farthing vault freeze"), text.stdout);
});

// Who is measured, and how each is started. Each has its own relayer, so that none inherits another's nonces.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { repo } from "../../interop/support/paths.mjs";
import { NETWORK } from "../../interop/support/world.mjs";

export const target = resolve(repo, process.env.CARGO_TARGET_DIR ?? "target");
export const FARTHING = resolve(process.env.FARTHING_BIN ?? join(target, "release/farthing"));
export const BENCH = resolve(process.env.FARTHING_BENCH_BIN ?? join(target, "release/farthing-bench"));
export const X402_RS = process.env.X402_RS_BIN;

/** x402-rs asks at its start whether a validator of ERC-6492 signatures has code there; no payment of ours calls it. */
export const X402_RS_VALIDATOR = "0xdAcD51A54883eb67D95FAEb2BBfdC4a9a6BD2a3B";
export const REVERTS = "0xfe";

/** What a contestant needs to write lies in `scratch`. */
export function all(scratch) {
  return {
    ours: {
      name: "farthing",
      relayer: 1,
      command: ({ port, rpcUrl, store = join(scratch, `facilitator-${port}.db`) }) => [
        FARTHING, "facilitator", "--listen", `127.0.0.1:${port}`, "--network", NETWORK, "--rpc", rpcUrl,
        "--relayer-key", "env:EVM_PRIVATE_KEY", "--store", store,
      ],
    },
    x402rs: {
      name: "x402-rs",
      relayer: 2,
      command: ({ port, rpcUrl, key }) => {
        const file = join(scratch, `x402-rs-${port}.json`);
        const chains = { [NETWORK]: { eip1559: true, signers: [key], rpc: [{ http: rpcUrl }] } };
        const schemes = ["v1-eip155-exact", "v2-eip155-exact"].map((id) => ({ id, chains: "eip155:*" }));
        writeFileSync(file, JSON.stringify({ port, host: "127.0.0.1", chains, schemes }));
        return [resolve(X402_RS), "--config", file];
      },
    },
    typescript: {
      name: "TypeScript",
      relayer: 3,
      command: () => [process.execPath, join(repo, "interop/support/peers/facilitator-v2.mjs")],
    },
  };
}

/** A gateway that settles by itself, as its file says. */
export function gatewayConfig({ port, upstream, payTo, store, rpcUrl }) {
  return `
[gateway]
listen = "127.0.0.1:${port}"
upstream = "${upstream}"
network = "base-sepolia"
pay_to = "${payTo}"

[limits]
payments_per_second = 100000
contract_payments_per_second = 100000

[store]
path = "${store}"

[sessions]
payee_keys = ["env:PAYEE_KEY"]

[networks.base-sepolia]
rpc = ["${rpcUrl}"]
relayer_key = "env:RELAYER_KEY"

[[route]]
match = "GET /weather"
price = "$0.001"

[[route]]
match = "GET /unit"
session = { price = "$0.000001", suggested_deposit = "$1" }

[[route]]
match = "GET /free"
free = true

[[route]]
match = "GET /health"
free = true
`;
}

/** Resident memory of a process, in MiB. */
export function memoryOf({ pid }) {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)[1]) / 1024;
}

/** Processor time that a process and its threads have used, in milliseconds. Linux counts in hundredths of a second. */
export function processorOf(pid) {
  return spent(`/proc/${pid}/stat`);
}

function spent(file) {
  // The second field is the program's name in parentheses, and may hold anything.
  const fields = readFileSync(file, "utf8").replace(/^.*\) /s, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** The same for the threads whose name begins with `name`. */
export function processorOfThreads(pid, name) {
  return readdirSync(`/proc/${pid}/task`)
    .filter((task) => readFileSync(`/proc/${pid}/task/${task}/comm`, "utf8").startsWith(name))
    .reduce((sum, task) => sum + spent(`/proc/${pid}/task/${task}/stat`), 0);
}

/** Processor time of the whole machine that was not idle, in milliseconds. */
export function processorOfAll() {
  const fields = readFileSync("/proc/stat", "utf8").split("\n")[0].trim().split(/\s+/).slice(1).map(Number);
  const [user, nice, system, , , irq, softirq] = fields;
  return (user + nice + system + irq + softirq) * 10;
}

/** The chain node's process: the newest of our children by that name. */
export function nodePid() {
  const children = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, "utf8").trim().split(" ");
  return children.filter((pid) => readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("anvil")).at(-1);
}

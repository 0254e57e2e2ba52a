// The page of the load report: everything in it comes from what was measured, or says how that was done.

import { writeFileSync } from "node:fs";
import { join } from "node:path";

const SAY = { verify: "`/verify`", settle: "`/settle`", paid: "paid requests" };
const round = (value) => (value >= 1000 ? Math.round(value).toLocaleString("en-US") : value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
const percent = (share) => `${Math.round(share * 100)} %`;
const times = (ratio) => `${ratio.toFixed(ratio < 10 ? 2 : 0)}×`;
const middle = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const table = (head, rows) => [`| ${head.join(" | ")} |`, `|${head.map(() => " --- ").join("|")}|`, ...rows.map((row) => `| ${row.join(" | ")} |`)].join("\n");

function circumstances({ at, commit, quick, cores, cpu, kernel, memory_gib, load }) {
  const busy = load > 0.7 ? ` **Something else ran too: the load average was ${load.toFixed(1)} before.**` : "";
  return `*${at} UTC, commit ${commit}${quick ? ", quick run" : ""}: ${cores} cores (${cpu}), ${memory_gib} GiB, Linux ${kernel}; load generator, chain node and program share them.*${busy}`;
}

/** Writes `performance.md` and the plots of those parts that were measured. `draw` makes one plot. */
export async function write(out, data, draw) {
  const pages = { saturation, payers, history, live, commit };
  const sections = [];
  const plot = (name, what) => {
    draw(what, join(out, "performance", `${name}.svg`));
    return `![${what.title}](performance/${name}.svg)`;
  };
  for (const [name, page] of Object.entries(pages)) {
    if (data[name]) sections.push(`${page(data[name].found, plot, data)}\n\n${circumstances(data[name].where)}`);
  }
  writeFileSync(join(out, "performance.md"), `${INTRODUCTION}\n\n${sections.join("\n\n")}\n\n${METHOD}\n`);
}

const INTRODUCTION = `# Performance under load

What \`scripts/load-report\` measured, and nothing else: it writes this page, and \`performance/data.json\` has the numbers in
full. Ratios are against a peer or against a limit of the same machine in the same run; numbers of other machines or other
runs are not compared. [benchmarks.md](../operating/benchmarks.md) has the comparison with peers step by step, and how to
run all of this.`;

// ---------------------------------------------------------------------------------------------------------------------

function saturation({ rows }) {
  const mine = rows.filter(({ who }) => who === "farthing");
  const theirs = rows.filter(({ who }) => who !== "farthing");
  const blocks = (row) => (row.blockSeconds ? `${row.blockSeconds} s blocks` : "blocks at once");
  const at = (row, share) => row.at?.find((one) => one.share === share)?.report;
  const cell = (report) => (report ? ["p50_ms", "p99_ms", "p999_ms"].map((key) => round(report[key])).join(" / ") : "none");
  const wrong = (row) => [at(row, 0.5), at(row, 0.8)].flatMap((report) => Object.values(report?.wrong ?? {})).reduce((a, b) => a + b, 0);
  const head = ["", "kept up with", "p50 / p99 / p99.9 at 50 %, ms", "the same at 80 %, ms", "not right"];
  const body = (rows) => rows.map((row) => [
    `${row.who === "farthing" ? "" : `${row.who}, `}${SAY[row.kind]}, ${blocks(row)}`, `**${round(row.rate)}/s**`, cell(at(row, 0.5)), cell(at(row, 0.8)), String(wrong(row)),
  ]);
  const bounds = mine.filter((row) => row.full).map((row) => `- ${SAY[row.kind]}: ${bound(row)}`);
  const verify = mine.find(({ kind }) => kind === "verify");
  const ratios = theirs.filter(({ rate }) => rate > 0).map((row) => `${times(verify.rate / row.rate)} ${row.who}`);
  const peers = theirs.length === 0 ? "" : `

Beside it, by the same load in the same run:

${table(head, body(theirs))}

At saturation \`/verify\` does ${ratios.join(" and ")}.`;
  return `## Saturation

Requests arrive by chance (Poisson) at a rate that does not depend on the answers, from ${round(10_000)} payers that take turns, each payment
signed before the clock starts and used once. The rate goes up until the server falls behind: its latencies grow over the
run, or more than one answer in a thousand is wrong. A latency counts from the moment its request was *due*. Where
blocks take seconds, a payment waits for the next one: half of their time at p50 and all of it at p99 are the chain's.

${table(head, body(mine))}

What bounds each, by the processor time of a run at that rate:

${bounds.join("\n")}${peers}`;
}

/** Which of those that share the machine take its time. */
function bound({ full, rate }) {
  const rest = Math.max(full.busy - full.own_share - full.node_share, 0);
  const shares = `ours ${percent(full.own_share)} (${round(full.own_us)} µs a request, of which the store's writer ${round(full.writer_us)} µs), the chain node ${percent(full.node_share)} (${round(full.node_us)} µs), the load and the rest ${percent(rest)}`;
  const alone = full.own_us > 0 ? ` With the machine to itself, our part alone would take ${round(rate * (1 / Math.max(full.own_share, 0.001)))} a second.` : "";
  return full.busy >= 0.85
    ? `the processor. The machine is ${percent(full.busy)} busy: ${shares}.${alone}`
    : `not the processor, which is ${percent(full.busy)} busy: ${shares}. The requests wait for blocks and for each other.`;
}

// ---------------------------------------------------------------------------------------------------------------------

const flatness = (rows, of) => {
  const first = of(rows[0]);
  return Math.max(...rows.map((row) => of(row))) / first;
};

function payers({ verify, claim }, plot) {
  const cost = plot("payers", {
    title: "Our processor time for each request, as payers grow", x: "payers that the process knows", y: "µs", log_x: true,
    lines: [
      { name: "/verify", points: verify.map(({ payers, own_us }) => [payers, own_us]) },
      { name: "durable claim and refusal", points: claim.map(({ payers, own_us }) => [payers, own_us]) },
    ],
  });
  const row = ({ payers, own_us, node_us, p50_ms, p99_ms, memory_mib, rate }) =>
    [payers.toLocaleString("en-US"), `${round(own_us)} µs`, `${round(node_us)} µs`, `${round(p50_ms)} / ${round(p99_ms)} ms`, `${round(rate)}/s`, `${round(memory_mib)} MiB`];
  const head = ["payers", "ours", "the node's", "p50 / p99", "rate", "memory"];
  return `## Cost as payers grow

One facilitator process, as many connections as load it fully (32 for \`/verify\`, 64 for claims), and processor time from
the system's own account. A *claim* here is a \`/settle\` by a payer without tokens, each of whom comes once: a durable
claim, a look at the chain, a refusal and its commit, so everything of a settlement but the transaction.

${cost}

The dearest of the points costs ${times(flatness(verify, (row) => row.own_us))} the first for \`/verify\`, and ${times(flatness(claim, (row) => row.own_us))} for claims.

\`/verify\`:

${table(head, verify.map(row))}

Claims:

${table(head, claim.map(row))}`;
}

function history({ rows, turns = 1 }, plot) {
  if (rows.length === 0) return "## Cost as history grows\n\nNot measured: the disk had no room.";
  const points = (of) => rows.map((row) => [Math.max(row.payments, 1), of(row)]);
  const cost = plot("history", {
    title: "Cost of a claim, as stored history grows", x: "payments in the books", y: "µs", log_x: true,
    lines: [
      { name: "our processor time", points: points((row) => row.own_us) },
      { name: "of it the store's writer", points: points((row) => row.writer_us) },
    ],
  });
  const latency = plot("history-latency", {
    title: "Latency of a claim, as stored history grows (64 connections, closed loop)", x: "payments in the books", y: "ms", log_x: true,
    lines: [{ name: "p50", points: points((row) => row.p50_ms) }, { name: "p99", points: points((row) => row.p99_ms) }],
  });
  const most = rows.at(-1);
  return `## Cost as history grows

The books of a facilitator, filled with ${most.payments.toLocaleString("en-US")} settled payments at most: 100 that were really settled, copied with
ids, keys, transactions and slots of their own by the store's own encoders, after which \`farthing ledger check\`'s own check
finds the books of up to a million right (${"`farthing-bench history`"}; how is in \`crates/store/src/bulk.rs\`). Then claims by new
payers, as above, on all of the books in turns: the middle of ${turns}.

${cost}

${latency}

${table(["payments", "ours", "the writer's part", "p50 / p99", "rate", "ready after", "file", "bytes each"], rows.map((row) => [
    row.payments.toLocaleString("en-US"), `${round(row.own_us)} µs`, `${round(row.writer_us)} µs`, `${round(row.p50_ms)} / ${round(row.p99_ms)} ms`, `${round(row.rate)}/s`,
    `${round(row.started_ms)} ms`, `${round(row.bytes / 2 ** 20)} MiB`, String(row.bytes_each),
  ]))}

With ${most.payments.toLocaleString("en-US")} payments a claim takes ${times(most.own_us / rows[0].own_us)} the processor time that it takes with none, and its p50 is ${times(most.p50_ms / rows[0].p50_ms)}. A claim
that comes to nothing writes the small index of live consumption keys; in the large one, of all others, it only looks its key up.`;
}

function live({ engine, http }) {
  return `## Memory of a live claim

${table(["", "memory of each"], [
    [`in the engine: the payment, its task, and whoever waits, ${engine.claims.toLocaleString("en-US")} at once`, `${round(engine.kib_each)} KiB`],
    [`over HTTP: the same and its transaction in flight, ${http.rows.at(-1).claims.toLocaleString("en-US")} at once, callers gone`, `${round(http.kib_each)} KiB`],
  ])}

Resident memory, from the system: in the engine after the first tenth and after all; over HTTP before
(${round(http.before_mib)} MiB) and with all of them (${round(http.rows.at(-1).memory_mib)} MiB), which therefore also counts what their requests left behind once. A
facilitator takes 1,024 settlements of a seller and 10,000 in all at once, and answers the next with 503.`;
}

function commit({ turns }) {
  const of = (read) => middle(turns.map(read));
  const [syncs, raw, engine] = [of(({ disk }) => disk.rate), of(({ engine }) => engine.sqlite), of(({ engine }) => engine.engine)];
  const fronts = Object.keys(turns[0].front).map((connections) => {
    const read = (what) => of(({ front }) => what(front[connections]));
    return {
      connections, rate: read(({ said }) => said.rate), p50: read(({ said }) => said.p50_ms), own: read(({ own_us }) => own_us), writer: read(({ writer_us }) => writer_us),
      node: read(({ node_us }) => node_us), busy: read(({ busy }) => busy), writerBusy: read(({ writer_busy }) => writer_busy),
    };
  });
  const best = fronts.reduce((a, b) => (a.rate > b.rate ? a : b));
  const cause = best.busy >= 0.85
    ? `the processor, not the disk: the machine is ${percent(best.busy)} busy, and of our ${round(best.own)} µs a request the thread that writes takes ${round(best.writer)} µs (it is busy ${percent(best.writerBusy)} of the time), the rest being HTTP, JSON, the signature and the chain read; the node takes ${round(best.node)} µs more on the same cores`
    : `not the processor, which is ${percent(best.busy)} busy; the thread that writes is busy ${percent(best.writerBusy)} of the time, and the rest is waiting for the disk and the node`;
  return `## Group commit, the disk and raw SQLite

Turns on one disk, the middle of ${turns.length}: 4 KiB and \`fdatasync\` by one thread; raw SQLite that writes the rows of claims in groups
of the size that the engine made; claims through the engine; claims through the HTTP front (\`/settle\` by payers
without tokens: each makes a durable claim, reads the chain, and commits its refusal, so two commits).

${table(["", "a second", "of the disk's syncs", "of raw SQLite"], [
    ["`fdatasync` of the disk", round(syncs), "1", ""],
    ["raw SQLite, claims", round(raw), times(raw / syncs), "1"],
    [`the engine, ${turns[0].engine.in_flight} in flight, claims (${round(of(({ engine }) => engine.group))} a commit)`, round(engine), times(engine / syncs), times(engine / raw)],
    ...fronts.map(({ connections, rate, p50 }) => [`HTTP front, ${connections} connections, claims with their refusals (p50 ${round(p50)} ms)`, round(rate), times(rate / syncs), times(rate / raw)]),
  ])}

What bounds the HTTP front at ${best.connections} connections is ${cause}.`;
}

const METHOD = `## How it is measured

- \`farthing load\` is the load: an open loop, in one thread, whose own lateness is part of its report. Anybody can point it at
  their own gateway.
- The chain is anvil with Circle's published USDC, on the same machine; a block holds more than Base's do, so that its gas
  limit bounds nothing.
- Payments are signed before the clock starts. Good is a plain yes: \`isValid: true\`; \`success: true\` with a transaction; 200
  with a receipt. What was not right is in the tables.
- Percentiles come from a histogram of three significant digits (HDR). Memory is the resident set, and processor time the
  system's count for the process, in hundredths of a second.
- \`/verify\` and \`/settle\` are asked of \`farthing facilitator\` with its store on disk and every commit synced; paid requests go to
  \`farthing gateway\`, which settles by itself before it answers.`;

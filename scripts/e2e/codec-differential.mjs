#!/usr/bin/env node
// Our codec beside the published ones (`@x402/core` for both versions, `x402` for the first) on generated messages:
// those that our side makes from the golden vectors by small changes, and those that this side makes and encodes with
// the published packages. Both must agree on what is a message and on what it means; each difference that is intended
// is explained below, and any other fails.
//
//   scripts/e2e/codec-differential.mjs [--count N] [--seed N]      N messages of each kind and side (150)

import { execFileSync, spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { webcrypto } from "node:crypto";

import { repo } from "../../interop/support/paths.mjs";

// Node 18 has the Web Crypto that the packages want only on request.
globalThis.crypto ??= webcrypto;
const require = createRequire(join(repo, "interop/package.json"));
const load = name => import(pathToFileURL(require.resolve(name)).href);
const http = await load("@x402/core/http");
const schemas = await load("@x402/core/schemas");
const { HTTPFacilitatorClient } = await load("@x402/core/http");
const { exact } = await load("x402/schemes");

const option = (name, otherwise) => {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
};
const COUNT = option("--count", 150);
const SEED = option("--seed", 1);
/** How much of either list of differences is shown. */
const SHOWN = 12;

// ---------------------------------------------------------------------------------------------------------------------
// Our side.

const targetDir = resolve(repo, process.env.CARGO_TARGET_DIR ?? "target");
execFileSync("cargo", ["build", "--quiet", "-p", "farthing-fuzzing", "--example", "codec"], { cwd: repo, stdio: "inherit" });
const ours = (args, input) => {
  const run = spawnSync(join(targetDir, "debug/examples/codec"), args, { input, encoding: "utf8", maxBuffer: 1 << 30 });
  if (run.status !== 0) throw new Error(`codec ${args.join(" ")}: ${run.stderr}`);
  return run.stdout.trimEnd().split("\n");
};

// ---------------------------------------------------------------------------------------------------------------------
// The published side: what it makes of a message, or the issues that it has with it.

const zod = result => (result.success ? { ok: true, json: result.data } : { ok: false, issues: flat(result.error.issues) });
const flat = issues => issues.flatMap(issue => (issue.unionErrors ? issue.unionErrors.flatMap(error => flat(error.issues)) : [issue]));
const thrown = f => {
  try {
    return f();
  } catch (error) {
    return { ok: false, issues: error.issues ? flat(error.issues) : [{ code: "thrown", path: [], message: error.message }] };
  }
};
const text = bytes => bytes.toString("utf8");
const latin = bytes => bytes.toString("latin1");
const all = (...verdicts) => {
  const issues = verdicts.flatMap(verdict => verdict.issues ?? []);
  return issues.length > 0 ? { ok: false, issues } : undefined;
};

/** A facilitator's answer goes through the published client, which keeps its schemas to itself. */
async function answered(kind, bytes) {
  globalThis.fetch = async () => new Response(bytes, { status: 200, headers: { "content-type": "application/json" } });
  const client = new HTTPFacilitatorClient({ url: "https://facilitator.example" });
  const ask = { verify: () => client.verify({}, {}), settle: () => client.settle({}, {}), supported: () => client.getSupported() }[kind];
  try {
    return { ok: true, json: await ask() };
  } catch (error) {
    return { ok: false, issues: [{ code: /invalid JSON/.test(error.message) ? "thrown" : "schema", path: [], message: error.message }] };
  }
}

const readers = {
  payment2: bytes => zod(schemas.PaymentPayloadV2Schema.safeParse(http.decodePaymentSignatureHeader(latin(bytes)))),
  payment1: bytes => {
    const core = thrown(() => zod(schemas.PaymentPayloadV1Schema.safeParse(http.decodePaymentSignatureHeader(latin(bytes)))));
    // The first package also reads what the scheme has put into the payload.
    const first = thrown(() => ({ ok: true, json: exact.evm.decodePayment(latin(bytes)) }));
    return all(core, first) ?? { ok: true, json: core.json, payload: first.json.payload };
  },
  challenge2: bytes => zod(schemas.PaymentRequiredV2Schema.safeParse(http.decodePaymentRequiredHeader(latin(bytes)))),
  challenge1: bytes => zod(schemas.PaymentRequiredV1Schema.safeParse(JSON.parse(text(bytes)))),
  receipt: async bytes => answered("settle", Buffer.from(JSON.stringify(http.decodePaymentResponseHeader(latin(bytes))))),
  request: bytes => {
    const body = JSON.parse(text(bytes));
    const payload = zod(schemas.PaymentPayloadSchema.safeParse(body?.paymentPayload));
    const version = body?.paymentPayload?.x402Version === 1 ? schemas.PaymentRequirementsV1Schema : schemas.PaymentRequirementsV2Schema;
    const requirements = zod(version.safeParse(body?.paymentRequirements));
    return all(payload, requirements) ?? { ok: true, json: { paymentPayload: payload.json, paymentRequirements: requirements.json } };
  },
  verify: bytes => answered("verify", bytes),
  settle: bytes => answered("settle", bytes),
  supported: bytes => answered("supported", bytes),
};

async function theirs(kind, bytes) {
  try {
    return await readers[kind](bytes);
  } catch (error) {
    return { ok: false, issues: [{ code: "thrown", path: [], message: error.message }] };
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Intended differences.

/** What we refuse and they take: our reason, and why it is ours. */
const STRICTER = [
  [/^Json\(DuplicateKey/, "two readers could see two payments in one key that stands twice"],
  [/^Json\(LoneSurrogate/, "half of a surrogate pair is no text; they replace it"],
  [/^Json\(NotUtf8/, "they replace what is not UTF-8, and a changed text is another text"],
  [/^Json\(Unexpected \{ at: 0 \}\)/, "they skip a byte order mark", bytes => /^\ufeff/.test(decoded(bytes)) || /^\ufeff/.test(text(bytes))],
  [/^(Json\(Too|HeaderTooLong|TooMany)/, "everything has a bound"],
  [/^NotBase64/, "one text has one base64: no blanks, and no bits that stand for nothing", bytes => loose(latin(bytes))],
  [/^Amount|^BeyondU128|^Uint256/, "an amount is plain digits that we can count"],
  [/^Requirements\((Amount|BeyondU128|Address|Network|WrongType|Empty)/, "what a server asks is read as strictly as what a payer signs"],
  [/^Address/, "an address is one"],
  [/^Network|^NotCaip2|^UnknownV1Name/, "a network is one that has a name"],
  [/^NotHex \{ field: "signature" \}/, "bytes in hex have an even number of digits"],
  [/^NoReadableRequirements/, "no offer among them can be read"],
  [/^WrongType \{ field: "(maxTimeoutSeconds|x402Version)"/, "whole numbers are written as whole numbers, above zero"],
  [/^(Requirements\()?WrongType \{ field: "maxTimeoutSeconds"/, "whole numbers are written as whole numbers, above zero"],
  [/^Version\(None\)/, "a version is a plain whole number", bytes => /"x402Version":\s*[12](\.0+|[eE][+-]?0+)/.test(text(bytes) + decoded(bytes))],
  [/^Version\(/, "an envelope and its payment are of one version", (_, json) => json?.x402Version !== json?.paymentPayload?.x402Version],
  [/^(Missing|Empty) \{ field: "(scheme|network)" \}/, "a kind that is supported has a scheme and a network"],
];

/** What we take and they refuse: the issue of theirs, and why it does not matter to us. */
const LOOSER = [
  // The first package's own lists are closed.
  [i => i.path.at(-1) === "network" && i.code === "invalid_enum_value", "networks that the first package does not list"],
  [i => i.message === "Invalid network", "networks that the first package does not list"],
  [i => i.path[0] === "scheme" && i.code === "invalid_enum_value", "a scheme is judged by whoever knows schemes"],
  [i => i.path[0] === "payload" && i.path[1] === "transaction", "what pays on another kind of chain", undefined, mine => mine.payload],
  [i => i.path.join(".") === "payload.authorization.value", "the first package counts up to 18 digits", undefined, mine => mine.payload.authorization?.value.length > 18],
  [i => i.path[0] === "payload", "a way to pay that the first package does not know", undefined, mine => mine.payload.permit2Authorization],
  [i => i.received === "null" || i.received === "undefined", "a member that is null is not there, and version 1 leaves out what decides nothing", issue => optional(issue)],
  [i => i.path.at(-1) === "resource" && i.code === "too_small", "a resource's name in version 1 decides nothing"],
  [i => i.path[0] === "accepts" && i.path.length > 1, "an offer that cannot be read hides no other", undefined, mine => mine.json.accepts.length > 0],
  [i => i.code === "schema", "an answer without network or transaction is read, and proves nothing", undefined, mine => sparse(mine.json)],
  [i => i.code === "schema", "a list that is null is not there", undefined, (_, bytes) => Object.values(lenient(bytes)).includes(null)],
];

/** Members that peers leave out or fill with null, and on which nothing depends. */
function optional(issue) {
  const name = issue.path.at(-1);
  if (issue.received === "undefined") return ["description", "mimeType"].includes(name);
  return !["x402Version", "scheme", "amount", "maxAmountRequired", "asset", "payTo", "accepted", "payload"].includes(name);
}

/** Whether a receipt lacks what old peers leave out. */
const sparse = json => json.transaction === "" || json.network === "";

/** Base64 that a lenient decoder takes and a strict one does not. */
function loose(value) {
  const bare = value.replace(/[\t\n\f\r ]/g, "");
  const again = Buffer.from(bare, "base64").toString("base64");
  return bare !== value || again.replace(/=+$/, "") !== bare.replace(/=+$/, "");
}

const decoded = bytes => Buffer.from(latin(bytes), "base64").toString("utf8");
const lenient = bytes => {
  for (const read of [text, decoded]) {
    try {
      return JSON.parse(read(bytes));
    } catch {
      // The other one, perhaps.
    }
  }
  return undefined;
};

/** Why one side takes what the other refuses; `undefined` if nobody meant it to. */
function explained(kind, bytes, mine, other) {
  if (!mine.ok) {
    const rule = STRICTER.find(([error, , also]) => error.test(mine.error) && (also?.(bytes, lenient(bytes)) ?? true));
    return rule && `stricter: ${rule[1]}`;
  }
  const why = other.issues.map(issue => LOOSER.find(([is, , also, and]) => is(issue) && (also?.(issue) ?? true) && (and?.(mine, bytes) ?? true))?.[1]);
  return why.every(Boolean) ? `looser: ${[...new Set(why)].join("; ")}` : undefined;
}

/** Whether all that they read is in what we read, and the same. Members that we alone keep are none of theirs. */
function agrees(mine, other, path = "") {
  if (other === undefined || other === null) return mine === undefined || mine === null ? undefined : path;
  if (Array.isArray(other)) {
    if (!Array.isArray(mine) || mine.length !== other.length) return path;
    return other.map((item, at) => agrees(mine[at], item, `${path}[${at}]`)).find(Boolean);
  }
  if (typeof other === "object") {
    if (typeof mine !== "object" || mine === null) return path;
    return Object.entries(other).map(([key, value]) => agrees(mine[key], value, `${path}.${key}`)).find(Boolean);
  }
  return Object.is(mine, other) ? undefined : path || "the whole";
}

// ---------------------------------------------------------------------------------------------------------------------
// Messages of this side.

let state = SEED >>> 0;
function random(below) {
  // Mulberry32.
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) % below;
}
const pick = list => list[random(list.length)];
const hex = bytes => `0x${Array.from({ length: bytes }, () => random(256).toString(16).padStart(2, "0")).join("")}`;
const some = value => (random(3) > 0 ? value() : undefined);
const word = () => pick(["", "a", "USDC", "caf\u00e9", "\u{1F4B6} \u20ac", "line\nbreak", "\"quoted\" \\", "\u0000", "\u2028", "x".repeat(40), "0", "null"]);
const digits = () => pick(["0", "1", "1000", String(random(1e9)), (2n ** 128n - 1n).toString(), (2n ** 64n).toString()]);
const anything = (depth = 0) =>
  depth > 2
    ? pick([null, true, 0, 1.5, -7, 1e21, 1.5e-7, word()])
    : pick([
        () => anything(3),
        () => Array.from({ length: random(4) }, () => anything(depth + 1)),
        () => Object.fromEntries(Array.from({ length: random(4) }, (_, at) => [pick(["a", "b", "info", "name", `k${at}`, ""]), anything(depth + 1)])),
      ])();
const object = () => {
  const value = anything();
  return value && typeof value === "object" && !Array.isArray(value) ? value : { value };
};

const resource = () => ({
  url: `https://a.example/${random(100)}`,
  description: some(word),
  mimeType: some(() => "application/json"),
  serviceName: some(() => "Example"),
  tags: some(() => ["a", "b"].slice(random(3))),
  iconUrl: some(word),
});
const offer2 = () => ({
  scheme: pick(["exact", "upto"]),
  network: pick(["eip155:84532", "eip155:8453", "eip155:1"]),
  amount: digits(),
  asset: hex(20),
  payTo: hex(20),
  maxTimeoutSeconds: 1 + random(1000),
  extra: some(object),
});
const offer1 = () => ({
  scheme: "exact",
  network: pick(["base-sepolia", "base", "avalanche", "polygon"]),
  maxAmountRequired: digits(),
  resource: "https://a.example/",
  description: word(),
  mimeType: "application/json",
  outputSchema: some(object),
  payTo: hex(20),
  maxTimeoutSeconds: 1 + random(1000),
  asset: hex(20),
  extra: some(object),
});
const authorization = () => ({ from: hex(20), to: hex(20), value: String(random(1e9)), validAfter: "0", validBefore: digits(), nonce: hex(32) });
const payload = () => ({ signature: hex(65), authorization: authorization() });
const receipt = () => ({
  success: random(2) === 0,
  errorReason: some(() => pick(["insufficient_funds", "settlement_pending", "something_new"])),
  errorMessage: some(word),
  payer: some(() => hex(20)),
  transaction: pick(["", hex(32)]),
  network: pick(["eip155:84532", "base-sepolia", "elsewhere"]),
  amount: some(digits),
  extensions: some(object),
  extra: some(object),
});

const header = encode => json => Buffer.from(encode(json), "latin1");
const body = json => Buffer.from(JSON.stringify(json), "utf8");
const makers = {
  payment2: [
    () => ({ x402Version: 2, payload: pick([payload, object])(), extensions: some(object), resource: some(resource), accepted: offer2() }),
    header(http.encodePaymentSignatureHeader),
  ],
  payment1: [
    () => ({ x402Version: 1, scheme: "exact", network: pick(["base-sepolia", "base", "sei"]), payload: payload() }),
    header(exact.evm.encodePayment),
  ],
  challenge2: [
    () => ({ x402Version: 2, error: some(word), resource: resource(), accepts: [offer2(), ...(random(2) ? [offer2()] : [])], extensions: some(object) }),
    header(http.encodePaymentRequiredHeader),
  ],
  challenge1: [() => ({ x402Version: 1, error: some(word), accepts: [offer1(), ...(random(2) ? [offer1()] : [])] }), body],
  receipt: [receipt, header(http.encodePaymentResponseHeader)],
  request: [
    () =>
      pick([
        () => ({ x402Version: 2, paymentPayload: makers.payment2[0](), paymentRequirements: offer2() }),
        () => ({ x402Version: 1, paymentPayload: makers.payment1[0](), paymentRequirements: offer1() }),
      ])(),
    body,
  ],
  verify: [() => ({ isValid: random(2) === 0, invalidReason: some(word), invalidMessage: some(word), payer: some(() => hex(20)), extensions: some(object), extra: some(object) }), body],
  settle: [receipt, body],
  supported: [
    () => ({
      kinds: Array.from({ length: random(4) }, () => ({ x402Version: 1 + random(2), scheme: "exact", network: "eip155:84532", extra: some(object) })),
      extensions: ["bazaar"].slice(random(2)),
      signers: some(() => ({ "eip155:*": [hex(20)] })),
    }),
    body,
  ],
};

/** One place in three messages out of four holds something else. */
function spoiled(json) {
  if (random(4) === 0) return json;
  const places = [];
  const walk = (value, at) => {
    for (const key of Object.keys(value ?? {})) {
      if (typeof value === "object") places.push([value, key]);
      if (value[key] && typeof value[key] === "object") walk(value[key], at);
    }
  };
  walk(json);
  const [holder, key] = pick(places);
  const value = pick([undefined, null, "", "0", "x", 0, 1, 2, -1, 60.5, true, [], {}, holder[key], [holder[key]], `${holder[key]} `]);
  if (value === undefined) delete holder[key];
  else holder[key] = value;
  return json;
}

function made(kind) {
  const [make, encode] = makers[kind];
  // A published encoder may refuse what was spoiled; that is no message.
  for (;;) {
    try {
      return encode(JSON.parse(JSON.stringify(spoiled(make()))));
    } catch {
      continue;
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------

/** The first package reads the scheme's own part with the message, so ours counts too. */
function verdict(kind, json) {
  const mine = JSON.parse(json);
  return kind === "payment1" && mine.payloadError ? { ok: false, error: mine.payloadError } : mine;
}

const cases = ours(["generate", String(SEED), String(COUNT)]).map(line => {
  const [kind, base64, json] = line.split("\t");
  return { by: "ours", kind, bytes: Buffer.from(base64, "base64"), mine: verdict(kind, json) };
});
const published = Object.keys(makers).flatMap(kind => Array.from({ length: COUNT }, () => ({ by: "theirs", kind, bytes: made(kind) })));
const verdicts = ours(["judge"], published.map(({ kind, bytes }) => `${kind}\t${bytes.toString("base64")}\n`).join(""));
published.forEach((one, at) => (one.mine = verdict(one.kind, verdicts[at])));

const reasons = new Map();
const note = why => reasons.set(why, (reasons.get(why) ?? 0) + 1);
const wrong = [];
const counts = { agreed: 0, taken: 0 };
for (const { by, kind, bytes, mine } of [...cases, ...published]) {
  const other = await theirs(kind, bytes);
  const show = what => wrong.push({ kind, by, what, bytes: bytes.toString("latin1").slice(0, 4000), ours: mine.ok ? mine.json : mine.error, theirs: other.ok ? other.json : other.issues });
  if (mine.ok !== other.ok) {
    const why = explained(kind, bytes, mine, other);
    if (why === undefined) show(mine.ok ? "we take it, they do not" : "they take it, we do not");
    else note(why);
    continue;
  }
  counts.agreed += 1;
  if (!mine.ok) continue;
  counts.taken += 1;
  const differs = agrees(mine.json, other.json);
  if (kind.startsWith("challenge") && differs === ".accepts" && mine.json.accepts.length < other.json.accepts.length) {
    counts.agreed -= 1;
    note("stricter: an offer that we cannot read is passed over");
  } else if (differs !== undefined) {
    show(`we read ${differs} otherwise`);
  }
  if (other.payload && mine.payload) {
    const lower = json => JSON.parse(JSON.stringify(json).toLowerCase());
    const inPayload = agrees(lower(mine.payload), lower(other.payload));
    if (inPayload !== undefined) show(`we read the payload's ${inPayload} otherwise`);
  }
}

for (const [why, count] of [...reasons].sort((a, b) => b[1] - a[1])) console.log(`${String(count).padStart(7)}  ${why}`);
for (const one of wrong.slice(0, SHOWN)) console.log(JSON.stringify(one, null, 1));
const total = cases.length + published.length;
console.log(`${total} messages by seed ${SEED}: ${counts.agreed} alike (${counts.taken} taken with one meaning), ${total - counts.agreed - wrong.length} differ as explained, ${wrong.length} otherwise`);
// One for each kind, and one more for something having been taken: else nothing was compared.
const broken = new Set(wrong.map(({ kind }) => kind)).size + (counts.taken * 5 > total ? 0 : 1);
console.log(`${Object.keys(makers).length + 1 - broken} passed, ${broken} failed`);
process.exit(broken === 0 ? 0 : 1);

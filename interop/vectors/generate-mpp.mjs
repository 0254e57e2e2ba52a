// Writes vectors/mpp/*.json with the published package mppx: challenges, ids, credentials, receipts, problems, client
// preferences, events and frames, and what the package says of malformed ones.
//
// Run it with `node interop/vectors/generate-mpp.mjs` after `npm install` in `interop/`. The output depends on nothing
// but this file and the versions of the packages, which it records. A header is written as one character for each of its
// bytes, the way Node reads and writes headers. `code` is the name that our reader gives to what is wrong.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { BodyDigest, Challenge, Constants, Credential, Errors, Mcp, PaymentRequest, Receipt } from "mppx";
import { charge as evmCharge } from "mppx/evm/client";
import { keccak256, toBytes } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "..", "..", "vectors", "mpp");
const require = createRequire(import.meta.url);
// What the package does not export is read from its files.
const dist = dirname(require.resolve("mppx"));
const inner = path => import(pathToFileURL(join(dist, path)));
const AcceptPayment = await inner("internal/AcceptPayment.js");
const Protocol = await inner("tempo/session/precompile/Protocol.js");
const version = path => JSON.parse(readFileSync(path, "utf8")).version;
const viemRoot = require.resolve("viem").replace(/(.*node_modules\/viem)\/.*/, "$1");
const madeWith = `mppx ${version(join(dist, "..", "package.json"))}, viem ${version(join(viemRoot, "package.json"))}`;
const write = (name, body) => {
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, name), JSON.stringify({ made_with: madeWith, ...body }, null, 2) + "\n");
};
const attempt = work => {
  try {
    return work();
  } catch {
    return undefined;
  }
};
const assert = (truth, message) => {
  if (!truth) throw new Error(message);
};

const account = privateKeyToAccount(keccak256(toBytes("farthing vectors: payer")));
const token = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const payee = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
const secretKey = "test-vector-secret-minimum-32-byte-secret";
const chainId = 84532;
const channelId = keccak256(toBytes("farthing vectors: channel"));

// Challenges that the package writes and reads.

const evmRequest = {
  amount: "10000",
  currency: token,
  recipient: payee,
  methodDetails: { chainId, credentialTypes: ["authorization"], decimals: 6 },
};
const base = { secretKey, realm: "api.example.com", method: "evm", intent: "charge", request: evmRequest };
const made = {
  plain: base,
  "with everything": {
    ...base,
    description: "One weather report",
    digest: BodyDigest.compute('{"city":"Rome"}'),
    expires: "2026-11-21T12:05:00.123Z",
    header: "Payment-Authorization",
    meta: { scope: "GET /weather", z: "1", a: "2" },
  },
  "an expiry without milliseconds": { ...base, expires: "2026-11-21T12:05:00Z" },
  "an expiry with an offset": { ...base, expires: "2026-11-21T14:05:00+02:00" },
  "the default header said aloud": { ...base, header: "authorization" },
  "opaque as raw text": { ...base, opaque: "trace-123" },
  "quotes and backslashes": { ...base, description: 'Pay "premium" from C:\\tempo\\api, \\u0041' },
  "Latin-1": { ...base, description: "Caf\u00e9, 5 \u00a3" },
  "beyond Latin-1": { ...base, description: "Caf\u00e9 \u2014 \u{1f600} \ufb33" },
  "the scheme's name in a text": { ...base, realm: "contact Payment support", description: "a, Payment id=1" },
  "splits": {
    ...base,
    request: {
      ...evmRequest,
      externalId: "order_1",
      methodDetails: {
        chainId,
        credentialTypes: ["permit2", "authorization"],
        permit2Address: "0x000000000022D473030F116dDEE9F6B43aC78BA3",
        splits: [{ recipient: account.address, amount: "500", memo: "platform fee" }],
      },
    },
  },
  session: {
    ...base,
    intent: "session",
    request: {
      amount: "100",
      unitType: "llm_token",
      suggestedDeposit: "5000000",
      currency: token,
      recipient: payee,
      methodDetails: { escrowContract: payee, chainId: 196, minVoucherDelta: "10000" },
    },
  },
  stripe: {
    ...base,
    method: "stripe",
    request: {
      amount: "5000",
      currency: "usd",
      methodDetails: { networkId: "profile_1", paymentMethodTypes: ["card", "link"] },
    },
  },
  tempo: {
    ...base,
    method: "tempo",
    request: {
      amount: "1000000",
      currency: "0x20c0000000000000000000000000000000000001",
      recipient: payee,
      methodDetails: { chainId: 42431, feePayer: true, supportedModes: ["pull"] },
    },
  },
  "a method and an intent of nobody": { ...base, method: "acme:pay_2", intent: "lend-Out", request: { any: [1, null] } },
};
const challenges = [];
for (const [name, parameters] of Object.entries(made)) {
  const header = Challenge.serialize(Challenge.from(parameters));
  const json = Challenge.deserialize(header);
  assert(Challenge.verify(json, { secretKey }), name);
  challenges.push({ name, header, json, echo: JSON.parse(decode(Credential.serialize({ challenge: json, payload: {} }))).challenge });
}
function decode(credential) {
  return Buffer.from(credential.replace(/^Payment /, ""), "base64url").toString();
}

// Headers of several schemes, and spellings that the package never writes.

const one = challenges[0].header;
const two = challenges.find(({ name }) => name === "stripe").header;
const required = 'id="a", realm="r", method="evm", intent="charge", request="e30"';
const headers = {
  "two in one line": `${one}, ${two}`,
  "Bearer before": `Bearer realm="x", error="a, Payment b", ${one}`,
  "Bearer and Basic behind": `${one}, Bearer, Basic realm="y"`,
  "between others": `Negotiate dG9rZW4=, ${two}, Digest qop="auth", ${one}`,
  "names in another case": `PAYMENT ID="a", Realm="r", METHOD="evm", inTent="charge", request="e30"`,
  "blanks around": `Payment  id = "a" ,\trealm="r" ,, method="evm",intent="charge" , request="e30" `,
  "values without quotes": `Payment id=a, realm=r, method=evm, intent=charge, request=e30, expires=2026-11-21T12:05:00Z`,
  "parameters of nobody": `Payment ${required}, foo="bar", baz=qux`,
  "escapes of everything": `Payment ${required}, description="\\a\\"\\\\ \\u00e9 \\ud83d\\ude00"`,
  "a text with quotes that are not escaped": `Payment ${required}, description="Payment for "Premium" service \u2014 50%"`,
};
const lists = Object.entries(headers).map(([name, header]) => ({
  name,
  header,
  challenges: Challenge.deserializeList(header),
}));

const without = key => required.split(", ").filter(part => !part.startsWith(`${key}=`)).join(", ");
const malformed = Object.entries({
  "another scheme": ["Bearer token123", "no_payment_scheme"],
  nothing: ["", "no_payment_scheme"],
  "the scheme alone": ["Payment", "missing_member"],
  "a token in place of parameters": ["Payment e30", "missing_member"],
  ...Object.fromEntries(
    ["id", "realm", "method", "intent", "request"].map(key => [`without ${key}`, [`Payment ${without(key)}`, "missing_member"]]),
  ),
  "an empty id": [`Payment ${required.replace('"a"', '""')}`, "empty_member"],
  "a parameter twice": [`Payment ${required}, id="b"`, "duplicate_param"],
  "a parameter twice in two cases": [`Payment ${required}, ID="b"`, "duplicate_param"],
  "a parameter of nobody twice": [`Payment ${required}, x=1, X=2`, "duplicate_param"],
  "a request that is not base64url": [`Payment ${required.replace("e30", "not-valid!!!")}`, "not_base64url"],
  "a padded request": [`Payment ${required.replace("e30", "e30=")}`, "not_base64url"],
  "a request in the standard alphabet": [`Payment ${required.replace("e30", "eyJhIjoiPz8/In0")}`, "not_base64url"],
  "a request with idle bits": [`Payment ${required.replace("e30", "e31")}`, "not_base64url"],
  "a request that is no JSON": [`Payment ${required.replace("e30", "bm90IGpzb24")}`, "not_json"],
  "a request that is an array": [`Payment ${required.replace("e30", "W10")}`, "wrong_type"],
  "a request with a key twice": [`Payment ${required.replace("e30", "eyJhIjoxLCJhIjoyfQ")}`, "duplicate_key"],
  "a method in capitals": [`Payment ${required.replace("evm", "EVM")}`, "bad_form"],
  "a method that begins with a digit": [`Payment ${required.replace("evm", "1evm")}`, "bad_form"],
  "an intent with a blank": [`Payment ${required.replace("charge", "cha rge")}`, "bad_form"],
  "an expiry that is none": [`Payment ${required}, expires="tomorrow"`, "bad_form"],
  "an expiry on the 30th of February": [`Payment ${required}, expires="2026-02-30T00:00:00Z"`, "bad_form"],
  "a digest of another kind": [`Payment ${required}, digest="md5=abc"`, "bad_form"],
  "a header with a blank": [`Payment ${required}, header="a b"`, "bad_form"],
  "half of a surrogate pair": [`Payment ${required}, description="\\ud83d x"`, "bad_form"],
  "a line break in an escape": [`Payment ${required}, description="a\\u000d\\u000ab"`, "bad_form"],
  "a string without an end": [`Payment ${required}, description="abc`, "unterminated_string"],
  "a string that ends in a backslash": [`Payment ${required}, description="abc\\`, "unterminated_string"],
  "a value that is missing": [`Payment ${required}, description=`, "syntax"],
  "a comma that is missing": [`Payment ${required} description="x"`, "syntax"],
}).map(([name, [header, code]]) => ({ name, header, code, taken_by_peer: attempt(() => Challenge.deserialize(header)) !== undefined }));

write("challenges.json", { secret: secretKey, challenges, lists, malformed });

// Ids. Secrets, parameters and results are those of the public conformance cases; the results are computed anew here.

const alt = "test-secret-key-12345-minimum-32-byte-secret";
const usd = "0x20c0000000000000000000000000000000000001";
const X48 = "sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE";
const tempo = { secretKey, realm: "api.example.com", method: "tempo", intent: "charge", request: { amount: "1000000" } };
const known = [
  [{}, "6QDs0BmhrI_v67iWeCMvGqQJEFQ6ErWKlk7zi5xL6t0"],
  [{ expires: "2025-01-06T12:00:00Z" }, "ZcHgfEi5_Qyda9NQwUzamsCgCcWXw6N6EH2NLyaSTlg"],
  [{ digest: X48 }, "vwnOtW2kwdujK9_uC_taI2e6Jwq86Jwogvq9m--i8eQ"],
  [{ expires: "2025-01-06T12:00:00Z", digest: X48 }, "HSUJV7QH1E135PSDPlrZ5cLoozV3bv5T4vfVdS3Xyzk"],
  [{ opaque: "trace-123" }, "1XJ-Ti0DACNe3E1zHvwH6OdnKlhUx6xKxDbhJyexng4"],
  [{ header: "Payment-Authorization" }, "re8MIMJYpIJ0r_aiizscg6ghtipQM8IpOa_NtpwIU8E"],
  [{ header: "Authorization" }, "6QDs0BmhrI_v67iWeCMvGqQJEFQ6ErWKlk7zi5xL6t0"],
  [{ request: { amount: "1000" }, opaque: "eyJyb3V0ZSI6Ii9hcGkvcHJlbWl1bSJ9" }, "qKB3Cm8efoWftvkRf43R5GxatYiXuZPxhs2kA3CvxGM"],
  [{ description: "API access payment required" }, "6QDs0BmhrI_v67iWeCMvGqQJEFQ6ErWKlk7zi5xL6t0"],
  [{ request: { amount: "1000000", currency: "0x1234", recipient: "0xabcd" } }, "I8ZLhCXrskUbWuwYSSM0My-wk3mnL9_w8cDlEcs2UFo"],
  [{ request: { amount: "1000000", currency: "0x1234", methodDetails: { chainId: 42431 } } }, "W8sYOWDDrcuRcku27vjJoqLX0uAnBmql7qAOuQwdmPo"],
  [{ request: { amount: "1500", currency: "USD", description: "Access <premium> & analytics", recipient: "merchant" } }, "iU2QdYw_u-prmGZWxm58jeBakeYE-ib_u77f9vcW76E"],
  [{ request: { amount: "1000", currency: "USD", recipient: "merchant", resource: "/charge/query-replay?tier=basic" } }, "ge6Ckot8ZHZB_S-6OOlzuKOnUhndJIUarP-zPCtzleE"],
  [{ request: { amount: "2500", currency: "USD", externalId: "server-order-123", recipient: "merchant" } }, "PyzaHuf-58VJxeH7oErmMTlnKZZ5yYzRVueWW0MK1hI"],
  [{ request: { amount: "5000", currency: "USD", methodDetails: { chainId: 42431, feePayer: true, maxFeePerGas: "1000000" }, recipient: "merchant" } }, "Z-51rg0Ds7Xd9FnWiXT3aOs4vyuScuZkxnk-BNRy8QE"],
  [{ request: {} }, "SMpxo_gPWGquX9vAZ-b_OIPsHO3kfdY2s73946Mnwc0"],
  [{ realm: "payments.other.com" }, "NiwWsOUeZDNPegltJVbOHVKR4hHbZR5tnoQ80DVrqyY"],
  [{ method: "stripe" }, "IPY59YD2ZWmf3yXnZxbQgYoYejrVB9Nh_rpSkrOeSG0"],
  [{ intent: "session" }, "3bUB3LSxOG-lexqNCMGiV-p_j1UeibqWlA-saIiwo5A"],
  [{ secretKey: alt, request: { amount: "1000000", currency: usd, recipient: "0x1234567890abcdef1234567890abcdef12345678" } }, "Go8tV1muorsPUY3eQxjQ2oBMBDRPuK-jdO_E2sbtti8"],
  [{ secretKey: alt, request: { amount: "5000000", currency: usd, recipient: "0xabcdef1234567890abcdef1234567890abcdef12" }, expires: "2026-01-29T12:00:00Z" }, "DAgfntQtAmV_y2J9YWUh-UKvwRTxXhMCvX0uOFzvfOE"],
  [{ secretKey: "my-server-secret-minimum-32-byte-secret", realm: "payments.example.org", request: { amount: "250000", currency: "USD", recipient: "0x9999999999999999999999999999999999999999" }, digest: `${X48}=` }, "Wck1EzUjlCJIEPEyaYpuZ_8GxC-0TWZPJYcBTH6fwdU"],
  [{ secretKey: "test-secret-abc123-minimum-32-byte-secret", realm: "api.tempo.xyz", request: { amount: "10000000", currency: usd, recipient: "0x742d35Cc6634C0532925a3b844Bc9e7595f1B0F2", description: "API access fee", externalId: "order-12345" }, expires: "2026-02-01T00:00:00Z", digest: "sha-256=abc123def456" }, "_pLIgk1zfLjIqa1aXziYSyyHZLQZQ1WXCBSa3-DK6_E"],
  [{ secretKey: "different-secret-key-minimum-32-byte-secret", request: { amount: "1000000", currency: usd, recipient: "0x1234567890abcdef1234567890abcdef12345678" } }, "iox5xpRvWhpAMaIlMZIKRJHGOIiCNDJrE28AljJJzyE"],
  [{ secretKey: "test-key-minimum-32-byte-secret-key", realm: "test.example.com", intent: "authorize", request: {} }, "XOelcFKZ14F8K1KtmsQsN-PKrpBg2_pwnLg0HJUOd1g"],
  [{ secretKey: "unicode-test-key-minimum-32-byte-secret", request: { amount: "100", currency: "EUR", recipient: "0x1111111111111111111111111111111111111111", description: "Payment for caf\u00e9 \u2615" } }, "-UB9jxfPEvTmFw7qvLmqJhDZ-lJ-noCp15ROxPHC4BE"],
  [{ secretKey: "nested-test-key-minimum-32-byte-secret", realm: "api.tempo.xyz", request: { amount: "5000000", currency: usd, recipient: "0x2222222222222222222222222222222222222222", methodDetails: { chainId: 42431, feePayer: true } } }, "rWfhir6e_bnIQdbh6tHUosPEHnxLIaWRDWs-zNHeYug"],
  [{ secretKey: "case-sensitive-key-minimum-32-bytes", request: { amount: "1000000", Currency: "USD", ZONE: "eu-1", network: { chainId: 42431, Layer: "L2" } } }, "oUJHedaukLx579-B6Apbsw_r17uJOqERHjQRjCVhP0M"],
];
const ids = known.map(([changed, id]) => {
  const { secretKey: secret, ...input } = { ...tempo, ...changed };
  const computed = Challenge.from({ ...input, secretKey: secret }).id;
  assert(computed === id, `${JSON.stringify(changed)}: ${computed}`);
  return { secret, input, id };
});
const canonical = [
  {},
  { b: 1, a: -2, "": 0 },
  { "\u20ac": 1, "\r": 2, "\ufb33": 3, 1: 4, "\u{1f600}": 5, "\u0080": 6, "\u00f6": 7 },
  { text: '\u0000\u001f\b\t\n\f\r"\\/<>&\u007f\u2028\u00e9\u{1f600}' },
  { numbers: [0, -0, 9007199254740991, -9007199254740991, 1e15, 10.0], null: null, bools: [true, false], nested: { z: {}, a: [] } },
].map(object => ({ object, text: Buffer.from(PaymentRequest.serialize(object), "base64url").toString() }));
write("ids.json", { ids, canonical });

// Credentials.

const evmMethod = evmCharge({ account, authorization: { name: "USDC", version: "2" }, networks: [chainId], currencies: [token] });
const signed = [];
for (const name of ["an expiry without milliseconds", "with everything"]) {
  const { header, json } = challenges.find(challenge => challenge.name === name);
  const challenge = Challenge.deserialize(header);
  const credential = await evmMethod.createCredential({ challenge, context: {} });
  signed.push({ name, header: credential, json: { ...JSON.parse(decode(credential)) }, request: json.request });
}
const challengeOf = name => Challenge.deserialize(challenges.find(challenge => challenge.name === name).header);
for (const [name, payload, of, source] of [
  ["a hash", { type: "hash", hash: keccak256(toBytes("farthing vectors: transaction")) }, "plain", `did:pkh:eip155:${chainId}:${account.address}`],
  ["a transaction", { type: "transaction", signature: "0x02f86b0180" }, "plain"],
  ["Stripe's token", { spt: "spt_1N4Zv32eZvKYlo2CPhVPkJlW", externalId: "client_order_789" }, "stripe"],
  ["a voucher", { action: "voucher", channelId, cumulativeAmount: "250000", signature: `0x${"ab".repeat(65)}` }, "session"],
  ["raw opaque", { type: "hash", hash: channelId }, "opaque as raw text"],
]) {
  const credential = Credential.serialize({ challenge: challengeOf(of), payload, ...(source && { source }) });
  signed.push({ name, header: credential, json: JSON.parse(decode(credential)) });
}
for (const { name, header } of signed) assert(Credential.deserialize(header), name);

const echo = JSON.parse(decode(signed[2].header)).challenge;
const print = json => `Payment ${Buffer.from(JSON.stringify(json)).toString("base64url")}`;
const legacy = print({ challenge: { ...echo, opaque: { scope: "GET /weather", a: "2" } }, payload: {} });
const normalized = Credential.deserialize(legacy).challenge.opaque;
const good = signed[2].header;
const badCredentials = Object.entries({
  "another scheme": ["Bearer eyJjaGFsbGVuZ2UiOnt9fQ", "no_payment_scheme"],
  "not base64url": ["Payment not-valid!!!", "syntax"],
  padded: [`Payment ${Buffer.from('{"a":1}').toString("base64")}`, "not_base64url"],
  "parameters in place of a token": ['Payment id="a"', "not_base64url"],
  "the scheme alone": ["Payment", "not_base64url"],
  "an array": ["Payment W10", "wrong_type"],
  "no JSON": ["Payment bm90IGpzb24", "not_json"],
  "two in one line": [`${good}, ${good}`, "several_credentials"],
  "without a challenge": [print({ payload: {} }), "missing_member"],
  "without a payload": [print({ challenge: echo }), "missing_member"],
  "a payload that is text": [print({ challenge: echo, payload: "0x" }), "wrong_type"],
  "without an id": [print({ challenge: { ...echo, id: undefined }, payload: {} }), "missing_member"],
  "an empty id": [print({ challenge: { ...echo, id: "" }, payload: {} }), "empty_member"],
  "an id that is a number": [print({ challenge: { ...echo, id: 1 }, payload: {} }), "wrong_type"],
  "a source that is an object": [print({ challenge: echo, payload: {}, source: {} }), "wrong_type"],
  "a source on no chain": [print({ challenge: echo, payload: {}, source: "did:pkh:eip155:0:0xab" }), "bad_form"],
  "a source without an address": [print({ challenge: echo, payload: {}, source: "did:pkh:eip155:1:0xab" }), "bad_address"],
  "opaque with a number": [print({ challenge: { ...echo, opaque: { a: 1 } }, payload: {} }), "wrong_type"],
  "an expiry that is none": [print({ challenge: { ...echo, expires: "soon" }, payload: {} }), "bad_form"],
  "a key twice": [`Payment ${Buffer.from('{"payload":{},"payload":{}}').toString("base64url")}`, "duplicate_key"],
}).map(([name, [header, code]]) => ({
  name,
  header,
  code,
  taken_by_peer: attempt(() => Credential.deserialize(Credential.extractPaymentScheme(header))) !== undefined,
}));
write("credentials.json", {
  payer: account.address,
  credentials: signed,
  legacy: { header: legacy, opaque: normalized },
  malformed: badCredentials,
});

// Receipts and problems.

const timestamp = "2026-11-21T12:00:00.000Z";
const receipts = [
  ["plain", { method: "evm", reference: channelId, status: "success", timestamp }],
  ["with references", { method: "stripe", reference: "pi_1", externalId: "order_1", status: "success", timestamp }],
  ["a subscription", { method: "tempo", reference: "0xab", subscriptionId: "sub_1", status: "success", timestamp }],
  ["members of nobody", { method: "evm", reference: "0xab", status: "success", timestamp: "2026-11-21T12:00:00Z", zeta: [1, "x"], alpha: null }],
  ["a session", Protocol.createSessionReceipt({ challengeId: "abc", channelId, acceptedCumulative: 250000n, spent: 237500n, units: 500 })],
].map(([name, receipt]) => {
  const header = Receipt.serialize(Receipt.from({ ...receipt, timestamp: name === "a session" ? timestamp : receipt.timestamp }));
  return { name, header, json: JSON.parse(Buffer.from(header, "base64url").toString()) };
});
const badReceipts = Object.entries({
  "a failure": [{ method: "evm", reference: "x", status: "failed", timestamp }, "bad_form"],
  "without a reference": [{ method: "evm", status: "success", timestamp }, "missing_member"],
  "without a method": [{ reference: "x", status: "success", timestamp }, "missing_member"],
  "a moment that is none": [{ method: "evm", reference: "x", status: "success", timestamp: "now" }, "bad_form"],
}).map(([name, [json, code]]) => {
  const header = Buffer.from(JSON.stringify(json)).toString("base64url");
  return { name, header, code, taken_by_peer: attempt(() => Receipt.deserialize(header)) !== undefined };
});
const problems = Object.entries(Errors)
  .filter(([name, value]) => name.endsWith("Error") && name !== "PaymentError" && typeof value === "function")
  .map(([name, Type]) => {
    const error = new Type({});
    return { name, json: error.toProblemDetails("abc"), text: JSON.stringify(error.toProblemDetails("abc")), mcp: Mcp.errorCode(error) };
  });
write("receipts.json", { receipts, malformed: badReceipts, problems });

// Client preferences.

const offers = ["tempo/charge", "tempo/session", "stripe/charge", "evm/charge", "evm/session"].map(key => {
  const [method, intent] = key.split("/");
  return { method, intent };
});
const preferences = [
  "tempo/charge, tempo/session, stripe/charge;q=0.5, solana/charge;q=0.3",
  "tempo/*, evm/*;q=0.6, */session;q=0.3",
  "tempo/charge, tempo/session;q=0, stripe/charge",
  "*/*;q=0.1, evm/charge ; q=1.000",
  "evm/charge;q=0.5, evm/charge;q=0.25",
  "*/charge;q=0.125,evm/*;q=0.25",
  "solana/charge",
  "evm/charge;v=1;q=0.7, , stripe/charge;x=y",
].map(header => {
  const entries = AcceptPayment.parse(header);
  return {
    header,
    printed: AcceptPayment.serialize(entries),
    entries: entries.map(({ method, intent, q }) => ({ method, intent, weight: Math.round(q * 1000) })),
    ranked: AcceptPayment.rank(offers, entries).map(offer => offers.indexOf(offer)),
  };
});
const badPreferences = [
  ["", "empty_member"],
  [" , ", "empty_member"],
  ["evm", "bad_form"],
  ["evm/", "empty_member"],
  ["EVM/charge", "bad_form"],
  ["evm/charge;q=1.1", "bad_form"],
  ["evm/charge;q=0.1234", "bad_form"],
  ["evm/charge;q=.5", "bad_form"],
  ["evm/charge;q=-1", "bad_form"],
  ["evm/charge;q", "bad_form"],
  ["evm/charge;q=0.5;q=0.6", "bad_form"],
].map(([header, code]) => ({ header, code, taken_by_peer: attempt(() => AcceptPayment.parse(header)) !== undefined }));
write("preferences.json", { offers, preferences, malformed: badPreferences });

// Events and frames of a stream. The frames of the crate `mpp` are written down from its types: it has no package here.

const need = { channelId, requiredCumulative: "250025", acceptedCumulative: "250000", deposit: "500000" };
const session = receipts.at(-1).json;
const events = [
  ["a message", Protocol.formatMessageEvent("hello")],
  ["a message of three lines", Protocol.formatMessageEvent("a\n\nb")],
  ["an empty message", Protocol.formatMessageEvent("")],
  ["need", Protocol.formatNeedVoucherEvent(need)],
  ["receipt", Protocol.formatReceiptEvent(session)],
].map(([name, text]) => ({ name, text, json: Protocol.parseEvent(text.trimEnd() === "event: message\ndata:" ? "data:" : text) }));
const frames = [
  Protocol.formatAuthorizationMessage("Payment e30"),
  Protocol.formatApplicationMessage("hello"),
  Protocol.formatCloseRequestMessage(),
  Protocol.formatCloseReadyMessage(session),
  Protocol.formatNeedVoucherMessage(need),
  Protocol.formatReceiptMessage(session),
  Protocol.formatErrorMessage({ message: "payment session closed", status: 402 }),
].map(text => {
  assert(Protocol.parseMessage(text) !== null || text.includes("receipt") || text.includes("ready"), text);
  return { framing: "mppx", text };
});
const crate = [
  { type: "credential", credential: "Payment e30" },
  { type: "challenge", challenge: JSON.parse(JSON.stringify(challenges[0].echo)) },
  { type: "challenge", challenge: JSON.parse(JSON.stringify(challenges[1].echo)), error: "voucher too small" },
  { type: "message", data: "hello" },
  { type: "message", data: { prompt: "hello" } },
  { type: "needVoucher", ...need },
  { type: "receipt", receipt: session },
  { type: "error", error: "payment failed" },
].map(frame => ({ framing: "mpp-rs", text: JSON.stringify(frame) }));
write("streams.json", { events, frames: [...frames, ...crate] });

// Digests of bodies.

const bodies = ["", "{}", '{"city":"Rome"}', "caf\u00e9"].map(body => ({ body, digest: BodyDigest.compute(body) }));
for (const { body, digest } of bodies) assert(BodyDigest.verify(digest, body), digest);
write("digests.json", { bodies, names: Constants.Headers });

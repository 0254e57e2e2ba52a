// Writes vectors/x402-wire/*.json with the published x402 packages: challenges, payments, receipts, the facilitator's
// messages, and what the packages say of malformed and mismatching ones.
//
// Run it with `node interop/vectors/generate-wire.mjs` after `npm install` in `interop/`. The clock and the randomness
// of the packages are replaced by fixed ones, so the output depends on nothing but this file and their versions,
// which it records.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

let drawn = 0;
globalThis.crypto.getRandomValues = array => array.map((_, at) => (0xa7 + 31 * at + 17 * drawn++) & 0xff);
Date.now = () => 1795251263000;

const { keccak256, toBytes } = await import("viem");
const { privateKeyToAccount } = await import("viem/accounts");
const http = await import("@x402/core/http");
const { isPaymentPayload } = await import("@x402/core/schemas");
const { x402Client } = await import("@x402/core/client");
const { HTTPFacilitatorClient, x402ResourceServer } = await import("@x402/core/server");
const { x402Facilitator } = await import("@x402/core/facilitator");
const { ExactEvmScheme: ExactClient } = await import("@x402/evm/exact/client");
const { ExactEvmScheme: ExactServer } = await import("@x402/evm/exact/server");
const { ExactEvmSchemeV1: ExactClientV1 } = await import("@x402/evm/exact/v1/client");
const { declareEip2612GasSponsoringExtension } = await import("@x402/extensions");
const { appendPaymentIdentifierToExtensions, declarePaymentIdentifierExtension } = await import(
  "@x402/extensions/payment-identifier"
);
const { createPaymentHeader } = await import("x402/client");
const { settleResponseHeader } = await import("x402/types");
const { exact: exactV1 } = await import("x402/schemes");
const { useFacilitator } = await import("x402/verify");
const { paymentMiddleware } = await import("x402-express");

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "..", "..", "vectors", "x402-wire");
const require = createRequire(import.meta.url);
const versionOf = name => {
  const paths = require.resolve.paths(name).map(path => join(path, name, "package.json"));
  for (const path of paths) {
    try {
      return `${name} ${JSON.parse(readFileSync(path, "utf8")).version}`;
    } catch {
      // Not in this directory.
    }
  }
  throw new Error(`${name} is not installed`);
};
const madeWith = ["@x402/core", "@x402/evm", "@x402/extensions", "x402", "x402-express", "viem"].map(versionOf).join(", ");
const write = (name, body) => {
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, name), JSON.stringify({ made_with: madeWith, ...body }, null, 2) + "\n");
};
const assert = (truth, message) => {
  if (!truth) throw new Error(message);
};

const account = privateKeyToAccount(keccak256(toBytes("farthing vectors: payer")));
const payee = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
const relayer = privateKeyToAccount(keccak256(toBytes("farthing vectors: relayer"))).address;
const network = "eip155:84532";
const transaction = keccak256(toBytes("farthing vectors: transaction"));

// A facilitator that listens to nobody, and records what it is asked.
let asked = [];
let answer = {};
globalThis.fetch = async (url, init) => {
  asked.push({ url: String(url), body: init?.body });
  return new Response(JSON.stringify(answer), { status: 200, headers: { "content-type": "application/json" } });
};

// Version 2, the server.

const facilitator = new x402Facilitator();
const extensionNames = ["eip2612GasSponsoring", "payment-identifier"];
for (const name of extensionNames) facilitator.registerExtension({ key: name });
facilitator.register([network, "eip155:8453"], {
  scheme: "exact",
  caipFamily: "eip155:*",
  getExtra: () => undefined,
  getSigners: () => [relayer],
});
const supported = facilitator.getSupported();
answer = supported;
const remote = new HTTPFacilitatorClient({ url: "https://facilitator.example" });
const server = new x402ResourceServer(remote).register("eip155:*", new ExactServer());
await server.initialize();

const resource = {
  url: "https://api.example.com/premium-data?q=caf\u00e9",
  description: "Premium \u201cmarket\u201d data \u2014 \u20ac and \u{1F4B6}",
  mimeType: "application/json",
  serviceName: "Example",
  tags: ["market", "data"],
  iconUrl: "https://api.example.com/icon.png",
};
const offer = async (price, extra, on = network) =>
  (await server.buildPaymentRequirements({ scheme: "exact", payTo: payee, price, network: on, maxTimeoutSeconds: 60, extra }))[0];
const eip3009 = await offer("$0.01", { binding: "v1.AbCdEf-_0123" });
const mainnet = await offer("$0.02", undefined, "eip155:8453");
const permit2 = await offer("$0.001", { assetTransferMethod: "permit2" });

const extensions = {
  "payment-identifier": declarePaymentIdentifierExtension(true),
  bazaar: { info: { input: { type: "http", method: "GET", queryParams: { q: "caf\u00e9", n: 1.5e-7, big: 1e21 } } }, schema: {} },
};
const required = (accepts, error, declared) => server.createPaymentRequiredResponse(accepts, resource, error, declared);
const challenges = {
  plain: await required([eip3009], "Payment required"),
  several: await required([mainnet, eip3009, permit2]),
  extended: await required([eip3009, permit2], "Payment required", extensions),
  sponsored: await required([permit2], "Payment required", declareEip2612GasSponsoringExtension()),
};

// Version 2, the client.

const signer = {
  address: account.address,
  signTypedData: message => account.signTypedData(message),
  readContract: async ({ functionName }) => (functionName === "nonces" ? 3n : 0n),
};
const client = new x402Client().register("eip155:*", new ExactClient(signer));
const payments = {
  eip3009: await client.createPaymentPayload(challenges.plain),
  permit2: await client.createPaymentPayload({ ...challenges.plain, accepts: [permit2] }),
  // The helper below writes into the extensions it is given, which are the server's own objects.
  identified: structuredClone(await client.createPaymentPayload({ ...challenges.extended, accepts: [eip3009] })),
  sponsored: await client.createPaymentPayload(challenges.sponsored),
};
appendPaymentIdentifierToExtensions(payments.identified.extensions, "pay_7d5d747be160e280504c099d984bcfe0");
assert(payments.sponsored.extensions?.eip2612GasSponsoring?.info?.signature, "the permit was not signed");

const receipts = {
  settled: { success: true, payer: account.address, transaction, network },
  failed: { success: false, errorReason: "insufficient_funds", payer: account.address, transaction: "", network },
  pending: { success: false, errorReason: "settlement_pending", payer: account.address, transaction, network },
  detailed: {
    success: true,
    payer: account.address,
    transaction,
    network,
    amount: "10000",
    extensions: { "offer-receipt": { info: { n: 1 } } },
    extra: { chargedAmount: "10000" },
  },
};

const named = (messages, f) => Object.entries(messages).map(([name, json]) => f(name, JSON.parse(JSON.stringify(json))));
write("v2.json", {
  challenges: named(challenges, (name, json) => ({ name, header: http.encodePaymentRequiredHeader(json), json })),
  payments: named(payments, (name, json) => ({ name, header: http.encodePaymentSignatureHeader(json), json })),
  receipts: named(receipts, (name, json) => ({ name, header: http.encodePaymentResponseHeader(json), json })),
});

// Version 1: the old server and client, and the new client where it meets an old server.

const challengeV1 = await new Promise((resolve, reject) => {
  const routes = {
    "GET /weather": {
      price: "$0.001",
      network: "base-sepolia",
      config: { description: "Weather \u2014 today", mimeType: "application/json", outputSchema: { temperature: { type: "number" } } },
    },
  };
  const request = {
    method: "GET",
    path: "/weather",
    originalUrl: "/weather",
    protocol: "http",
    headers: { host: "api.example.com" },
    header: () => undefined,
  };
  const response = { status: code => (assert(code === 402, "not a 402"), response), json: resolve };
  paymentMiddleware(payee.toLowerCase(), routes, { url: "https://facilitator.example" })(request, response, reject).catch(reject);
});
const wireChallengeV1 = JSON.parse(JSON.stringify(challengeV1));
const [requirementsV1] = wireChallengeV1.accepts;
const oldHeader = await createPaymentHeader(account, 1, requirementsV1);
const oldPayment = exactV1.evm.decodePayment(oldHeader);
const newPayment = await new ExactClientV1(signer).createPaymentPayload(1, requirementsV1);
const receiptsV1 = {
  settled: { success: true, transaction, network: "base-sepolia", payer: account.address },
  failed: { success: false, errorReason: "invalid_transaction_state", transaction: "", network: "base-sepolia", payer: account.address },
};
write("v1.json", {
  challenges: [{ name: "x402-express", body: JSON.stringify(challengeV1), json: wireChallengeV1 }],
  payments: [
    { name: "x402", header: oldHeader, json: JSON.parse(Buffer.from(oldHeader, "base64").toString("utf8")) },
    { name: "@x402/evm", header: http.encodePaymentSignatureHeader(newPayment), json: newPayment },
  ],
  receipts: named(receiptsV1, (name, json) => ({ name, header: settleResponseHeader(json), json })),
});

// What servers ask a facilitator.

asked = [];
answer = { isValid: true, payer: account.address };
await remote.verify(payments.eip3009, eip3009);
await remote.verify(payments.permit2, permit2);
await useFacilitator({ url: "https://facilitator.example" }).verify(oldPayment, requirementsV1);
answer = { success: true, transaction, network, payer: account.address };
await remote.settle(payments.sponsored, permit2);
await useFacilitator({ url: "https://facilitator.example" }).settle(oldPayment, requirementsV1);
write("facilitator.json", {
  requests: asked.map(({ url, body }) => ({ path: new URL(url).pathname, body })),
  verify: [
    { isValid: true, payer: account.address },
    { isValid: false, invalidReason: "invalid_exact_evm_nonce_already_used", invalidMessage: "used", payer: account.address },
    { isValid: false, invalidReason: "something_new", payer: null },
  ].map(json => ({ body: JSON.stringify(json), json })),
  supported: { body: JSON.stringify(supported), json: JSON.parse(JSON.stringify(supported)) },
});

// What the published server says of an offer that comes back changed.

const base = JSON.parse(JSON.stringify(eip3009));
const nested = { ...base, extra: { ...base.extra, deep: { list: [1, { a: 1, b: 2 }], on: true }, n: 1 } };
const change = (path, value, of = base) => {
  const copy = structuredClone(of);
  const last = path.at(-1);
  const at = path.slice(0, -1).reduce((object, key) => object[key], copy);
  if (value === undefined) delete at[last];
  else at[last] = value;
  return copy;
};
const reversed = object =>
  object && typeof object === "object" && !Array.isArray(object)
    ? Object.fromEntries(Object.entries(object).reverse().map(([key, value]) => [key, reversed(value)]))
    : object;
const pairs = [
  ["same", base, base],
  ["keys in another order", nested, reversed(nested)],
  ["array in another order", nested, change(["extra", "deep", "list"], [{ a: 1, b: 2 }, 1], nested)],
  ["keys in another order inside an array", nested, change(["extra", "deep", "list"], [1, { b: 2, a: 1 }], nested)],
  ["more in extra", base, change(["extra", "more"], "x")],
  ["more in a nested object of extra", nested, change(["extra", "deep", "more"], "x", nested)],
  ["more in an object of an array", nested, change(["extra", "deep", "list"], [1, { a: 1, b: 2, c: 3 }], nested)],
  ["less in extra", base, change(["extra", "binding"], undefined)],
  ["less in a nested object", nested, change(["extra", "deep", "on"], undefined, nested)],
  ["another value in extra", base, change(["extra", "binding"], "v1.AbCdEf-_0124")],
  ["null in extra", base, change(["extra", "binding"], null)],
  ["another type in extra", nested, change(["extra", "n"], "1", nested)],
  ["no extra at all", base, change(["extra"], undefined)],
  ["extra where we have none", change(["extra"], undefined), base],
  ["extra nowhere", change(["extra"], undefined), change(["extra"], undefined)],
  ["empty extra", change(["extra"], {}), base],
  ["empty extra against none", change(["extra"], {}), change(["extra"], undefined)],
  ["an asset in lower case", base, change(["asset"], base.asset.toLowerCase())],
  ["a payee in lower case", base, change(["payTo"], base.payTo.toLowerCase())],
  ["another amount", base, change(["amount"], "10001")],
  ["another network", base, change(["network"], "eip155:8453")],
  ["another scheme", base, change(["scheme"], "upto")],
  ["another time-out", base, change(["maxTimeoutSeconds"], 61)],
  ["another payee", base, change(["payTo"], relayer)],
  ["an unknown member", base, { ...base, memo: "x" }],
  ["an unknown member on both sides", { ...base, memo: { a: 1, b: 2 } }, { ...base, memo: { b: 2, a: 1 } }],
  ["an unknown member missing", { ...base, memo: "x" }, base],
];
write("matching.json", {
  pairs: pairs.map(([name, ours, accepted]) => ({
    name,
    ours,
    accepted,
    matches: server.findMatchingRequirements([ours], { x402Version: 2, accepted, payload: {} }) !== undefined,
  })),
});

// What the published server says of extensions that come back changed.

const announced = {
  "payment-identifier": declarePaymentIdentifierExtension(true),
  "builder-code": { info: { a: "app", s: ["one"] }, schema: {} },
  bare: { n: 1 },
};
const id = "pay_7d5d747be160e280504c099d984bcfe0";
const echoes = [
  ["nothing", undefined],
  ["empty", {}],
  ["as announced", announced],
  ["one of several", { "payment-identifier": announced["payment-identifier"] }],
  ["an id added", change(["payment-identifier", "info", "id"], id, announced)],
  ["a flag changed", change(["payment-identifier", "info", "required"], false, announced)],
  ["a flag deleted", change(["payment-identifier", "info"], { id }, announced)],
  ["info deleted", { "payment-identifier": { schema: {} } }],
  ["schema deleted", change(["payment-identifier", "schema"], undefined, announced)],
  ["schema changed", change(["payment-identifier", "schema"], { x: 1 }, announced)],
  ["not an object", { "payment-identifier": "yes" }],
  ["never announced", { "sign-in-with-x": { info: { x: 1 }, schema: {} } }],
  ["services added", change(["builder-code", "info", "s"], ["two", "one"], announced)],
  ["services replaced", change(["builder-code", "info", "s"], ["two"], announced)],
  ["too many services", change(["builder-code", "info", "s"], ["one", ..."abcdefghij"], announced)],
  ["another app", change(["builder-code", "info", "a"], "other", announced)],
  ["an app that was not announced", { "builder-code": { info: { a: "mine" } } }, {}],
  ["services that were not announced", { "builder-code": { info: { s: ["mine"] } } }, {}],
  ["without info, kept", { bare: { n: 1, m: 2 } }],
  ["without info, changed", { bare: { n: 2 } }],
];
write("echo.json", {
  echoes: echoes.map(([name, echoed, by = announced]) => ({
    name,
    announced: by,
    echoed: echoed ?? null,
    valid: server.validateExtensions({ extensions: by }, { x402Version: 2, extensions: echoed }).valid,
  })),
});

// Payments that are not: our code, and whether the published decoder and schema take them.

const text = JSON.stringify(payments.eip3009);
const encode = text => Buffer.from(text, "utf8").toString("base64");
const unpadded = text => encode(text).replace(/=+$/, "");
const padded = [text, `${text} `, `${text}  `].find(candidate => encode(candidate).endsWith("=="));
const binary = [text, `${text} `, `${text}  `].find(candidate => !encode(candidate).endsWith("="));
const edit = (path, value) => encode(JSON.stringify(change(path, value, JSON.parse(text))));
const auth = ["payload", "authorization"];
const deep = n => encode(text.replace(/}$/, `,"deep":${"[".repeat(n)}${"]".repeat(n)}}`));
const urlSafe = encode(`${text.slice(0, -1)},"x":"\u00ff\u00fe\u07ff?>~~~~"}`).replaceAll("+", "-").replaceAll("/", "_");
assert(/[-_]/.test(urlSafe), "the base64url vector shows nothing");
const headers = [
  ["as published", encode(text), null],
  ["without padding", unpadded(padded), null],
  ["padded in part", `${unpadded(padded)}=`, "invalid_payload"],
  ["padded too much", `${encode(binary)}=`, "invalid_payload"],
  ["with a byte more of padding", `${encode(padded)}=`, "invalid_payload"],
  ["base64url", urlSafe, "invalid_payload"],
  ["a blank inside", `${encode(text).slice(0, 40)} ${encode(text).slice(40)}`, "invalid_payload"],
  ["a line break at the end", `${encode(text)}\n`, "invalid_payload"],
  ["not base64", "{}", "invalid_payload"],
  ["empty", "", "invalid_payload"],
  ["not JSON", encode("hello"), "invalid_payload"],
  ["not UTF-8", Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xff]), Buffer.from('"}')]).toString("base64"), "invalid_payload"],
  ["cut off", encode(text.slice(0, -1)), "invalid_payload"],
  ["two values", encode(`${text}{}`), "invalid_payload"],
  ["a byte order mark", encode(`\ufeff${text}`), "invalid_payload"],
  ["an array", encode("[]"), "invalid_payload"],
  ["null", encode("null"), "invalid_payload"],
  ["a key twice", encode(text.replace('"x402Version":2', '"x402Version":2,"x402Version":2')), "invalid_payload"],
  ["a nested key twice", encode(text.replace(/"value":"10000"/, '"value":"10000","value":"1"')), "invalid_payload"],
  ["a key twice by escape", encode(text.replace(/"value":"10000"/, '"value":"10000","v\\u0061lue":"1"')), "invalid_payload"],
  ["nested 31 levels", deep(31), null],
  ["nested 32 levels", deep(32), "invalid_payload"],
  ["nested 4000 levels", deep(4000), "invalid_payload"],
  ["a lone surrogate", edit(["resource", "description"], "\ud800"), "invalid_payload"],
  ["a comment", encode(text.replace("{", "{/**/")), "invalid_payload"],
  ["a trailing comma", encode(text.replace(/}$/, ",}")), "invalid_payload"],
  ["no version", edit(["x402Version"], undefined), "invalid_x402_version"],
  ["version 1 in a version 2 header", edit(["x402Version"], 1), "invalid_x402_version"],
  ["version 3", edit(["x402Version"], 3), "invalid_x402_version"],
  ["a version as text", edit(["x402Version"], "2"), "invalid_x402_version"],
  ["nothing accepted", edit(["accepted"], undefined), "invalid_payload"],
  ["accepted is null", edit(["accepted"], null), "invalid_payload"],
  ["accepted is a list", edit(["accepted"], []), "invalid_payment_requirements"],
  ["no payload", edit(["payload"], undefined), "invalid_payload"],
  ["a payload as text", edit(["payload"], "x"), "invalid_payload"],
  ["a network by its old name", edit(["accepted", "network"], "base-sepolia"), "invalid_network"],
  ["a network with a leading zero", edit(["accepted", "network"], "eip155:084532"), "invalid_network"],
  ["no scheme", edit(["accepted", "scheme"], undefined), "invalid_payment_requirements"],
  ["an empty scheme", edit(["accepted", "scheme"], ""), "invalid_payment_requirements"],
  ["a time-out of zero", edit(["accepted", "maxTimeoutSeconds"], 0), "invalid_payment_requirements"],
  ["a negative time-out", edit(["accepted", "maxTimeoutSeconds"], -60), "invalid_payment_requirements"],
  ["a broken time-out", edit(["accepted", "maxTimeoutSeconds"], 60.5), "invalid_payment_requirements"],
  ["a time-out as text", edit(["accepted", "maxTimeoutSeconds"], "60"), "invalid_payment_requirements"],
  ["an amount as a number", edit(["accepted", "amount"], 10000), "invalid_payment_requirements"],
  ["an amount with an exponent", edit(["accepted", "amount"], "1e4"), "invalid_payment_requirements"],
  ["a negative amount", edit(["accepted", "amount"], "-10000"), "invalid_payment_requirements"],
  ["a padded amount", edit(["accepted", "amount"], "010000"), "invalid_payment_requirements"],
  ["an amount beyond 128 bits", edit(["accepted", "amount"], (2n ** 128n).toString()), "invalid_payment_requirements"],
  ["an asset of 19 bytes", edit(["accepted", "asset"], base.asset.slice(0, -2)), "invalid_payment_requirements"],
  ["a payee in words", edit(["accepted", "payTo"], "merchant"), "invalid_payment_requirements"],
  ["nulls for absent members", encode(text.replace(/}$/, ',"extensions":null,"more":null}').replace(/"resource":\{.*?\},/, '"resource":null,')), null],
  ["unknown members", edit(["future"], { x: [1, 2, { y: null }] }), null],
  ["a service name of 33 characters", edit(["resource", "serviceName"], "x".repeat(33)), "invalid_payload"],
  ["six tags", edit(["resource", "tags"], [..."abcdef"]), "invalid_payload"],
  ["a control character in a tag", edit(["resource", "tags"], ["a\u0007"]), "invalid_payload"],
  ["a resource without a URL", edit(["resource", "url"], ""), "invalid_payload"],
];
const payloads = [
  ["as published", text, null],
  ["a value as a number", edit([...auth, "value"], 10000), "invalid_payload"],
  ["a value with an exponent", edit([...auth, "value"], "1e4"), "invalid_payload"],
  ["a signed value", edit([...auth, "value"], "+10000"), "invalid_payload"],
  ["a value in hex", edit([...auth, "value"], "0x2710"), "invalid_payload"],
  ["a value beyond 128 bits", edit([...auth, "value"], (2n ** 128n).toString()), "invalid_payload"],
  ["the largest value of 128 bits", edit([...auth, "value"], (2n ** 128n - 1n).toString()), null],
  ["a time beyond 128 bits", edit([...auth, "validBefore"], (2n ** 256n - 1n).toString()), null],
  ["a time beyond 256 bits", edit([...auth, "validBefore"], (2n ** 256n).toString()), "invalid_payload"],
  ["a time as a number", edit([...auth, "validAfter"], 0), "invalid_payload"],
  ["no time", edit([...auth, "validAfter"], undefined), "invalid_payload"],
  ["a nonce of 31 bytes", edit([...auth, "nonce"], `0x${"ab".repeat(31)}`), "invalid_payload"],
  ["a nonce without 0x", edit([...auth, "nonce"], "ab".repeat(32)), "invalid_payload"],
  ["a nonce in upper case", edit([...auth, "nonce"], `0x${"AB".repeat(32)}`), null],
  ["an address without 0x", edit([...auth, "from"], "ab".repeat(20)), "invalid_payload"],
  ["a signature with odd digits", edit(["payload", "signature"], "0xabc"), "invalid_payload"],
  ["an empty signature", edit(["payload", "signature"], "0x"), "invalid_payload"],
  ["a signature that is not hex", edit(["payload", "signature"], "0xzz"), "invalid_payload"],
  ["a signature of 4096 bytes", edit(["payload", "signature"], `0x${"ab".repeat(4096)}`), null],
  ["a signature of 4097 bytes", edit(["payload", "signature"], `0x${"ab".repeat(4097)}`), "invalid_payload"],
  ["two methods at once", edit(["payload", "permit2Authorization"], {}), "invalid_payload"],
  ["no method", edit(auth, undefined), "unsupported_payload_type"],
  ["ERC-7710", edit(["payload"], { delegationManager: relayer, permissionContext: "0x00", delegator: relayer }), "unsupported_payload_type"],
];
const taken = header => {
  try {
    return isPaymentPayload(http.decodePaymentSignatureHeader(header));
  } catch {
    return false;
  }
};
write("malformed.json", {
  headers: headers.map(([name, header, code]) => ({ name, header, code, taken_by_peer: taken(header) })),
  payloads: payloads.map(([name, header, code]) => ({
    name,
    payload: JSON.parse(header.startsWith("{") ? header : Buffer.from(header, "base64").toString("utf8")).payload,
    code,
  })),
});

#!/usr/bin/env node
// AP2 mandates from the command line. Node signs the chains, with its own cryptography and nothing of ours: a merchant its
// checkout, an agent provider the open mandates, an agent the closed ones. Each is authorized once, also across processes.

import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { farthingBin } from "../../interop/support/paths.mjs";

const bin = farthingBin();
const dir = mkdtempSync(join(tmpdir(), "farthing-ap2-"));
process.on("exit", () => rmSync(dir, { recursive: true, force: true }));

let failed = 0;
let passed = 0;
const check = (what, holds, detail) => {
  console.log(`${holds ? "ok   " : "FAIL "} ${what}${holds ? "" : `: ${JSON.stringify(detail)}`}`);
  if (holds) passed += 1;
  else failed += 1;
};

const b64 = (bytes) => Buffer.from(bytes).toString("base64url");
const json = (value) => b64(JSON.stringify(value));
const sha256 = (text) => createHash("sha256").update(text).digest("base64url");
const key = () => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { privateKey, jwk: publicKey.export({ format: "jwk" }) };
};
const jwt = (by, header, payload) => {
  const signed = `${json({ alg: "ES256", ...header })}.${json(payload)}`;
  return `${signed}.${b64(sign("sha256", Buffer.from(signed), { key: by.privateKey, dsaEncoding: "ieee-p1363" }))}`;
};
const file = (name, text) => {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
};

/** One SD-JWT: `hide(value)` and `hide(name, value)` give digests, and what they hide is shown unless `keep` says no. */
const sdJwt = (by, header, payload, build) => {
  const shown = [];
  const hide = (parts, keep = true) => {
    const text = json([b64(randomBytes(16)), ...parts]);
    if (keep) shown.push(text);
    return sha256(text);
  };
  const mandate = build(hide);
  const body = { ...payload, _sd_alg: "sha-256", delegate_payload: [{ "...": hide([mandate]) }] };
  return [jwt(by, header, body), ...shown, ""].join("~");
};

const [provider, agent, merchant, stranger] = [key(), key(), key(), key()];
const now = Math.floor(Date.now() / 1000);
const shop = { id: "merchant_1", name: "Shoe Shop", website: "https://shoes.example" };
const other = { id: "merchant_2", name: "Other Shop", website: "https://other.example" };
const cart = (edit = {}) => ({
  id: b64(randomBytes(8)),
  merchant: shop,
  line_items: [{ id: "li_0", item: { id: "shoe-red", title: "Red shoe", price: 9950 }, quantity: 2 }],
  status: "incomplete",
  currency: "USD",
  totals: [{ type: "subtotal", amount: 19900 }, { type: "total", amount: 19900 }],
  links: [],
  ...edit,
});

const open = (vct, constraints) =>
  sdJwt(provider, { typ: "example+sd-jwt", kid: "provider-1" }, {}, (hide) => ({
    vct, constraints: constraints(hide), cnf: { jwk: agent.jwk }, iat: now - 60, exp: now + 600,
  }));
const closed = (before, aud, nonce, build, by = agent) =>
  sdJwt(by, { typ: "kb+sd-jwt" }, { iat: now, aud, nonce, sd_hash: sha256(before) }, build);

/** A checkout and a payment for it: four signatures, two chains. */
const bought = ({ more = [], by = agent, checkout = cart(), signer = merchant } = {}) => {
  const signed = jwt(signer, { typ: "JWT" }, checkout);
  const openCheckout = open("mandate.checkout.open.1", (hide) => [
    { type: "checkout.line_items", items: [{ id: "line_1", acceptable_items: [{ "...": hide([{ id: "shoe-red", title: "Red" }]) }, { "...": hide([{ id: "shoe-blue", title: "Blue" }], false) }], quantity: 2 }] },
    { type: "checkout.allowed_merchants", allowed: [{ "...": hide([shop]) }, { "...": hide([other], false) }] },
  ]);
  const closedCheckout = closed(openCheckout, "merchant", "-nonce-m", (hide) => ({
    vct: "mandate.checkout.1", checkout_hash: sha256(signed), _sd: [hide(["checkout_jwt", signed])],
  }));
  const openPayment = open("mandate.payment.open.1", (hide) => [
    { type: "payment.reference", conditional_transaction_id: sha256(openCheckout) },
    { type: "payment.amount_range", currency: "USD", max: 20000 },
    { type: "payment.allowed_payees", allowed: [{ "...": hide([shop]) }] },
    ...more,
  ]);
  const closedPayment = closed(openPayment, "credential-provider", "-nonce-p", () => ({
    vct: "mandate.payment.1",
    transaction_id: sha256(signed),
    payee: shop,
    payment_amount: { amount: 19900, currency: "USD" },
    payment_instrument: { id: "card-1", type: "card", description: "Card 4242" },
  }), by);
  return { signed, checkout: `${openCheckout}~${closedCheckout}`, payment: `${openPayment}~${closedPayment}` };
};

const keys = ["--root", file("provider.jwk", JSON.stringify({ ...provider.jwk, kid: "provider-1" })), "--merchant", `merchant_1=${file("merchant.jwk", JSON.stringify(merchant.jwk))}`];
const run = (words, input) => {
  const ended = spawnSync(bin, ["ap2", "verify", ...words], { input, encoding: "utf8", env: { ...process.env, FARTHING_HOME: join(dir, "home") } });
  let answer = null;
  try {
    answer = JSON.parse(ended.stdout);
  } catch {
    // Wrong calls say what they have to say on the other stream.
  }
  return { code: ended.status, answer, stderr: ended.stderr };
};
const asMerchant = (made, ...more) => run(["-", ...keys, "--audience", "merchant", "--nonce", "-nonce-m", ...more], `${made.checkout}\n`);
const asProvider = (made, ...more) =>
  run([file("payment.txt", made.payment), ...keys, "--audience", "credential-provider", "--nonce", "-nonce-p", "--checkout", file("checkout.txt", made.checkout), "--checkout-audience", "merchant", "--checkout-nonce", "-nonce-m", ...more]);
const refused = (what, { code, answer, stderr }, why) =>
  check(what, code === 3 && answer?.authorized === false && answer?.code === why, { code, answer, stderr });

const made = bought();
const looked = asProvider(made, "--look");
check("a payment that is only looked at is valid and authorizes nothing", looked.code === 0 && looked.answer.valid && !looked.answer.authorized, looked);
const paid = asProvider(made);
check("the payment is authorized", paid.code === 0 && paid.answer?.authorized === true && paid.answer?.used_up === true, paid);
check("and says to whom, how much, by what", paid.answer?.payee.id === "merchant_1" && paid.answer?.amount.minor_units === "19900" && paid.answer?.amount.currency === "USD" && paid.answer?.instrument.id === "card-1", paid.answer);
check("and that nothing was paid", paid.answer?.paid === false, paid.answer);
check("by the constraints that it met", paid.answer?.constraints.length === 3, paid.answer);
refused("a second process refuses the same payment", asProvider(made), "ap2_replayed");
const approved = asMerchant(made, "--sent", file("sent.jwt", made.signed));
check("the merchant is told that its checkout is approved", approved.code === 0 && approved.answer?.checkout_hash === sha256(made.signed), approved);
refused("once", asMerchant(made), "ap2_replayed");

const hinted = bought();
const told = ["--audience", "credential-provider", "--nonce", "-nonce-p", "--transaction-id", sha256(hinted.signed)];
refused("a reference that nobody resolved is refused", run(["-", ...keys, ...told], hinted.payment), "ap2_reference_unresolved");
check("what was refused was not used up", run(["-", ...keys, ...told, "--open-checkout", sha256(`${hinted.checkout.split("~~")[0]}~`)], hinted.payment).code === 0);

refused("another nonce", run(["-", ...keys, "--audience", "merchant", "--nonce", "other"], bought().checkout), "ap2_nonce");
refused("a wrong cnf", asProvider(bought({ by: stranger })), "ap2_signature");
refused("an unknown constraint", asProvider(bought({ more: [{ type: "payment.on_sundays" }] })), "ap2_unknown_constraint");
refused("a cart that the merchant did not sign", asMerchant(bought({ signer: stranger })), "ap2_checkout_signature");
const lines = [{ id: "li_0", item: { id: "shoe-red", title: "Red shoe", price: 9950 }, quantity: 1 }];
refused("a cart with less in it", asMerchant(bought({ checkout: cart({ line_items: lines }) })), "ap2_line_items");
refused("a cart of another price than the payment", asProvider(bought({ checkout: cart({ totals: [{ type: "total", amount: 19901 }] }) })), "ap2_total_differs");
refused("another checkout than was sent", asMerchant(bought(), "--sent", file("sent.jwt", made.signed)), "ap2_checkout_hash");
refused("a chain that is none", run(["-", ...keys, "--audience", "a", "--nonce", "b"], "hello"), "ap2_form");
const budget = bought({ more: [{ type: "payment.budget", max: 199, currency: "USD" }] });
refused("a budget is in minor units", asProvider(budget), "ap2_budget");
check("nobody is trusted by default", run(["-", "--audience", "a", "--nonce", "b"], made.checkout).code === 2);
check("a private key is no key to trust", run(["-", "--root", file("p.jwk", JSON.stringify(provider.privateKey.export({ format: "jwk" }))), "--audience", "a", "--nonce", "b"], made.checkout).code === 2);

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);

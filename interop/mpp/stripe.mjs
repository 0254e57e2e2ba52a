#!/usr/bin/env node
// `stripe/charge` with the published mppx and the Rust crate mpp as buyers, through our gateway, on our stand-in for Stripe: a program of ours
// (crates/stripe/examples/stand-in.rs), and not Stripe. What counts is what the stand-in has charged and how often the
// service behind was called; at the end our books are checked, and have as much.
//
//   node interop/mpp/stripe.mjs [--filter TEXT] [--list]

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { webcrypto } from "node:crypto";
import { Challenge, Credential } from "mppx";
import { Mppx, stripe } from "mppx/client";

import { lastLine, start } from "../support/bench.mjs";
import { Gateway, runCases, script } from "../support/gateway.mjs";
import { cacheDir, repo } from "../support/paths.mjs";
import { runToEnd } from "../support/process.mjs";
import { freePort } from "../support/world.mjs";

globalThis.crypto ??= webcrypto;

const SECRET_KEY = "sk_test_standin";
const PROFILE = "profile_test_interop";
const PROBLEMS = "https://paymentauth.org/problems/";
const CENTS = 50;
const CLIENT_TIMEOUT_MS = 30_000;

/** The stand-in's program: `STRIPE_STAND_IN`, else built from this checkout. */
function standInBin() {
  if (process.env.STRIPE_STAND_IN) return process.env.STRIPE_STAND_IN;
  const bin = resolve(repo, process.env.CARGO_TARGET_DIR ?? "target", "debug", "examples", "stand-in");
  if (!existsSync(bin)) {
    execFileSync("cargo", ["build", "--quiet", "-p", "farthing-stripe", "--example", "stand-in"], { cwd: repo, stdio: "inherit" });
  }
  return bin;
}

/** The buyer with the published Rust crate, built as its lockfile says. `MPP_RUST_CLIENT` names one that is built. */
function rustClientBin() {
  if (process.env.MPP_RUST_CLIENT) return process.env.MPP_RUST_CLIENT;
  const target = join(cacheDir(), "rust-client");
  const manifest = join(repo, "interop", "mpp", "rust-client", "Cargo.toml");
  const args = ["build", "--quiet", "--locked", "--manifest-path", manifest, "--target-dir", target];
  execFileSync("cargo", args, { stdio: "inherit" });
  return join(target, "debug", "farthing-interop-mpp");
}

const check = (condition, text, ...facts) => {
  if (!condition) throw new Error(`${text} (${facts.map((fact) => JSON.stringify(fact)).join("; ")})`);
};

const answer = (path) => [path === "/fails" ? 500 : 200, { message: "a report", path }];

class Shop extends Gateway {
  static async open() {
    const shop = new Shop();
    await shop.prepare(answer);
    const standIn = await freePort();
    shop.stripe = `http://127.0.0.1:${standIn}`;
    const { PATH, HOME } = process.env;
    shop.env = { PATH, HOME, STRIPE_SECRET_KEY: SECRET_KEY };
    shop.standIn = await start(standInBin(), "the stand-in", shop.env, shop.stripe, [`127.0.0.1:${standIn}`]);
    const route = (path, rest) => `\n[[route]]\nmatch = "GET ${path}"\n${rest}\n`;
    shop.configure("", `
[stripe]
secret_key = "env:STRIPE_SECRET_KEY"
network_id = "${PROFILE}"
payment_method_types = ["card", "link"]
api_base = "${shop.stripe}"
${["/report", "/fails", "/restart"].map((path) => route(path, 'stripe = "0.50 USD"')).join("")}
${route("/order", 'stripe = { price = "0.50 USD", external_id = "order_7" }')}
${route("/health", "free = true")}`);
    await shop.start();
    return shop;
  }

  async charged() {
    return (await fetch(`${this.stripe}/charged`)).json();
  }

  /** A token, as the buyer's agent gets it; here by the helper that Stripe has for tests. */
  async token({ paymentMethod, amount, currency, expiresAt }) {
    const form = new URLSearchParams({
      payment_method: paymentMethod, "usage_limits[currency]": currency, "usage_limits[max_amount]": String(amount),
      "usage_limits[expires_at]": String(expiresAt),
    });
    const headers = { authorization: `Basic ${Buffer.from(`${SECRET_KEY}:`).toString("base64")}` };
    const url = `${this.stripe}/v1/test_helpers/shared_payment/granted_tokens`;
    const response = await fetch(url, { method: "POST", headers, body: form });
    const body = await response.json();
    check(response.ok, "a token should be granted", body);
    return body.id;
  }

  /** mppx, with this card. */
  buyer(paymentMethod) {
    const createToken = ({ amount, currency, networkId, expiresAt }) => {
      check(networkId === PROFILE && currency === "usd" && amount === String(CENTS), "what is asked", networkId, currency, amount);
      return this.token({ paymentMethod, amount, currency, expiresAt });
    };
    return Mppx.create({ polyfill: false, methods: [stripe.charge({ createToken, paymentMethod })] });
  }

  async close() {
    await this.standIn.stop();
    await super.close();
  }
}

async function read(response) {
  const body = await response.json();
  return { status: response.status, body, headers: response.headers, goods: body.message === "a report" };
}

/** Runs `work`, and says what it cost and how often the service was called. */
async function watched(shop, path, work) {
  const [before, calls] = [await shop.charged(), shop.service.calls(path)];
  const result = await work();
  const after = await shop.charged();
  return { result, cents: after.amount - before.amount, charges: after.count - before.count, calls: shop.service.calls(path) - calls };
}

const CASES = {
  "mppx pays by card": async (shop) => {
    const bought = await watched(shop, "/report", async () => read(await shop.buyer("pm_card_visa").fetch(`${shop.url}/report`)));
    check(bought.result.goods && bought.cents === CENTS && bought.charges === 1 && bought.calls === 1, "should buy once", bought);
    const receipt = JSON.parse(Buffer.from(bought.result.headers.get("Payment-Receipt"), "base64url").toString("utf8"));
    check(receipt.method === "stripe" && receipt.status === "success" && /^pi_/.test(receipt.reference), "receipt", receipt);
  },

  "the Rust crate mpp pays by card, and is declined": async (shop) => {
    const buy = async (PAYMENT_METHOD) => {
      const env = {
        ...shop.env, PAYMENT_METHOD, STRIPE_API: shop.stripe, RESOURCE_SERVER_URL: shop.url, ENDPOINT_PATH: "/report",
      };
      const ended = await runToEnd(rustClientBin(), [], { env, timeoutMs: CLIENT_TIMEOUT_MS });
      return lastLine(ended);
    };
    const bought = await watched(shop, "/report", () => buy("pm_card_visa"));
    check(bought.result.status_code === 200 && /^pi_/.test(bought.result.reference), "should buy", bought);
    check(bought.charges === 1 && bought.calls === 1, "should be one charge and one sale", bought);
    const declined = await watched(shop, "/report", () => buy("pm_card_visa_chargeDeclined"));
    check(declined.result.status_code === 402 && declined.charges === 0, "should be declined", declined);
  },

  "mppx echoes the merchant's reference": async (shop) => {
    const bought = await watched(shop, "/order", async () => read(await shop.buyer("pm_card_visa").fetch(`${shop.url}/order`)));
    check(bought.result.goods && bought.charges === 1, "should buy", bought);
    const receipt = JSON.parse(Buffer.from(bought.result.headers.get("Payment-Receipt"), "base64url").toString("utf8"));
    check(receipt.externalId === "order_7", "the receipt should have it", receipt);
  },

  "an answer of Stripe's that is lost is one charge": async (shop) => {
    await fetch(`${shop.stripe}/trouble/lose_answer`, { method: "POST" });
    const bought = await watched(shop, "/report", async () => read(await shop.buyer("pm_card_visa").fetch(`${shop.url}/report`)));
    check(bought.result.goods && bought.charges === 1 && bought.calls === 1, "should be one charge and one sale", bought);
  },

  "a declined card buys nothing": async (shop) => {
    const got = await watched(shop, "/report", async () =>
      read(await shop.buyer("pm_card_visa_chargeDeclinedInsufficientFunds").fetch(`${shop.url}/report`)));
    check(got.result.status === 402 && got.result.body.type === `${PROBLEMS}verification-failed`, "402", got.result);
    check(got.charges === 0 && /insufficient_funds/.test(JSON.stringify(got.result.body)), "should say why", got);
  },

  "a card that needs its owner is told so": async (shop) => {
    const got = await watched(shop, "/report", async () =>
      read(await shop.buyer("pm_card_authenticationRequired").fetch(`${shop.url}/report`)));
    check(got.result.status === 402 && got.result.body.type === `${PROBLEMS}payment-action-required`, "402", got.result);
    check(got.charges === 0, "nothing should be charged", got);
  },

  "a service that fails is not charged for": async (shop) => {
    const got = await watched(shop, "/fails", async () => read(await shop.buyer("pm_card_visa").fetch(`${shop.url}/fails`)));
    check(got.result.status === 500 && got.charges === 0 && got.calls === 1, "nothing should be charged", got);
  },

  "a credential shown again is refused, also after a restart": async (shop) => {
    const url = `${shop.url}/restart`;
    const challenge = Challenge.fromResponseList(await fetch(url)).find(({ method }) => method === "stripe");
    const expiresAt = Math.floor(new Date(challenge.expires).getTime() / 1000);
    const spt = await shop.token({ paymentMethod: "pm_card_visa", amount: CENTS, currency: "usd", expiresAt });
    const Authorization = Credential.serialize(Credential.from({ challenge, payload: { spt } }));
    const show = async () => read(await fetch(url, { headers: { Authorization } }));
    const got = await watched(shop, "/restart", async () => {
      const first = await show();
      const again = await show();
      await shop.restart();
      return [first, again, await show()];
    });
    const [first, ...later] = got.result;
    check(first.goods && got.charges === 1 && got.calls === 1, "should buy once", got);
    check(later.every(({ status, body }) => status === 402 && body.type === `${PROBLEMS}invalid-challenge`), "should be refused", later);
  },
};

await script(CASES, async (names) => {
  const shop = await Shop.open();
  try {
    const least = names.length === Object.keys(CASES).length ? 1n : 0n;
    const there = async () => (await shop.charged()).amount;
    return await runCases(CASES, names, shop, shop, { there, unit: "cents", least });
  } finally {
    await shop.close();
  }
});

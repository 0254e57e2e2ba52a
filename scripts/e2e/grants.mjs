#!/usr/bin/env node
// A machine that buys the same again and again, and people who agree to several payments at once. It asks for a grant; two
// of them sign its bounds; it pays as often as that says, in as many processes at once as it likes, and not once more. An
// approver puts a grant in the place of a request for one payment; the owner ends it while half of it is left. What each
// payment was made by is in the audit log. On the embedded chain.
//
//   node scripts/e2e/grants.mjs

import { createHash, createPrivateKey, sign } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { PAYEE, books, check, devnet, route, run, same, script, scratch, seller, upstream, usdc, wallet } from "./support.mjs";

const POLICY = `
version: 1
owner: acme
budgets:
  acme:
    per_payment: $0.10
    rolling: {24h: $1}
allow:
  - name: shop
    hosts: ["127.0.0.1"]
    networks: [eip155:84532]
    schemes: [exact]
    private: true
    plaintext: true
approve:
  - name: dear
    over: $0.01
    quorum: 2
`;

script(async () => {
  const chain = await devnet();
  const goods = await upstream();
  const routes = route("GET /v1/dear", "$0.02") + route("GET /v1/other", "$0.02") + route("GET /v2/dear", "$0.02") + route("GET /v1/dearer", "$0.03");
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: goods.url, routes });
  await shop.start();
  const { env } = await wallet(chain.url);
  const dir = scratch();
  const farthing = (...words) => run(words, env);
  const before = await usdc(chain.url, PAYEE);
  const sold = async () => (await usdc(chain.url, PAYEE)) - before;
  const buy = (path, ...more) => farthing("fetch", `${shop.url}${path}`, ...more);
  const outcome = async (path) => (await buy(path)).code;
  const file = join(dir, "policy.yaml");
  writeFileSync(file, POLICY);
  same("the policy comes into force", (await farthing("policy", "apply", file)).code, 0);
  const keys = {};
  for (const name of ["ada", "bob"]) {
    keys[name] = join(dir, `${name}.key`);
    const made = await farthing("approver", "new", keys[name]);
    same(`the word of ${name} counts`, (await farthing("approver", "add", name, made.json.key)).code, 0);
  }
  const vote = (verdict, name, id, ...more) => farthing("approval", verdict, id, "--as", name, "--key", keys[name], ...more);
  const waits = async (kind) => (await farthing("approval", "list")).json.filter((one) => one.kind === kind && one.status === "pending");

  // The machine asks for a grant.
  const below = `${shop.url}/v1/`;
  const bad = await buy("/v1/dear", "--ask-grant", "n=4,total=0.06");
  check("bounds that say no end are none", bad.code === 2 && /until/.test(bad.stderr), bad);
  const asked = await buy("/v1/dear", "--ask-grant", `n=4,total=0.06,until=1h,below=${below}`);
  check("nothing is paid by asking", asked.code !== 0 && (await sold()) === 0n, asked);
  const [grant] = await waits("grant");
  check("people see each bound", grant?.grant.payments === 4 && grant.grant.total === "0.06 USDC" && grant.max === "0.02 USDC" && grant.url === below && grant.grant.below && !grant.grant.any_body, grant);
  check("and that it is a grant", grant.id.startsWith("grt_") && JSON.parse(grant.text).type === "farthing.payment-grant.v1", grant);
  await buy("/v1/dear", "--ask-grant", `n=4,total=0.06,until=1h,below=${below}`);
  same("asking again is the same request", (await waits("grant")).length, 1);
  same("ada says yes", (await vote("approve", "ada", grant.id)).json.voices, 1);
  check("one of two is not enough", (await outcome("/v1/dear")) !== 0);
  // Bob signs elsewhere, by the reference page and Node's own Ed25519.
  const digest = createHash("sha256").update(`farthing payment grant v1\n${grant.text}`).digest();
  same("the digest is that of the text that is shown", digest.toString("hex"), grant.digest);
  const seed = Buffer.from(readFileSync(keys.bob, "utf8").trim().split(":")[1], "base64url");
  const key = createPrivateKey({ key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]), format: "der", type: "pkcs8" });
  const word = (context) => sign(null, Buffer.concat([Buffer.from(`${context}\napprove\n`), digest]), key).toString("hex");
  const elsewhere = (signature) => farthing("approval", "approve", grant.id, "--as", "bob", "--signature", signature);
  same("his word on one payment is none on a grant", (await elsewhere(word("farthing approval vote v1"))).code, 1);
  same("bob says yes", (await elsewhere(word("farthing grant vote v1"))).json?.status, "approved");

  // Of eight at once, as many pass as the money is enough for: three of four places.
  const codes = await Promise.all([..."12345678"].map((n) => outcome(`/v1/${n % 2 ? "dear" : "other"}?n=${n}`)));
  same("three pass", codes.filter((code) => code === 0).length, 3);
  same("and are paid for", await sold(), 60_000n);
  const used = (await farthing("approval", "show", grant.id)).json;
  check("of the money nothing is left", used.status === "used" && used.grant.left_atoms === "0" && used.grant.left_payments === 1, used.grant);

  // An approver answers a request for one payment with a grant.
  await buy("/v1/dear", "--ask");
  const [one] = await waits("payment");
  same("what the machine asks for is one payment", one.grant, undefined);
  const over = await vote("approve", "ada", one.id, "--grant", "n=10,total=0.50,until=24h");
  check("a total that so many cannot reach is none", over.code === 2 && /together/.test(over.stderr), over);
  const wide = (await vote("approve", "ada", one.id, "--grant", "n=4,each=0.03,until=24h,body=any")).json;
  check("ada's grant waits for bob", wide?.status === "pending" && wide.voices === 1 && wide.grant.total === "0.12 USDC" && wide.grant.any_body, wide);
  same("bob agrees", (await vote("approve", "bob", wide.id)).json.status, "approved");
  same("it is paid", await outcome("/v1/dear"), 0);
  check("another address is not", (await outcome("/v1/other")) !== 0);
  const left = (await farthing("approval", "list")).json.find(({ id }) => id === wide.id);
  check("the list says what is left", left?.grant.left_payments === 3 && left.grant.left === "0.1 USDC", left);
  same("the owner ends it", (await farthing("approval", "revoke", wide.id)).json?.status, "revoked");
  check("and nothing more is paid by it", (await outcome("/v1/dear")) !== 0);
  same("it is over for good", (await vote("approve", "ada", wide.id)).code, 1);

  same("four things were sold", await sold(), 80_000n);
  const log = await farthing("audit", "export", "--format", "jsonl");
  const lines = log.stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  const said = JSON.stringify(lines);
  check("the log has each use, with what was signed", said.split(`sha256:${grant.digest}`).length >= 5 && said.includes("approval_revoked"), log.stderr);
  const kept = await books(shop.store);
  check("the seller's books balance", kept.balance, kept.said);
});

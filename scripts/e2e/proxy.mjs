#!/usr/bin/env node
// Programs that know nothing of payments buy through `farthing proxy`: an unmodified Python script, with urllib, requests
// and httpx, over http and over https, within its owner's limits and not beyond; and a thousand requests at once against
// a limit of a hundred: exactly a hundred are paid for, by the wallet's books, the gateway's, and the chain's.

import { execFileSync, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { Agent } from "node:http";
import { join } from "node:path";

import { repo } from "../../interop/support/paths.mjs";
import {
  OTHER_RELAYER_KEY, books, check, devnet, ledgerOf, parsed, python, route, run, same, scratch, script, seller, service, surroundings, through, until, upstream, wallet,
} from "./support.mjs";

const LIBRARIES = ["urllib", "requests", "httpx"];
const PRICE = 10_000n;
/** How many ask at once, and for how many of them there is money. */
const CROWD = 1_000, AFFORDABLE = 100;

/** An authority and a certificate of a seller for `localhost`, as files. */
function certificate() {
  const dir = scratch();
  const file = (name) => join(dir, name);
  const openssl = (...words) => execFileSync("openssl", words, { stdio: ["ignore", "ignore", "pipe"], cwd: dir });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=The seller's authority");
  openssl("req", ...key, "-keyout", "shop.key", "-out", "shop.csr", "-subj", "/CN=localhost");
  writeFileSync(file("shop.ext"), "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n");
  openssl("x509", "-req", "-in", "shop.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "shop.ext", "-out", "shop.pem");
  return { authority: file("ca.pem"), cert: file("shop.pem"), key: file("shop.key") };
}

/** What a program's environment is, by the proxy's own word, and nothing of ours besides. */
async function environment(buyer, proxy) {
  const said = await run(["proxy", "env", "--json", "--listen", new URL(proxy.url).host], buyer.env);
  const plain = Object.fromEntries(Object.entries(surroundings()).filter(([name]) => !/proxy|_CERT|_CA_/i.test(name)));
  return { ...plain, ...said.json };
}

function buy(program, library, env, urls) {
  const child = spawn(program, [join(repo, "scripts/e2e/buy.py"), library, ...urls], { env, stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "", stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  return new Promise((done) => child.once("close", (code) => {
    if (code !== 0) console.log(stderr.slice(-1_500));
    done(stdout.split("\n").filter(Boolean).map(parsed));
  }));
}

async function story(chain, program) {
  const behind = await upstream();
  const tls = certificate();
  const routes = route("GET /tomorrow", "$0.01") + route("GET /dear", "$0.03");
  const free = `\n[[route]]\nmatch = "GET /free"\nfree = true\n`;
  const plain = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes: routes + free });
  const secure = await seller({
    rpcUrl: chain.url, upstreamUrl: behind.url, keys: { RELAYER_KEY: OTHER_RELAYER_KEY },
    routes: `[gateway.tls]\ncert = "${tls.cert}"\nkey = "${tls.key}"\n${routes}${free}`,
  });
  const gateways = [await plain.start(), await secure.start()];
  const buyer = await wallet(chain.url, "127.0.0.1", "localhost");
  // Two purchases for each library, and no more.
  await buyer.wallet("limit", "--per-payment", "0.02", "--hour", "0.06", "--day", "0.06");
  // The proxy believes the seller's authority; the program never hears of it.
  const proxy = await service(["proxy", "--listen", "127.0.0.1:0"], { ...buyer.env, SSL_CERT_FILE: tls.authority });
  const env = await environment(buyer, proxy);
  // What `env` wrote is without the seller's authority: a program believes it by nobody's word but the proxy's.
  const count = await ledgerOf(chain.url, behind);
  const over = secure.url.replace("http://127.0.0.1", "https://localhost");

  for (const library of LIBRARIES) {
    const [free, first, second, dear] =
      await buy(program, library, env, [`${over}/free`, `${plain.url}/tomorrow`, `${over}/tomorrow`, `${over}/dear`]);
    same(`${library}: what is free comes over https`, free?.status, 200);
    for (const [scheme, bought] of [["http", first], ["https", second]]) {
      check(`${library}: buys over ${scheme}`, bought?.status === 200 && parsed(bought.text)?.path === "/tomorrow", bought);
      check(`${library}: is told what was paid over ${scheme}`, bought?.headers["farthing-paid"]?.startsWith(`${PRICE} `), bought?.headers);
    }
    same(`${library}: too dear is the seller's 402`, dear?.status, 402);
    check(`${library}: and says why`, dear?.headers["farthing-denied"]?.includes("over_payment_cap"), dear?.headers);
  }
  const [beyond] = await buy(program, "requests", env, [`${over}/tomorrow`]);
  same("beyond the budget is a 402", beyond?.status, 402);
  same("by the limit for an hour", beyond?.headers["farthing-denied"], "over_hour_cap");
  check("with the seller's own price in it", /accepts|offers|payment/i.test(beyond?.text ?? ""), beyond?.text);
  const done = await count();
  same("as many transfers as purchases", done.transfers, 6);
  same("and their price", done.paid, 6n * PRICE);

  const stranger = { ...env };
  for (const name of ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"]) stranger[name] = proxy.url;
  const [unknown] = await buy(program, "requests", stranger, [`${plain.url}/tomorrow`]);
  same("without the token nobody is served", unknown?.status, 407);
  await proxy.stop();
  for (const gateway of gateways) await gateway.stop();
  for (const [name, shop] of [["http", plain], ["https", secure]]) {
    const { balance, said } = await books(shop.store);
    check(`the books of the seller over ${name} balance`, balance, said);
  }
}

async function crowd(chain) {
  const behind = await upstream();
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes: route("GET /unit", "$0.01") });
  const gateway = await shop.start();
  const buyer = await wallet(chain.url, "127.0.0.1");
  await buyer.wallet("limit", "--per-payment", "0.01", "--hour", "1", "--day", "1");
  const proxy = await service(["proxy", "--listen", "127.0.0.1:0"], buyer.env);
  const env = await environment(buyer, proxy);
  const count = await ledgerOf(chain.url, behind);
  const agent = new Agent({ maxSockets: Infinity });
  const asking = Array.from({ length: CROWD }, (_, n) => through(env, agent, `${shop.url}/unit?n=${n}`));
  const answers = await Promise.all(asking.map((one) => one.catch((error) => ({ status: error.code, headers: {} }))));
  const with_ = (status) => answers.filter((answer) => answer.status === status);
  same(`of ${CROWD} at once, those are served for which there is money`, with_(200).length, AFFORDABLE);
  same("and the others are denied", with_(402).length, CROWD - AFFORDABLE);
  const denied = with_(402).filter(({ headers }) => headers["farthing-denied"] === "over_hour_cap");
  same("for that reason", denied.length, CROWD - AFFORDABLE);
  same("each purchase is another", new Set(with_(200).map(({ headers }) => headers["farthing-purchase"])).size, AFFORDABLE);
  const history = (await buyer.wallet("history", "--limit", String(CROWD))) ?? [];
  same("the wallet signed as many", history.length, AFFORDABLE);
  const done = await until("as many transfers", async () => {
    const now = await count();
    return now.transfers >= AFFORDABLE ? now : undefined;
  });
  same("the chain has as many transfers", done.transfers, AFFORDABLE);
  same("and their price", done.paid, BigInt(AFFORDABLE) * PRICE);
  same("the service was called as often", done.calls, AFFORDABLE);
  await proxy.stop();
  await gateway.stop();
  const { balance, said } = await books(shop.store);
  check("the gateway's books balance", balance, said);
}

script(async () => {
  const program = python("proxy-requirements.txt");
  const chain = await devnet();
  await story(chain, program);
  await crowd(chain);
});

#!/usr/bin/env node
// A wallet whose key is in AWS KMS, by moto's stand-in: it buys, and nothing is paid where KMS is silent, refuses, signs
// something else, or is asked by a stranger. Who may ask is decided by moto's IAM, on signatures that botocore checks.

import { spawn } from "node:child_process";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";

import {
  PAYER_KEY, check, cleanAfter, devnet, ledgerOf, parsed, payer, python, repo, route, run, same, scratch, script, seller, service as serve, surroundings, upstream, within,
} from "./support.mjs";

const PRICE = 10_000n;
/** After so many milliseconds a payment is denied whose signature has not come: the bound in the program, and its start. */
const GIVEN_UP_MS = 5_000, START_MS = 30_000;

/** The stand-in, asked in this way: "digest" as KMS documents, or "hashing". */
async function kms(program, way) {
  const child = spawn(program, [join(repo, "scripts/e2e/kms.py"), way, PAYER_KEY], { env: surroundings(), stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise((done) => child.once("exit", done));
  cleanAfter(() => {
    child.kill("SIGKILL");
    return exited;
  });
  const ready = new Promise((done, fail) => {
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk) => {
      text += chunk;
      const said = text.includes("\n") && parsed(text.split("\n")[0]);
      if (said) done(said);
    });
    exited.then((code) => fail(new Error(`the stand-in for KMS ended with ${code}`)));
  });
  return { ...(await within(ready, "the start of KMS")), stop: () => child.kill("SIGSTOP"), go: () => child.kill("SIGCONT") };
}

/** A way to KMS that lets everything through but requests for signatures, which get no answer. */
function speechless(target) {
  const server = createServer(async (req, res) => {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    if (req.headers["x-amz-target"] === "TrentService.Sign") return;
    const { hostname, port } = new URL(target);
    // With the headers as they are: what is signed goes for the host that was asked.
    const on = request({ hostname, port, method: req.method, path: req.url, headers: req.headers }, (answer) => {
      res.writeHead(answer.statusCode, answer.headers);
      answer.pipe(res);
    });
    on.on("error", () => res.destroy()).end(Buffer.concat(chunks));
  });
  cleanAfter(() => {
    server.closeAllConnections();
    return new Promise((done) => server.close(done));
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(`http://127.0.0.1:${server.address().port}`)));
}

/** Every byte of the files below a folder. */
const bytesOf = (dir) => Buffer.concat(readdirSync(dir).map((name) => {
  const path = join(dir, name);
  return statSync(path).isDirectory() ? bytesOf(path) : readFileSync(path);
}));

script(async () => {
  const program = python("keys-requirements.txt");
  const chain = await devnet();
  const behind = await upstream();
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes: route("GET /tomorrow", "$0.01") });
  await shop.start();
  const service = await kms(program, "digest");
  const home = scratch();
  const env = (credentials, url = service.url) => ({ FARTHING_HOME: home, AWS_ENDPOINT_URL_KMS: url, ...credentials });
  const wallet = (words, credentials = service.signer, url = service.url) => run(["wallet", ...words], env(credentials, url));
  const buy = (credentials = service.signer, { url = service.url, key = [] } = {}) =>
    run(["fetch", `${shop.url}/tomorrow`, "--max", "0.02", "--json-report", ...key], env(credentials, url));
  const name = `kms:${service.region}/${service.key}`;
  const count = await ledgerOf(chain.url, behind);
  const balanced = async (what) => {
    const { paid, calls, transfers } = await count();
    check(`${what}: as much is paid as was bought`, paid === PRICE * BigInt(bought) && calls === bought && transfers === bought, { paid: String(paid), calls, transfers });
  };
  let bought = 0;

  const stranger = { ...service.signer, AWS_SECRET_ACCESS_KEY: "wrong" };
  for (const [what, words, credentials, why] of [
    ["without credentials", ["use", name], {}, "AWS credentials are needed"],
    ["with a wrong secret", ["use", name], stranger, "refuses"],
    ["for a key of another curve", ["use", `kms:${service.region}/${service.other}`], service.signer, "ECC_SECG_P256K1"],
    ["for what is no key", ["use", "kms:nowhere"], service.signer, "REGION/KEY_ID"],
    ["to take it out of KMS", ["import", "mine", "--from", name], { ...service.signer, FARTHING_PASSPHRASE: "x" }, "never leaves where it is"],
  ]) {
    const { code, stderr } = await wallet(words, credentials);
    check(`refused ${what}`, code !== 0 && stderr.includes(why), `${code}: ${stderr}`);
  }
  const used = await wallet(["use", name]);
  same("the wallet pays with the key in KMS", used.json?.address, payer.address.toLowerCase());
  // For five, if what is denied holds nothing of it.
  await wallet(["limit", "--per-payment", "0.01", "--hour", "0.05", "--day", "0.05"]);
  await wallet(["allow", "127.0.0.1", "--network", "base-sepolia", "--rpc", chain.url]);
  const listed = await wallet(["list"], {});
  check("which is its default", listed.json?.some((key) => key.key === name && key.default), listed.stdout);

  const first = await buy();
  bought += 1;
  same("it buys", first.code, 0);
  check("the goods", parsed(first.json?.body ?? "")?.goods === 1 || first.stdout.includes("goods"), first.stdout);
  await balanced("once");
  for (const [what, key] of [["by its ARN", `kms:${service.arn}`], ["by its alias", `kms:${service.region}/alias/agent`]]) {
    const again = await buy(service.signer, { key: ["--pay-with", key] });
    bought += 1;
    same(`it buys ${what}`, again.code, 0);
    await balanced(what);
  }

  const denied = async (what, bought, code) => {
    check(`${what} is a denial`, bought.code === 3 && bought.json?.denied?.code === code, `${bought.code}: ${bought.stdout}${bought.stderr}`);
    await balanced(what);
  };
  await denied("whoever may not sign", await buy(service.reader), "signer_refused");
  const hashing = await kms(program, "hashing");
  const other = { url: hashing.url, key: ["--pay-with", `kms:${hashing.region}/${hashing.key}`] };
  await denied("a signature over something else", await buy(hashing.signer, other), "signer_mismatch");

  const mute = await speechless(service.url);
  const began = Date.now();
  await denied("silence", await buy(service.signer, { url: mute }), "signer_timeout");
  const took = Date.now() - began;
  check("in bounded time", took >= GIVEN_UP_MS && took < GIVEN_UP_MS + START_MS, `${took} ms`);
  service.stop();
  const silent = await buy();
  check("and so from the start", silent.code !== 0 && silent.stderr.includes("has not answered"), silent.stderr);
  service.go();
  await balanced("silence from the start");

  const shown = await wallet(["show"], {});
  check("the wallet can be looked at without KMS", shown.code === 0, shown.stderr);
  // The guard has the credentials; the agent has a token, and nothing else.
  const guard = await serve(["wallet", "serve", "--dev"], env(service.signer));
  const token = (await run(["agent", "add", "acme/buyer"], { FARTHING_HOME: home })).stdout.trim();
  const agent = { FARTHING_HOME: scratch(), FARTHING_WALLET: guard.url, FARTHING_TOKEN: token };
  const asked = await run(["fetch", `${shop.url}/tomorrow`, "--max", "0.02", "--json-report"], agent);
  bought += 1;
  check("an agent buys with neither key nor credentials", asked.code === 0, asked.stdout + asked.stderr);
  await balanced("through the guard");
  await guard.stop();

  const last = await buy();
  bought += 1;
  check("what was denied holds no budget", last.code === 0, last.stdout + last.stderr);
  await balanced("afterwards");
  await denied("the limit", await buy(), "over_hour_cap");
  check("the key is nowhere in the wallet", !bytesOf(home).toString("latin1").includes(PAYER_KEY.slice(2)) && !bytesOf(home).includes(Buffer.from(PAYER_KEY.slice(2), "hex")));
});

#!/usr/bin/env node
// A wallet whose key is in a device that speaks PKCS #11, by SoftHSM: it buys, also for an agent that has neither the
// device nor its PIN; and nothing is paid with a wrong PIN, or with a key that is not there or of another curve.

import { execFileSync } from "node:child_process";
import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { cacheDir } from "../../interop/support/paths.mjs";
import {
  PAYER_KEY, check, devnet, ledgerOf, payer, route, run, same, scratch, script, seller, service, surroundings, upstream,
} from "./support.mjs";

const PRICE = 10_000n;
const PIN = "1234";
const PACKAGES = ["libsofthsm2", "softhsm2"];
/** Where SoftHSM's module is, if it is installed. */
const MODULES = ["/usr/lib/softhsm", "/usr/lib64/pkcs11", "/usr/local/lib/softhsm", "/opt/homebrew/lib/softhsm"].map((dir) => join(dir, "libsofthsm2.so"));

/** SoftHSM as it is installed, or else Debian's, unpacked into a folder of ours: nobody has to be root. */
function softhsm() {
  const installed = MODULES.find((module) => existsSync(module));
  if (installed) return { util: "softhsm2-util", module: installed };
  const home = join(cacheDir(), "softhsm2");
  const unpacked = join(home, "root");
  if (!existsSync(join(home, ".unpacked"))) {
    const lists = join(home, "lists"), cache = join(home, "cache");
    for (const dir of [join(lists, "partial"), join(cache, "archives/partial")]) mkdirSync(dir, { recursive: true });
    const run = (program, ...words) => execFileSync(program, words, { cwd: home, stdio: ["ignore", "ignore", "pipe"] });
    const options = ["-qq", "-o", `Dir::State::Lists=${lists}`, "-o", `Dir::Cache=${cache}`, "-o", "Debug::NoLocking=true"];
    run("apt-get", ...options, "update");
    run("apt-get", ...options, "download", ...PACKAGES);
    for (const file of readdirSync(home).filter((name) => name.endsWith(".deb"))) run("dpkg-deb", "-x", file, unpacked);
    for (const dir of [lists, cache]) rmSync(dir, { recursive: true });
    writeFileSync(join(home, ".unpacked"), "");
  }
  return { util: join(unpacked, "usr/bin/softhsm2-util"), module: join(unpacked, "usr/lib/softhsm/libsofthsm2.so") };
}

/** A token with the payer's development key, and a key of another curve. */
function token({ util, module }) {
  const dir = scratch();
  mkdirSync(join(dir, "tokens"));
  const conf = join(dir, "softhsm2.conf");
  writeFileSync(conf, `directories.tokendir = ${join(dir, "tokens")}\nobjectstore.backend = file\nlog.level = ERROR\n`);
  const env = { SOFTHSM2_CONF: conf };
  const softhsm = (...words) => execFileSync(util, ["--module", module, ...words], { env: { ...surroundings(), ...env }, stdio: ["ignore", "ignore", "pipe"] });
  softhsm("--init-token", "--free", "--label", "farthing", "--pin", PIN, "--so-pin", "567890");
  const bytes = (hex) => Buffer.from(hex, "hex").toString("base64url");
  const jwk = { kty: "EC", crv: "secp256k1", d: bytes(PAYER_KEY.slice(2)), x: bytes(payer.publicKey.slice(4, 68)), y: bytes(payer.publicKey.slice(68)) };
  const keys = { agent: createPrivateKey({ key: jwk, format: "jwk" }), other: generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey };
  for (const [id, [label, key]] of Object.entries(keys).entries()) {
    const file = join(dir, `${label}.pem`);
    writeFileSync(file, key.export({ type: "pkcs8", format: "pem" }));
    softhsm("--import", file, "--token", "farthing", "--label", label, "--id", `a${id}`, "--pin", PIN);
    rmSync(file);
  }
  return { env, uri: (object, token = "farthing") => `pkcs11:token=${token};object=${object}?module-path=${module}` };
}

script(async () => {
  const device = token(softhsm());
  const chain = await devnet();
  const behind = await upstream();
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes: route("GET /tomorrow", "$0.01") });
  await shop.start();
  const home = scratch();
  const env = { FARTHING_HOME: home, ...device.env, FARTHING_PASSPHRASE: PIN };
  const wallet = (words, more = {}) => run(["wallet", ...words], { ...env, ...more });
  const count = await ledgerOf(chain.url, behind);
  let bought = 0;
  const balanced = async (what) => {
    const { paid, calls, transfers } = await count();
    check(`${what}: as much is paid as was bought`, paid === PRICE * BigInt(bought) && calls === bought && transfers === bought, { paid: String(paid), calls, transfers });
  };

  for (const [what, words, more, why] of [
    ["a wrong PIN", ["use", device.uri("agent")], { FARTHING_PASSPHRASE: "4321" }, "the PIN is wrong"],
    ["a key that is not there", ["use", device.uri("nobody")], {}, "0 public keys"],
    ["a token that is not there", ["use", device.uri("agent", "none")], {}, "0 tokens"],
    ["a key of another curve", ["use", device.uri("other")], {}, "secp256k1"],
    ["a PIN in the name", ["use", `${device.uri("agent")}&pin-value=${PIN}`], {}, "without its PIN"],
    ["to take the key out", ["import", "mine", "--from", device.uri("agent")], {}, "never leaves where it is"],
  ]) {
    const { code, stderr } = await wallet(words, more);
    check(`refused: ${what}`, code !== 0 && stderr.includes(why), `${code}: ${stderr}`);
  }
  const used = await wallet(["use", device.uri("agent")]);
  same("the wallet pays with the key in the device", used.json?.address, payer.address.toLowerCase());
  await wallet(["allow", "127.0.0.1", "--network", "base-sepolia", "--rpc", chain.url]);

  const buy = (env) => run(["fetch", `${shop.url}/tomorrow`, "--max", "0.02", "--json-report"], env);
  for (let n = 0; n < 2; n += 1) {
    const done = await buy(env);
    bought += 1;
    check("it buys", done.code === 0, done.stdout + done.stderr);
    await balanced("with the device");
  }
  const wrong = await buy({ ...env, FARTHING_PASSPHRASE: "4321" });
  check("not with a wrong PIN", wrong.code !== 0 && wrong.stderr.includes("the PIN is wrong"), wrong.stderr);
  await balanced("with a wrong PIN");

  const guard = await service(["wallet", "serve", "--dev"], env);
  const told = await run(["agent", "add", "acme/buyer"], { FARTHING_HOME: home });
  const agent = { FARTHING_HOME: scratch(), FARTHING_WALLET: guard.url, FARTHING_TOKEN: told.stdout.trim() };
  const crowd = await Promise.all(Array.from({ length: 5 }, () => buy(agent)));
  bought += crowd.length;
  check("an agent buys with neither device nor PIN", crowd.every((done) => done.code === 0), crowd.map((done) => done.stdout + done.stderr).join("\n"));
  await balanced("through the guard");
});

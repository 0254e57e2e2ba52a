// Puts our program behind the convention of x402's own end-to-end suite: configuration by environment (PORT,
// EVM_PRIVATE_KEY, EVM_NETWORK, EVM_RPC_URL, FACILITATOR_URL, EVM_PAYEE_ADDRESS, RESOURCE_SERVER_URL, ENDPOINT_PATH,
// WALLET_FACTORY), `/health` on servers, and one JSON line at the end of a client's output.
// Nothing here decides anything about payments, and nothing here needs a package.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { farthingBin } from "../support/paths.mjs";

const USDC = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const MESSAGE = "Protected endpoint accessed successfully";

const setting = (name, otherwise) => {
  const value = process.env[name] || otherwise;
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
};

/** The older generation names networks, the newer one numbers them. */
const network = () => {
  const name = setting("EVM_NETWORK", "eip155:84532");
  return name === "base-sepolia" ? "eip155:84532" : name;
};

/** A directory for what the program stores, gone with it. */
function scratch() {
  const dir = mkdtempSync(join(tmpdir(), "farthing-interop-"));
  process.on("exit", () => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Runs our program until it ends or we are told to; its exit code becomes ours. */
function supervise(args) {
  const child = spawn(farthingBin(), args, { stdio: ["ignore", "inherit", "inherit"] });
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
  child.once("error", (error) => fail(error));
  child.once("exit", (code) => process.exit(code ?? 1));
}

function fail(error) {
  console.error(error.message);
  process.exit(2);
}

function facilitator() {
  const dir = scratch();
  const factory = process.env.WALLET_FACTORY;
  supervise([
    "facilitator", "--listen", `127.0.0.1:${setting("PORT")}`, "--network", network(), "--rpc", setting("EVM_RPC_URL"),
    "--relayer-key", "env:EVM_PRIVATE_KEY", "--store", join(dir, "facilitator.db"),
    ...(factory ? ["--wallet-factory", factory] : []),
  ]);
}

/** What a seller had before they met us: a service that knows nothing of payments. */
function upstream() {
  const json = (res, status, body) => res.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  const service = createServer((req, res) => {
    const { pathname } = new URL(req.url, "http://upstream");
    if (pathname === "/health") json(res, 200, { status: "ok" });
    else if (pathname === "/fails") json(res, 500, { error: "this handler always fails" });
    else json(res, 200, { message: MESSAGE, path: pathname, payer: req.headers["x-farthing-payer"] });
  });
  return new Promise((done) => service.listen(0, "127.0.0.1", () => done(service.address().port)));
}

async function server() {
  const dir = scratch();
  const file = join(dir, "farthing.toml");
  writeFileSync(file, gatewayConfig({ port: setting("PORT"), upstream: await upstream(), store: join(dir, "gateway.db") }));
  supervise(["gateway", "-c", file]);
}

/** One line a price: this is what a seller writes. */
function gatewayConfig({ port, upstream, store }) {
  const payTo = setting("EVM_PAYEE_ADDRESS");
  const route = (path, accept) => `
[[route]]
match = "GET ${path}"
accept = [${accept}]
`;
  const byAuthorization = `{ network = "${network()}", asset = "${USDC}", atoms = "1000", pay_to = "${payTo}" }`;
  const byPermit2 = byAuthorization.replace(" }", `, method = "permit2" }`);
  return `
[gateway]
listen = "127.0.0.1:${port}"
upstream = "http://127.0.0.1:${upstream}"

[store]
path = "${store}"

[facilitator]
remote = ["${setting("FACILITATOR_URL")}"]

[networks."${network()}"]
rpc = ["${setting("EVM_RPC_URL")}"]
${route("/exact/evm/eip3009", byAuthorization)}${route("/exact/evm/permit2", byPermit2)}\
${route("/exact/evm/permit2-eip2612GasSponsoring", byPermit2)}${route("/protected", byAuthorization)}${route("/fails", byAuthorization)}
[[route]]
match = "GET /health"
free = true
`;
}

/** Our client prints what it got and what it paid; the suite wants that in its own words. */
function client() {
  const env = { ...process.env, FARTHING_HOME: join(scratch(), "wallet") };
  const url = `${setting("RESOURCE_SERVER_URL")}${setting("ENDPOINT_PATH")}`;
  // What an owner does once: name the seller and the network, and let a cent be spent.
  const owner = (...words) => {
    const done = spawnSync(farthingBin(), ["wallet", ...words], { env, encoding: "utf8" });
    if (done.status !== 0) throw new Error(`farthing wallet ${words.join(" ")}: ${done.stderr}`);
  };
  owner("allow", new URL(url).host, "--network", network(), "--rpc", setting("EVM_RPC_URL"));
  owner("limit", "--per-payment", "0.01", "--hour", "1", "--day", "1");
  const child = spawn(
    farthingBin(),
    ["fetch", url, "--pay-with", "env:EVM_PRIVATE_KEY", "--max", "0.01", "--json-report"],
    { stdio: ["ignore", "pipe", "inherit"], env },
  );
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (output += text));
  child.once("error", (error) => fail(error));
  child.once("close", (code) => {
    const said = parsed(output.trim().split("\n").at(-1)) ?? {};
    const result = {
      success: code === 0 && said.status === 200,
      status_code: said.status,
      data: said.body,
      payment_response: said.payment?.receipt ?? said.receipt,
    };
    console.log(JSON.stringify(result));
    process.exitCode = result.success ? 0 : 1;
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const roles = { facilitator, server, client };
try {
  await roles[process.argv[2]]();
} catch (error) {
  fail(error);
}

#!/usr/bin/env node
// A policy's screener, on the embedded chain: a program, and then an address, is asked about payee, network, asset, amount and
// host before anything is signed. It allows, denies, holds until a person says yes, says nothing in time and says nonsense; only a
// yes pays. It is not told of what is denied anyway, is asked once for each payment, and does not see the wallet's secrets.
//
//   node scripts/e2e/screen.mjs

import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

import { NETWORK, PAYEE, USDC, check, cleanAfter, devnet, parsed, payer, route, run, same, scratch, script, seller, transfersFrom, upstream, wallet } from "./support.mjs";

// What each thing costs tells the screener what to say.
const PRICES = { yes: "$0.001", no: "$0.002", hold: "$0.003", late: "$0.004", odd: "$0.005", fails: "$0.006", barred: "$0.007", torn: "$0.008" };

const PROGRAM = `
import { appendFileSync, readFileSync } from "node:fs";
const asked = readFileSync(0, "utf8");
appendFileSync(process.argv[2], JSON.stringify({ asked: JSON.parse(asked), lines: asked.split("\\n").length, env: Object.keys(process.env).sort() }) + "\\n");
const say = (text) => process.stdout.write(text);
switch (JSON.parse(asked).amount) {
  case "1000": say('{"answer":"allow"}\\n'); break;
  case "2000": say('{"answer":"deny","reason":"on the list"}\\n'); break;
  case "3000": say('{"answer":"hold","reason":"a new country"}\\n'); break;
  case "4000": setTimeout(() => say('{"answer":"allow"}\\n'), 30_000); break;
  case "5000": say('{"answer":"allow"}\\n{"answer":"allow"}\\n'); break;
  case "6000": say('{"answer":"allow"}\\n'); process.exitCode = 7; break;
  case "8000": say('{"answer":"all'); break;
}
`;

const policy = (screen) => `
version: 1
owner: acme
budgets:
  acme: {per_payment: $0.02, rolling: {24h: $20}}
allow:
  - name: shop
    hosts: ["127.0.0.1"]
    networks: [${NETWORK}]
    private: true
    plaintext: true
    when: 'amount <= usd("0.01") && host == "127.0.0.1"'
deny:
  - {name: barred, when: 'path.startsWith("/barred")'}
${screen}
`;

await script(async () => {
  const chain = await devnet();
  const behind = await upstream();
  const routes = Object.entries(PRICES).map(([name, price]) => route(`GET /${name}/*`, price)).join("") + route("GET /dear/*", "$0.015");
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes });
  await shop.start();
  const owner = await wallet(chain.url, shop.url);
  const farthing = async (...words) => {
    const done = await run(words, owner.env);
    if (done.code !== 0) throw new Error(`farthing ${words.join(" ")}: ${done.stderr}`);
    return done.stdout.trim();
  };
  const place = scratch();
  const [program, heard, file] = [join(place, "screen.mjs"), join(place, "heard"), join(place, "policy.yaml")];
  writeFileSync(program, PROGRAM);
  writeFileSync(heard, "");
  chmodSync(program, 0o600);
  const put = async (screen, ...more) => {
    writeFileSync(file, policy(screen));
    return run(["policy", "apply", file, ...more], owner.env);
  };
  let count = 0;
  const buy = (name, ...more) => run(["fetch", `${shop.url}/${name}/${count++}`, "--max", "0.02", ...more], owner.env);
  const denied = async (name, code, what) => {
    const before = await transfersFrom(chain.url, payer.address);
    const done = await buy(name);
    check(what, done.code === 3 && (done.stdout + done.stderr).includes(code), done.stdout + done.stderr);
    same("  and nothing is paid", await transfersFrom(chain.url, payer.address), before);
    return done;
  };
  const questions = () => readFileSync(heard, "utf8").trim().split("\n").filter(Boolean).map(parsed);

  // A program.
  const command = `screen: {command: ["${process.execPath}", "${program}", "${heard}"], within: 3s}`;
  same("a policy with a screener comes into force", (await put(command)).code, 0);
  const bought = await buy("yes");
  same("what the screener allows is bought", bought.code, 0);
  const [{ asked, lines, env }, ...again] = questions();
  same("it was asked once", again.length, 0);
  same("by one line", lines, 2);
  check("which says who gets what, and where",
    asked.payee.toLowerCase() === PAYEE.toLowerCase() && asked.network === NETWORK && asked.amount === "1000" && asked.usd === "0.001"
      && asked.asset.toLowerCase() === `${NETWORK}/erc20:${USDC}`.toLowerCase() && asked.host === new URL(shop.url).host, asked);
  check("and sees nothing of the wallet's surroundings", JSON.stringify(env) === '["PATH"]', env);
  const why = parsed(await farthing("policy", "explain", bought.json.payment.id));
  check("why it was paid names the screener", why.screening?.code === "screen_allowed" && why.screening.by.includes(program), why.screening);

  await denied("no", "on the list", "what it denies is not, and its reason is told");
  await denied("odd", "screen", "two answers are none");
  await denied("torn", "screen", "half an answer is none");
  await denied("fails", "screen", "an answer of a program that fails is none");
  const began = Date.now();
  await denied("late", "screen", "an answer that is late is none");
  check("and is not waited for", Date.now() - began < 30_000, Date.now() - began);
  const before = questions().length;
  await denied("barred", "denied by barred", "what a rule denies by its expression is denied");
  await denied("dear", "when", "what no expression allows, too");
  same("and the screener hears of neither", questions().length, before);

  // What it holds waits for people.
  const ada = join(place, "ada.key");
  const { key } = parsed(await farthing("approver", "new", ada));
  await farthing("approver", "add", "ada", key);
  const held = `${shop.url}/hold/thing`;
  const hold = (...more) => run(["fetch", held, "--max", "0.02", ...more], owner.env);
  const waits = await hold("--ask");
  const [id] = /apr_[0-9a-f]{32}/.exec(waits.stdout + waits.stderr) ?? [];
  check("what it holds is asked of people", waits.code === 3 && id, waits);
  await farthing("approval", "approve", id, "--as", "ada", "--key", ada);
  same("and bought when they agree", (await hold()).code, 0);

  // An address, which is another screener: the owner has to mean it.
  let answer = (to) => to.writeHead(200, { "content-type": "application/json" }).end('{"answer":"allow"}');
  let posts = 0;
  const server = createServer((from, to) => {
    posts++;
    let text = "";
    from.setEncoding("utf8").on("data", (piece) => (text += piece));
    from.once("end", () => answer(to, parsed(text)));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  cleanAfter(() => (server.closeAllConnections(), server.close()));
  const url = `screen: {url: "http://127.0.0.1:${server.address().port}/screen", within: 1s}`;
  const looser = await put(url);
  check("another screener is a looser policy", looser.code === 3 && /screener/.test(looser.stderr), looser.stderr);
  same("and so is none", (await put("")).code, 3);
  writeFileSync(file, policy(url));
  const tested = await run(["policy", "test", file, "--replay", "24h"], owner.env);
  same("a test says whose word it does not know", tested.json?.screening?.unknown, 2);
  writeFileSync(file, policy(command));
  const replayed = await run(["policy", "test", file, "--replay", "24h"], owner.env);
  same("and takes the word that was kept", replayed.json?.screening?.recorded, 2);
  same("nobody was asked for either", posts, 0);
  same("an owner who means it may", (await put(url, "--accept-looser")).code, 0);
  same("what an address allows is bought", (await buy("yes")).code, 0);
  same("and it was asked once", posts, 1);
  for (const [what, said] of [
    ["a refusal", (to) => to.writeHead(200).end('{"answer":"deny"}')],
    ["a server that fails", (to) => to.writeHead(500).end('{"answer":"allow"}')],
    ["a redirect", (to) => to.writeHead(307, { location: "/yes" }).end('{"answer":"allow"}')],
    ["another word", (to) => to.writeHead(200).end('{"answer":"ALLOW"}')],
    ["a word too many", (to) => to.writeHead(200).end('{"answer":"allow","answer":"deny"}')],
    ["an answer without end", (to) => to.writeHead(200).end(`{"answer":"allow","reason":"${"x".repeat(8_192)}"}`)],
    ["a connection that is cut", (to) => to.destroy()],
    ["silence", () => {}],
  ]) {
    answer = said;
    await denied("yes", "screen", `${what} pays nothing`);
  }
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  await denied("yes", "screen", "nor does an address that nobody listens at");
  const log = await farthing("audit", "export", "--format", "jsonl");
  check("the audit log has what was said of what was asked for", /"screen":"allow"/.test(log) && /"screen":"hold"/.test(log), log.slice(0, 300));
  same("all in all three were paid", await transfersFrom(chain.url, payer.address), 3);
});

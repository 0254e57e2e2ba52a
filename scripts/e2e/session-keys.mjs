#!/usr/bin/env node
// A key that is made for a while, on the embedded chain: funded, spent by one agent through the guard, refused from its end
// on, for payments that end no later than it does, and what is left sent home, equal to the atom. And one that is ended
// early; and the passphrase in the kernel's keyring.
//
//   node scripts/e2e/session-keys.mjs

import {
  check, cleanAfter, devnet, payer, route, run, same, scratch, script, seller, service, transfersFrom, until, upstream, usdc, wallet,
} from "./support.mjs";

const PRICE = 10_000n;
const FOR_SECONDS = 60;

script(async () => {
  const chain = await devnet();
  const behind = await upstream();
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: behind.url, routes: route("GET /goods", "$0.01") });
  await shop.start();
  const owner = await wallet(chain.url, "127.0.0.1");
  const env = { ...owner.env, FARTHING_PASSPHRASE: "correct horse" };
  const farthing = async (...words) => {
    const done = await run(words, env);
    if (done.code !== 0) throw new Error(`farthing ${words.join(" ")}: ${done.stderr}`);
    return done.json ?? done.stdout.trim();
  };
  const fetch = (more = [], as = env) => run(["fetch", `${shop.url}/goods`, "--max", "0.02", "--json-report", ...more], as);
  const denied = (what, done, code) =>
    check(what, done.code === 3 && done.json?.denied?.code === code, `${done.code}: ${done.stdout}${done.stderr}`);
  const before = await usdc(chain.url, payer.address);

  const guard = await service(["wallet", "serve", "--dev"], env);
  const token = await farthing("agent", "add", "acme/scout");
  const agent = { FARTHING_HOME: scratch(), FARTHING_WALLET: guard.url, FARTHING_TOKEN: token };

  const made = await farthing("wallet", "session", "new", "scout", "--for", `${FOR_SECONDS}s`, "--agent", "acme/scout");
  const ends = Date.parse(made.ends);
  check("a key of its own address is made", /^0x[0-9a-f]{40}$/.test(made.address) && made.address !== payer.address.toLowerCase(), made);
  same("whose rest goes to the wallet's own", made.home, payer.address.toLowerCase());
  same("it says who holds to its end", made.enforced_by, "process");
  const twice = await run(["wallet", "session", "new", "second", "--for", "1h", "--agent", "acme/scout"], env);
  check("its agent gets no second one meanwhile", twice.code === 1 && /scout/.test(twice.stderr), twice.stderr);
  const wrong = await run(["wallet", "use", "session:scout"], env);
  same("it is no wallet's own key", wrong.code, 2);

  const funded = await farthing("wallet", "session", "fund", "scout", "--amount", "0.05");
  same("it is funded", funded.money?.atoms, "50000");
  same("to the atom", await usdc(chain.url, made.address), 50_000n);
  const bought = await fetch([], agent);
  check("its agent buys through the guard that ran before", bought.code === 0, bought.stdout + bought.stderr);
  await until("the settlement", async () => (await usdc(chain.url, made.address)) === 50_000n - PRICE);
  denied("nobody else does", await fetch(["--pay-with", "session:scout"]), "session_key_of_another");
  const mine = await fetch();
  check("the owner buys by the wallet's own", mine.code === 0, mine.stdout + mine.stderr);
  const late = FOR_SECONDS * 1000 - 15_000;
  await until("the end is near", () => Date.now() > ends - late, late + 60_000);
  const capped = await fetch([], agent);
  check("it buys once more", capped.code === 0, capped.stdout + capped.stderr);
  const rows = (await farthing("wallet", "history")).filter((one) => one.payer === made.address);
  check("what it signs ends no later than it does", rows.length === 2 && rows.every((one) => Date.parse(one.expires) <= ends), rows);

  await until("its end", () => Date.now() >= ends, FOR_SECONDS * 1000 + 30_000);
  denied("after its end it signs nothing", await fetch([], agent), "session_key_ended");
  const spent = 2n * PRICE;
  await until("the settlements", async () => (await usdc(chain.url, made.address)) === 50_000n - spent);
  const listed = (await farthing("wallet", "session", "list"))[0];
  check("it is listed with what is on it", listed.state === "ended" && listed.holds[0]?.atoms === String(50_000n - spent), listed);
  const raw = await run(["vault", "fund", "0x0000000000000000000000000000000000000001", "--key", "session:scout", "--amount", "0.01", "--rpc", chain.url], env);
  check("no other command opens it", raw.code === 2 && /key reference/.test(raw.stderr), raw.stderr);

  const home = await farthing("wallet", "session", "end", "scout");
  same("what is left is sent home", home.moved[0]?.atoms, String(50_000n - spent));
  same("and nothing stays", home.stays.length, 0);
  same("to the atom", await usdc(chain.url, made.address), 0n);
  const again = await farthing("wallet", "session", "end", "scout");
  same("there is nothing to send twice", again.moved.length, 0);
  denied("its agent does not pay by the wallet's own key", await fetch([], agent), "session_key_ended");
  await farthing("wallet", "session", "end", "scout", "--let-go");
  const free = await fetch([], agent);
  check("until it is let go", free.code === 0, free.stdout + free.stderr);
  await until("all settlements", async () => (await usdc(chain.url, payer.address)) === before - spent - 2n * PRICE);
  same("as much is gone as was bought", before - (await usdc(chain.url, payer.address)), 4n * PRICE);
  await guard.stop();

  // For nobody in particular, and ended early.
  const errand = await farthing("wallet", "session", "new", "errand", "--for", "1h");
  await farthing("wallet", "session", "fund", "errand", "--amount", "0.03");
  const byName = await fetch(["--pay-with", "session:errand"]);
  check("whoever is given it names it", byName.code === 0, byName.stdout + byName.stderr);
  await until("its settlement", async () => (await usdc(chain.url, errand.address)) === 20_000n);
  // Its passphrase from the kernel's keyring, where this machine lets it be.
  const bare = { ...owner.env };
  const none = await fetch(["--pay-with", "session:errand"], bare);
  check("without a passphrase it is not opened", none.code !== 0 && /FARTHING_PASSPHRASE/.test(none.stderr), none.stderr);
  const badly = await run(["wallet", "keyring", "store"], { ...bare, FARTHING_PASSPHRASE: "battery staple" });
  check("a passphrase that opens nothing is not kept", badly.code === 1, badly.stderr);
  const kept = await run(["wallet", "keyring", "store"], env);
  if (kept.code === 0) {
    cleanAfter(() => run(["wallet", "keyring", "remove"], bare));
    same("the keyring has it", (await run(["wallet", "keyring", "status"], bare)).json?.stored, true);
    const fromRing = await fetch(["--pay-with", "session:errand"], bare);
    check("with the keyring it is", fromRing.code === 0, fromRing.stdout + fromRing.stderr);
    await until("that settlement", async () => (await usdc(chain.url, errand.address)) === 10_000n);
    same("it is forgotten", (await run(["wallet", "keyring", "remove"], bare)).json?.stored, false);
    check("and opens nothing more", (await fetch(["--pay-with", "session:errand"], bare)).code !== 0);
  } else {
    check("a keyring that is forbidden says what to do", /password-file/.test(kept.stderr), kept.stderr);
    console.log("      the kernel's keyring is not to be had here, and was not tried");
  }
  const left = await usdc(chain.url, errand.address);
  const early = await farthing("wallet", "session", "end", "errand");
  const moved = early.moved.reduce((sum, one) => sum + BigInt(one.atoms), 0n);
  const stays = early.stays.reduce((sum, one) => sum + BigInt(one.atoms), 0n);
  same("ended early, what is left goes home, but for what may still be taken", moved + stays, left);
  same("and is there", await usdc(chain.url, errand.address), stays);
  denied("it signs nothing more", await fetch(["--pay-with", "session:errand"]), "session_key_ended");
  same("as many transfers left it as were meant", await transfersFrom(chain.url, made.address), 3);
  check("the audit log has them", /session_key_made/.test(JSON.stringify(await run(["audit", "export", "--format", "jsonl"], env))));
});

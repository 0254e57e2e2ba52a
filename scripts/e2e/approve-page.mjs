#!/usr/bin/env node
// Two people who approve with passkeys, in a real Chromium with its virtual authenticators. They make their passkeys on a
// page of `farthing approver add --passkey`, see what waits on the page of `farthing approval serve` as soon as it does, and
// a machine pays once they have agreed. What other pages, other devices and replayed answers say counts for nothing, and a
// webhook is told, signed as Standard Webhooks has it. A grant of several payments is shown and approved as one. On the
// embedded chain.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { join } from "node:path";
import { writeFileSync } from "node:fs";

import { browser } from "./browser.mjs";
import {
  PAYEE, check, cleanAfter, devnet, freePort, route, run, same, script, scratch, seller, service, until, upstream, usdc, wallet, within,
} from "./support.mjs";

const POLICY = `
version: 1
owner: acme
budgets:
  acme:
    per_payment: $0.10
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

// The example of the Standard Webhooks libraries.
const HOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

function listening(handler) {
  const server = createServer(handler);
  cleanAfter(() => {
    server.closeAllConnections();
    return new Promise((done) => server.close(done));
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server.address().port)));
}

/** A service that is told of what waits, and takes each message the second time. */
async function hook() {
  const heard = [];
  const port = await listening(async (req, res) => {
    let body = "";
    for await (const chunk of req.setEncoding("utf8")) body += chunk;
    const { "webhook-id": id, "webhook-timestamp": secs, "webhook-signature": signature } = req.headers;
    const key = Buffer.from(HOOK_SECRET.slice("whsec_".length), "base64");
    const expected = `v1,${createHmac("sha256", key).update(`${id}.${secs}.${body}`).digest("base64")}`;
    const signed = signature?.length === expected.length && timingSafeEqual(Buffer.from(signature), Buffer.from(expected));
    const first = !heard.some((message) => message.id === id);
    heard.push({ id, signed, body, late: Math.abs(Date.now() / 1000 - Number(secs)) });
    res.writeHead(first ? 500 : 204).end();
  });
  return { url: `http://127.0.0.1:${port}/hook`, heard };
}

script(async () => {
  const chain = await devnet();
  const goods = await upstream();
  const routes = route("GET /dear", "$0.05") + route("GET /other", "$0.05");
  const shop = await seller({ rpcUrl: chain.url, upstreamUrl: goods.url, routes });
  await shop.start();
  const { env } = await wallet(chain.url);
  const farthing = (...words) => run(words, env);
  const before = await usdc(chain.url, PAYEE);
  const sold = async () => (await usdc(chain.url, PAYEE)) - before;
  const file = join(scratch(), "policy.yaml");
  writeFileSync(file, POLICY);
  same("the policy comes into force", (await farthing("policy", "apply", file)).code, 0);

  const port = await freePort();
  const page = `http://localhost:${port}`;
  const told = await hook();
  const chromium = await browser();

  // Each of two people makes a passkey, on a device of their own: one signs with ES256, and one with Ed25519.
  const register = async (name, algorithm) => {
    const adding = await service(["approver", "add", name, "--passkey", "--page", page], env);
    const tab = await chromium.tab();
    const device = await tab.device();
    await tab.open(adding.open);
    await tab.until("the offer to make a passkey", "document.querySelector('#make')?.disabled === false");
    check(`${name} sees whose word it will be`, (await tab.text("#status")).startsWith(`The word of ${name} will count`), await tab.text("#status"));
    same("the link's secret has left the address", await tab.evaluate("location.href"), `${adding.url}/`);
    await tab.evaluate(`(() => {
      const create = navigator.credentials.create.bind(navigator.credentials);
      navigator.credentials.create = (options) => {
        options.publicKey.pubKeyCredParams = options.publicKey.pubKeyCredParams.filter(({ alg }) => alg === ${algorithm});
        return create(options);
      };
    })()`);
    await tab.press("#make");
    await tab.until("the passkey", "document.querySelector('#status')?.textContent.startsWith('Done') === true");
    same(`the word of ${name} counts, and the page is gone`, await within(adding.exited, "the end of the registration"), 0);
    check("the page had no complaint", tab.complaints.length === 0, tab.complaints);
    const made = await device.credentials();
    await device.remove();
    return made[0];
  };
  const passkeys = { carol: await register("carol", -7), dan: await register("dan", -8) };
  const known = (await farthing("approver", "list")).json;
  check("both are known by what their devices made", known.length === 2 && known[0].key.startsWith("passkey-es256:") && known[1].key.startsWith("passkey-ed25519:") && known.every(({ page: at }) => at === page), known);
  const again = await farthing("approver", "add", "carol", "--passkey", "--page", page);
  check("a name is one person's", again.code === 1 && /already/.test(again.stderr), again);
  const open = await farthing("approval", "serve", "--listen", "0.0.0.0:0");
  check("the page is for this machine", open.code === 2 && /other machines/.test(open.stderr), open);

  // The page, with one device at hand at a time: of two, the one that is asked in vain would speak up first.
  const serving = await service(
    ["approval", "serve", "--listen", `127.0.0.1:${port}`, "--webhook", told.url, "--webhook-secret", "env:HOOK"],
    { ...env, HOOK: HOOK_SECRET },
  );
  const tab = await chromium.tab();
  let atHand;
  const take = async (credential, more) => {
    await atHand?.remove();
    atHand = await tab.device(more);
    await atHand.add(credential);
  };
  const be = (name) =>
    tab.evaluate(`(() => { const who = document.querySelector("#who"); who.value = "${name}"; who.dispatchEvent(new Event("change")); })()`);
  await tab.open(serving.open);
  await tab.until("the page", "document.querySelector('#status')?.textContent === 'Nothing waits.'");
  const late = await chromium.tab();
  await late.open(serving.open);
  await late.until("a complaint", "document.querySelector('#wrong')?.hidden === false");
  check("the link works once", /used already/.test(await late.text("#wrong")), await late.text("#wrong"));

  // Somebody asks; what they write is shown, and is nothing but text.
  const buy = (path) => farthing("fetch", `${shop.url}${path}`, "--max", "0.09", "--ask");
  const note = "/dear?note=<img src=x onerror=document.title='taken'>&key=hush";
  const asked = await buy(note);
  check("people are asked", asked.code !== 0 && goods.calls.length === 0, asked);
  await tab.until("the request on the page", "document.querySelectorAll('#requests > li').length === 1");
  const shown = async (name) => tab.text(`[data-of="${name}"]`);
  const { json: [kept] } = await farthing("approval", "list");
  check("they see who would pay whom how much", (await tab.text("h2")) === `The owner's own would pay at most 0.05 USDC to 127.0.0.1:${new URL(shop.url).port}` && (await shown("payee")) === kept.payee, await tab.text("h2"));
  same("for what exactly", await shown("asked"), `GET ${kept.url}`);
  check("nothing says that it is a grant", await tab.evaluate("[...document.querySelectorAll('#requests .grant')].every(({ hidden }) => hidden)"));
  check("that is marked as somebody else's", await tab.evaluate(`document.querySelector('[data-of="asked"]').matches('.theirs') && document.querySelector('[data-of="payee"]').matches('.theirs')`));
  check("which rule asks, and how many", (await shown("policy")) === "the rule “dear” asks 2 people; 0 said yes", await shown("policy"));
  check("until when", /1[45] minutes left/.test(await shown("until")), await shown("until"));
  check("nothing of it became part of the page", await tab.evaluate("document.querySelectorAll('#requests img, #requests script').length === 0 && document.title === 'Payments that wait for you'"));
  same("buttons are named by what they are about", await tab.evaluate("document.getElementById(document.querySelector('button').getAttribute('aria-describedby')).textContent === document.querySelector('h2').textContent"), true);

  // A device that does not recognize whoever holds it says nothing, and a word for a yes cannot be turned into a no.
  const complaint = () => tab.text("#requests li .wrong");
  const votes = async () => (await farthing("approval", "show", kept.id)).json.votes.length;
  await take(passkeys.carol, { isUserVerified: false });
  await tab.press('button[data-verdict="approve"]');
  await tab.until("the device's refusal", "!document.querySelector('#requests li .wrong').hidden");
  check("nobody who is not recognized says anything", /Nothing was signed/.test(await complaint()) && (await votes()) === 0, await complaint());
  await take(passkeys.carol);
  await tab.evaluate(`(() => {
    const { fetch } = window;
    window.kept = [];
    window.fetch = (path, options) => {
      if (path === "/answer") window.kept.push(JSON.parse(options.body));
      return fetch(path, options);
    };
  })()`);
  await tab.press('button[data-verdict="approve"]');
  await tab.until("carol's yes", `document.querySelector('[data-of="votes"]').textContent === "carol: yes"`);
  same("one of two is not enough", (await buy(note)).code, asked.code);
  check("whoever has answered is not asked again", await tab.evaluate("document.querySelector('button').disabled"));
  const said = await tab.evaluate("window.kept[0]");
  const session = await tab.evaluate("sessionStorage.getItem('session')");
  const answer = async (changed, headers = {}) => {
    const sent = await fetch(`http://127.0.0.1:${port}/answer`, {
      method: "POST",
      body: JSON.stringify({ ...said, ...changed }),
      headers: { "content-type": "application/json", origin: page, authorization: `Bearer ${session}`, ...headers },
    });
    return { status: sent.status, ...(await sent.json()) };
  };
  // Node's fetch names the host that it connects to, which is not the page's name.
  same("an address is not the page's name", (await answer({})).code, "wrong_host");
  const inPage = (changed) =>
    tab.evaluate(`fetch("/answer", { method: "POST", headers: { "content-type": "application/json", authorization: "Bearer " + sessionStorage.getItem("session") }, body: ${JSON.stringify(JSON.stringify({ ...said, ...changed }))} }).then((answer) => answer.json())`);
  same("a yes is no no", (await inPage({ verdict: "deny" })).code, "passkey_challenge");
  same("carol's word is not dan's", (await inPage({ approver: "dan" })).code, "passkey_bad_signature");
  same("what was said once is not said twice", (await inPage({})).code, "passkey_counter");

  // Another program's page on this machine asks the same passkey the same question: browsers let it, since all of
  // localhost is one site, and so it is the wallet that does not.
  const elsewhere = await listening((_, res) => res.writeHead(200, { "content-type": "text/html" }).end("<title>elsewhere</title>"));
  const other = await chromium.tab();
  const stolen = await other.device();
  await stolen.add({ ...passkeys.dan, signCount: 50 });
  await other.open(`http://localhost:${elsewhere}/`);
  await other.until("the other page", "document.title === 'elsewhere'");
  const board = await tab.evaluate(`fetch("/waiting", { headers: { authorization: "Bearer " + sessionStorage.getItem("session") } }).then((answer) => answer.json())`);
  const { challenge } = board.board.requests[0];
  const person = board.board.people.find(({ name }) => name === "dan");
  const phished = await other.evaluate(`(async () => {
    const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    const { response } = await navigator.credentials.get({ publicKey: {
      challenge: bytes(${JSON.stringify(challenge.approve)}), rpId: "localhost", userVerification: "required",
      allowCredentials: [{ type: "public-key", id: bytes(${JSON.stringify(person.credential)}) }],
    } });
    return { authenticator_data: text(response.authenticatorData), client_data: text(response.clientDataJSON), signature: text(response.signature) };
  })()`);
  same("what another page was told counts for nothing", (await inPage({ approver: "dan", ...phished })).code, "passkey_origin");
  const poked = await other.evaluate(`fetch(${JSON.stringify(`${page}/waiting`)}, { headers: { authorization: "Bearer x" } }).then(() => "read", (error) => error.name)`);
  same("and it cannot read ours", poked, "TypeError");
  const framed = await other.evaluate(`new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.onload = () => { try { done(frame.contentDocument === null ? "closed" : frame.contentDocument.title); } catch { done("closed"); } };
    frame.src = ${JSON.stringify(`${page}/`)};
    document.body.append(frame);
  })`);
  same("nor show it as its own", framed, "closed");
  same("only carol has spoken", await votes(), 1);

  // The other one agrees, with a device that has signed elsewhere meanwhile.
  await take({ ...passkeys.dan, signCount: passkeys.dan.signCount + 5 });
  await be("dan");
  await tab.press('button[data-verdict="approve"]');
  await tab.until("the agreement", "document.querySelectorAll('#requests > li').length === 0");
  const bought = await buy(note);
  check("the machine pays", bought.code === 0 && (await sold()) === 50_000n, bought);
  same("the approval is used up", (await farthing("approval", "show", kept.id)).json.status, "used");

  // One no is a no, and the page follows without being loaded again.
  same("another thing waits", (await buy("/other")).code, asked.code);
  await tab.until("it on the page", "document.querySelectorAll('#requests > li').length === 1");
  await take(passkeys.dan);
  await tab.press('button[data-verdict="approve"]');
  await tab.until("the refusal of a copy that counts from where it was", "/counted backwards/.test(document.querySelector('#requests li .wrong').textContent)");
  await take({ ...passkeys.carol, signCount: passkeys.carol.signCount + 5 });
  await be("carol");
  await tab.press('button[data-verdict="deny"]');
  await tab.until("the no", "document.querySelectorAll('#requests > li').length === 0");
  same("nothing more was paid", await sold(), 50_000n);
  check("the page had no complaint of its own", tab.complaints.every((text) => /403/.test(text)), tab.complaints);

  // The webhook was told of both, each until it took it, and of nothing that is nobody's business.
  const { heard } = told;
  await until("the messages", () => heard.length === 4);
  check("each message is signed and new", heard.every(({ signed, late }) => signed && late < 60), heard);
  same("each is of one request", new Set(heard.map(({ id }) => id)).size, 2);
  check("they say what waits, and no secret", heard.some(({ id }) => id === kept.id) && heard.every(({ body }) => body.includes("0.05 USDC") && !body.includes("hush") && !body.includes(session)), heard);

  // A grant in the place of a request is shown as one, and answered like one.
  await buy("/dear");
  const [single] = (await farthing("approval", "list")).json;
  const grant = (await farthing("approval", "grant", single.id, "n=2,until=1h")).json;
  same("the request that it takes the place of is taken back", (await farthing("approval", "revoke", single.id)).json?.status, "revoked");
  await tab.until("the grant on the page", "document.querySelectorAll('#requests > li').length === 1 && document.querySelector('#requests .grant').hidden === false");
  const heading = `The owner's own would pay up to 2 times, at most 0.05 USDC each and 0.1 USDC together, to 127.0.0.1:${new URL(shop.url).port}`;
  check("they see how often, and how much each and together", (await tab.text("h2")) === heading && /not one payment but up to 2, with one and the same body/.test(await shown("grant")), await tab.text("h2"));
  same("and what they would approve", await tab.text('button[data-verdict="approve"]'), "Approve the grant with your passkey");
  await tab.press('button[data-verdict="approve"]');
  await tab.until("carol's yes to the grant", `document.querySelector('[data-of="votes"]').textContent === "carol: yes"`);
  await take({ ...passkeys.dan, signCount: passkeys.dan.signCount + 9 });
  await be("dan");
  await tab.press('button[data-verdict="approve"]');
  await tab.until("the agreement to the grant", "document.querySelectorAll('#requests > li').length === 0");
  check("two are paid by it", (await buy("/dear")).code === 0 && (await buy("/dear")).code === 0 && (await sold()) === 150_000n, await sold());
  same("and not a third", (await buy("/dear")).code, asked.code);
  same("it is used up", (await farthing("approval", "show", grant.id)).json.status, "used");
  same("it stops as asked", await serving.stop(), 0);
  await tab.until("that it is gone", "document.querySelector('#wrong')?.hidden === false");
});

// Shows what waits, and asks a passkey. All texts are put in as texts: nothing that anybody wrote becomes part of the page.

import { get, login, post, toBytes, toText, why } from "/common.js";

const AGAIN_MS = 5_000;
const CLOCK_MS = 10_000;

const byId = (id) => document.getElementById(id);
const list = byId("requests");
const who = byId("who");
const cards = new Map();
let board = { people: [], requests: [] };

function say(text) {
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

function complain(place, text) {
  place.textContent = text ?? "";
  place.hidden = text === undefined;
}

function until(ms) {
  const left = Math.max(0, Math.ceil((ms - Date.now()) / 60_000));
  return `${new Date(ms).toLocaleString()}, ${left} ${left === 1 ? "minute" : "minutes"} left`;
}

function votes(request) {
  if (request.votes.length === 0) return "nobody has answered";
  return request.votes.map(({ by, verdict }) => `${by}: ${verdict === "approve" ? "yes" : "no"}`).join(", ");
}

function card(request) {
  const made = byId("request").content.firstElementChild.cloneNode(true);
  const heading = made.querySelector("h2");
  heading.id = `h-${request.id}`;
  made.querySelector("article").setAttribute("aria-labelledby", heading.id);
  for (const button of made.querySelectorAll("button")) {
    button.setAttribute("aria-describedby", heading.id);
    button.addEventListener("click", () => answer(request.id, button.dataset.verdict));
  }
  return made;
}

function fill(made, request) {
  const part = (name, text) => {
    const place = made.querySelector(`[data-of="${name}"]`);
    if (place.textContent !== text) place.textContent = text;
  };
  const asks = request.agent ?? "The owner's own";
  const { grant } = request;
  made.querySelector("h2").textContent = grant
    ? `${asks} would pay up to ${grant.payments} times, at most ${request.max} each and ${grant.total} together, to ${request.host}`
    : `${asks} would pay at most ${request.max} to ${request.host}`;
  for (const place of made.querySelectorAll(".grant")) place.hidden = !grant;
  made.querySelector('[data-verdict="approve"]').textContent = `Approve ${grant ? "the grant " : ""}with your passkey`;
  if (grant) {
    part("grant", `not one payment but up to ${grant.payments}, with ${grant.any_body ? "any body" : "one and the same body"}, without asking again`);
    part("reach", grant.below ? "whatever is below" : "this alone:");
  }
  part("asked", `${request.method} ${request.url}`);
  part("payee", request.payee);
  part("network", request.network);
  part("payer", request.payer);
  part("until", until(request.expires_ms));
  part("policy", `the rule “${request.rule}” asks ${request.quorum} ${request.quorum === 1 ? "person" : "people"}; ${request.voices} said yes`);
  part("votes", votes(request));
  part("id", request.id);
  for (const button of made.querySelectorAll("button")) button.disabled = !request.voters.includes(who.value);
}

function draw() {
  const names = board.people.map(({ name }) => name);
  if ([...who.options].map(({ value }) => value).join() !== names.join()) {
    const chosen = who.value;
    who.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(chosen)) who.value = chosen;
  }
  byId("who-line").hidden = names.length === 0;
  const waiting = new Set(board.requests.map(({ id }) => id));
  for (const [id, made] of cards) {
    if (!waiting.has(id)) {
      made.remove();
      cards.delete(id);
    }
  }
  board.requests.forEach((request, at) => {
    if (!cards.has(request.id)) cards.set(request.id, card(request));
    const made = cards.get(request.id);
    // Whatever has the focus keeps it.
    if (list.children[at] !== made) list.insertBefore(made, list.children[at] ?? null);
    fill(made, request);
  });
  const count = board.requests.length;
  const nobody = names.length === 0 ? " Nobody has a passkey for this page: farthing approver add NAME --passkey" : "";
  say((count === 0 ? "Nothing waits." : count === 1 ? "One payment waits." : `${count} payments wait.`) + nobody);
}

async function answer(id, verdict) {
  const request = board.requests.find((one) => one.id === id);
  const person = board.people.find(({ name }) => name === who.value);
  const made = cards.get(id);
  const place = made?.querySelector(".wrong");
  if (!request || !person || !made) return;
  complain(place);
  for (const button of made.querySelectorAll("button")) button.disabled = true;
  try {
    const { response } = await navigator.credentials.get({
      publicKey: {
        challenge: toBytes(request.challenge[verdict]),
        rpId: board.rp_id,
        allowCredentials: [{ type: "public-key", id: toBytes(person.credential) }],
        userVerification: "required",
        timeout: 120_000,
      },
    });
    await post("/answer", {
      approval: id,
      approver: person.name,
      verdict,
      authenticator_data: toText(response.authenticatorData),
      client_data: toText(response.clientDataJSON),
      signature: toText(response.signature),
    });
  } catch (error) {
    complain(place, why(error));
  }
  const now = board.requests.find((one) => one.id === id);
  if (now) fill(made, now);
}

who.addEventListener("change", draw);
setInterval(() => board.requests.forEach((request) => cards.has(request.id) && fill(cards.get(request.id), request)), CLOCK_MS);

try {
  await login();
  for (let seen = ""; ; ) {
    try {
      const said = await get(`/waiting?seen=${seen}`);
      seen = said.tag;
      board = said.board;
      complain(byId("wrong"));
      draw();
    } catch (error) {
      if (error.status === 401) throw error;
      const said = error.status ? error.message : "The program that serves this page does not answer.";
      complain(byId("wrong"), `${said} What is shown may be out of date.`);
      await new Promise((next) => setTimeout(next, AGAIN_MS));
    }
  }
} catch (error) {
  sessionStorage.clear();
  list.replaceChildren();
  say("");
  complain(byId("wrong"), error.message);
}

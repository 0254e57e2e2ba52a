// An agent that speaks the guard's protocol by itself, as docs/reference/guard.md has it and without any code of ours: the
// story of the guard runs it as another user, who can read nothing of this folder. It needs Node alone. On its standard
// input it is told what to do, on its standard output it says what came of it; both are one JSON object.

import { createHash, randomBytes } from "node:crypto";
import { connect } from "node:net";

/** A connection on which the guard said welcome. */
class Front {
  #socket;
  #next = 0;
  #waiting = new Map();

  constructor(path) {
    let heard = "";
    this.#socket = connect(path);
    this.#socket.setEncoding("utf8").on("data", (piece) => {
      heard += piece;
      const lines = heard.split("\n");
      heard = lines.pop();
      for (const line of lines) {
        const { id, ...answer } = JSON.parse(line);
        this.#waiting.get(id)?.done(answer);
        this.#waiting.delete(id);
      }
    });
    const end = (error) => {
      for (const { fail } of this.#waiting.values()) fail(error ?? new Error("the guard ended the connection"));
      this.#waiting.clear();
    };
    this.#socket.once("error", end).once("close", () => end());
  }

  static async open(path, token) {
    const front = new Front(path);
    const { error } = await front.ask("hello", { version: 1, token, front: randomBytes(16).toString("hex") });
    if (error) throw new Error(`${error.code}: ${error.message}`);
    return front;
  }

  ask(what, members) {
    const id = this.#next++;
    this.#socket.write(`${JSON.stringify({ id, do: what, with: members })}\n`);
    return new Promise((done, fail) => this.#waiting.set(id, { done, fail }));
  }

  end() {
    this.#socket.destroy();
  }
}

/** One thing to buy, another than all before. */
const intent = ({ text, url }, n) => ({
  offer: { dialect: "x402-v2", text }, method: "GET", url, private: true,
  request_hash: createHash("sha256").update(`${url} ${n}`).digest("hex"),
});

const now = () => performance.timeOrigin + performance.now();

/** Everybody asks at once for far more than there is. */
async function crowd({ path, tokens, offer, requests }) {
  const fronts = await Promise.all(tokens.map((token) => Front.open(path, token)));
  const began = now();
  const signatures = new Set();
  const refusals = {};
  await Promise.all(
    Array.from({ length: requests }, async (_, n) => {
      const front = fronts[n % fronts.length];
      const { ok, error } = await front.ask("authorize", { intent: intent(offer, n) });
      if (error) {
        refusals[error.code] = (refusals[error.code] ?? 0) + 1;
        return;
      }
      const shown = await front.ask("present", { id: ok.id });
      if (shown.error) throw new Error(`${ok.id} is not shown: ${shown.error.message}`);
      signatures.add(JSON.stringify([shown.ok.name, shown.ok.value]));
    }),
  );
  const ms = now() - began;
  for (const front of fronts) front.end();
  return { signatures: [...signatures].map((one) => JSON.parse(one)), refusals, ms };
}

/** One asks on and on until it is stopped, and then a while longer. `more` is how many it asks for after its first refusal. */
async function onAndOn({ path, tokens: [token], offer, most, more }) {
  const front = await Front.open(path, token);
  const done = { signed: 0, refused: 0 };
  for (let n = 0; n < most && done.refused < more; n += 1) {
    const asked = now();
    const { error } = await front.ask("authorize", { intent: intent(offer, n) });
    if (error) {
      done.refused += 1;
      done.first ??= { asked, heard: now(), code: error.code };
    } else {
      done.signed += 1;
      done.last = { asked, heard: now() };
      // Whoever started this one may now stop it.
      if (done.signed === 1) process.stderr.write("signed\n");
    }
  }
  front.end();
  return done;
}

let told = "";
for await (const piece of process.stdin) told += piece;
const task = JSON.parse(told);
const came = await { crowd, onAndOn }[task.do](task);
process.stdout.write(`${JSON.stringify(came)}\n`);

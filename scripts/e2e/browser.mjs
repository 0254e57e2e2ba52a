// A real browser for the end-to-end scripts: Chromium, driven over its own DevTools protocol by a pipe, so that nothing
// else is installed for it and no port is open. Not a script itself.

import { spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

import { cleanAfter, until, within } from "./support.mjs";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

function chromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const dir of process.env.PATH.split(delimiter)) {
    for (const name of NAMES) {
      try {
        accessSync(join(dir, name), constants.X_OK);
        return join(dir, name);
      } catch {
        // Elsewhere, perhaps.
      }
    }
  }
  throw new Error("there is no Chromium: `scripts/test --only browser` installs it on Debian, CHROMIUM=PATH names another");
}

/** Starts a browser with nothing in it. */
export async function browser() {
  const home = mkdtempSync(join(tmpdir(), "farthing-chromium-"));
  // Its helpers may write for a moment after it has ended: what they write comes back into what is being removed.
  cleanAfter(() => until("the browser's files are gone", () => {
    try {
      rmSync(home, { recursive: true, force: true });
      return true;
    } catch (error) {
      if (error.code === "ENOTEMPTY") return false;
      throw error;
    }
  }));
  const flags = [
    "--headless", "--remote-debugging-pipe", `--user-data-dir=${home}`, "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    // Chromium's own sandbox does not start as root, as in a container.
    ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
    "about:blank",
  ];
  // A group of its own, so that its helpers end with it.
  const child = spawn(chromium(), flags, { detached: true, stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-4_000)));
  const gone = new Promise((done) => child.once("exit", done));
  cleanAfter(async () => {
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // It has ended, with all of them.
    }
    await gone;
  });
  const [, , , to, from] = child.stdio;
  const waiting = new Map();
  const listeners = new Set();
  let next = 0, rest = "";
  gone.then((code) => waiting.forEach(({ fail }) => fail(new Error(`the browser ended with ${code}: ${said}`))));
  to.on("error", () => {}); // It is gone, which is said above.
  from.setEncoding("utf8").on("data", (chunk) => {
    const messages = (rest + chunk).split("\0");
    rest = messages.pop();
    for (const { id, result, error, method, params, sessionId } of messages.map(JSON.parse)) {
      const call = waiting.get(id);
      waiting.delete(id);
      if (error) call?.fail(new Error(`${call.method}: ${error.message}`));
      else call?.done(result);
      if (method) listeners.forEach((listener) => listener({ method, params, sessionId }));
    }
  });
  const send = (method, params = {}, sessionId = undefined) => {
    const id = (next += 1);
    const answer = new Promise((done, fail) => waiting.set(id, { done, fail, method }));
    to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return within(answer, `${method} in the browser`);
  };

  /** A tab, and what it says in its console. */
  const tab = async () => {
    const { targetId } = await send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
    const call = (method, params) => send(method, params, sessionId);
    const complaints = [];
    listeners.add(({ method, params, sessionId: of }) => {
      if (of !== sessionId) return;
      if (method === "Runtime.exceptionThrown") complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      if (method === "Log.entryAdded" && params.entry.level === "error") complaints.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    });
    await call("Page.enable");
    await call("Runtime.enable");
    await call("Log.enable");
    /** The value of an expression, or of what it promises. */
    const evaluate = async (expression) => {
      const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true, userGesture: true });
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    };
    return {
      call,
      evaluate,
      complaints,
      open: (url) => call("Page.navigate", { url }),
      text: (selector) => evaluate(`document.querySelector(${JSON.stringify(selector)})?.textContent`),
      until: (what, expression) => until(what, () => evaluate(expression)),
      /** Presses where the element is, as a person does. */
      async press(selector) {
        const at = await until(`${selector} on the page`, () => evaluate(`(() => {
          const element = document.querySelector(${JSON.stringify(selector)});
          if (!element || element.disabled) return undefined;
          element.scrollIntoView({ block: "center" });
          const { x, y, width, height } = element.getBoundingClientRect();
          return { x: x + width / 2, y: y + height / 2 };
        })()`));
        for (const type of ["mousePressed", "mouseReleased"]) await call("Input.dispatchMouseEvent", { type, ...at, button: "left", clickCount: 1 });
      },
      /** A device of this tab's that holds passkeys, and says at once who is there. */
      async device(more = {}) {
        await call("WebAuthn.enable");
        const options = {
          protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true,
          automaticPresenceSimulation: true, ...more,
        };
        const { authenticatorId } = await call("WebAuthn.addVirtualAuthenticator", { options });
        return {
          credentials: async () => (await call("WebAuthn.getCredentials", { authenticatorId })).credentials,
          add: (credential) => call("WebAuthn.addCredential", { authenticatorId, credential }),
          remove: () => call("WebAuthn.removeVirtualAuthenticator", { authenticatorId }),
        };
      },
    };
  };
  return { tab };
}

// What our pages share: the way to the program that serves them, and bytes as text.

const KEPT = "session";

/** The link's secret becomes a session of this tab alone, and leaves the address. */
export async function login() {
  const link = location.hash.slice(1);
  if (link !== "") {
    history.replaceState(null, "", location.pathname);
    const { session } = await post("/login", { link });
    sessionStorage.setItem(KEPT, session);
  }
  if (!sessionStorage.getItem(KEPT)) throw new Error("Open the link that the program printed when it started. It works once.");
}

// A new link in an old tab differs behind the "#" alone, for which browsers load nothing.
addEventListener("hashchange", () => location.reload());

async function ask(path, options) {
  const session = sessionStorage.getItem(KEPT);
  const headers = { ...options.headers, ...(session ? { authorization: `Bearer ${session}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  const said = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(said.message), { code: said.code, status: answer.status });
  return said;
}

export const get = (path, signal) => ask(path, { signal });

export const post = (path, body) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export function toText(buffer) {
  let text = "";
  for (const byte of new Uint8Array(buffer)) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function toBytes(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}

/** What went wrong with a passkey, in words. */
export function why(error) {
  if (error.name === "NotAllowedError") return "Nothing was signed: the passkey was not used in time, or you said no to it.";
  if (error.name === "InvalidStateError") return "There is a passkey on this device already.";
  return error.message;
}

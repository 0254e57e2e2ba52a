// Has a passkey made, and hands its public half in.

import { login, post, toBytes, toText, why } from "/common.js";

const byId = (id) => document.getElementById(id);
const make = byId("make");

function complain(text) {
  byId("wrong").textContent = text ?? "";
  byId("wrong").hidden = text === undefined;
}

function announce({ name, runs, page }) {
  const but = runs ? ` It will not count for what ${runs} asks for.` : "";
  byId("status").textContent = `The word of ${name} will count by this passkey, on the page at ${page}.${but}`;
}

make.addEventListener("click", async () => {
  make.disabled = true;
  complain();
  try {
    // Each try has a challenge of its own.
    const asked = await post("/begin", {});
    const { response } = await navigator.credentials.create({
      publicKey: {
        challenge: toBytes(asked.challenge),
        rp: { id: asked.rp_id, name: "farthing" },
        user: { id: toBytes(asked.handle), name: asked.name, displayName: asked.name },
        pubKeyCredParams: asked.algorithms.map((alg) => ({ type: "public-key", alg })),
        excludeCredentials: asked.known.map((id) => ({ type: "public-key", id: toBytes(id) })),
        authenticatorSelection: { residentKey: "preferred", userVerification: "required" },
        attestation: "none",
        timeout: 120_000,
      },
    });
    await post("/finish", {
      attestation_object: toText(response.attestationObject),
      client_data: toText(response.clientDataJSON),
    });
    byId("status").textContent = `Done: the word of ${asked.name} counts. You may close this page.`;
  } catch (error) {
    complain(why(error));
    make.disabled = false;
  }
});

try {
  await login();
  announce(await post("/begin", {}));
  make.disabled = false;
} catch (error) {
  byId("status").textContent = "";
  complain(error.message);
}

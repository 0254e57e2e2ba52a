// A TCP proxy before a node, for cutting: connections are reset, answers end in the middle, the line falls silent, or the
// node gets a transaction whose sender never hears of it. Not a script itself.

import { connect, createServer } from "node:net";

/** How a line can be cut. */
export const CUTS = ["reset", "half", "silent", "after_send"];

/** How long a cut that waits for traffic waits for it; then the line is simply reset. */
const ARMED_MS = 1_500;

/** What a transaction looks like on its way to the node. */
const SENDS = "eth_sendRawTransaction";

/**
 * A line to the node at `target`. `cut(how, ms)` resolves when the line works again. `sends(listener)` tells of each
 * transaction that goes through; returns what ends that.
 */
export async function line(target) {
  const { hostname, port } = new URL(target);
  const pairs = new Set();
  const listeners = new Set();
  let down = false; // Whoever comes is reset.
  let silent = false; // Bytes vanish.
  let half; // Called when an answer was cut in the middle.
  let afterSend; // Called when the answer to a transaction was dropped.

  const reset = (pair) => {
    pairs.delete(pair);
    pair.client.resetAndDestroy();
    pair.node.destroy();
  };
  const resetAll = () => [...pairs].forEach(reset);

  const server = createServer((client) => {
    client.on("error", () => {});
    if (down) return client.resetAndDestroy();
    const node = connect({ host: hostname, port: Number(port), noDelay: true });
    const pair = { client, node, sent: false };
    pairs.add(pair);
    client.setNoDelay(true);
    client.on("data", (chunk) => {
      if (silent) return;
      node.write(chunk);
      if (chunk.includes(SENDS)) {
        pair.sent = true;
        for (const listener of listeners) listener();
      }
    });
    node.on("data", (chunk) => {
      if (silent) return;
      if (afterSend && pair.sent) {
        reset(pair);
        return afterSend();
      }
      if (half) {
        const tell = half;
        half = undefined;
        client.write(chunk.subarray(0, Math.ceil(chunk.length / 2)), () => reset(pair));
        return tell();
      }
      pair.sent = false;
      client.write(chunk);
    });
    for (const socket of [client, node]) {
      socket.on("error", () => reset(pair));
      socket.on("close", () => reset(pair));
    }
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));

  async function cut(how, ms) {
    if (how === "silent") {
      silent = true;
      await pause(ms);
      silent = false;
      return resetAll();
    }
    if (how === "half") await armed((tell) => (half = tell));
    if (how === "after_send") await armed((tell) => (afterSend = tell));
    half = afterSend = undefined;
    down = true;
    resetAll();
    await pause(ms);
    down = false;
  }

  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut,
    sends: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: () => {
      resetAll();
      return new Promise((done) => server.close(done));
    },
  };
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until what was armed has struck, but not for ever. */
function armed(arm) {
  return new Promise((done) => {
    const late = setTimeout(done, ARMED_MS);
    arm(() => {
      clearTimeout(late);
      done();
    });
  });
}

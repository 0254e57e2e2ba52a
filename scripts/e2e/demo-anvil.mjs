#!/usr/bin/env node
// The same demonstration on anvil, with the published bytecode of USDC in place of our own.

import { startWorld } from "../../interop/support/world.mjs";
import { check, run, same, script } from "./support.mjs";

await script(async () => {
  const world = await startWorld();
  try {
    const { code, json, stdout, stderr } = await run(["demo", "--json", "--rpc", world.rpcUrl]);
    same("the demonstration ends with exit code 0 on anvil", code, 0);
    check("its books reconcile with the real token's", json?.reconciles === true, json?.summary?.differences ?? stdout + stderr);
    check("something was bought", json?.summary?.payments >= 3, json?.summary?.payments);
    check("every refusal held", json?.refusals?.length >= 6 && json.refusals.every(({ held }) => held), json?.refusals);
    const again = await run(["demo", "--json", "--rpc", world.rpcUrl]);
    same("on the same chain once more, exit code 0", again.code, 0);
    check("and its books reconcile", again.json?.reconciles === true, again.json?.summary?.differences);
    const killed = await run(["demo", "--kill", "--json", "--rpc", world.rpcUrl]);
    same("with processes killed in the middle of payments, exit code 0", killed.code, 0);
    check("and its books reconcile", killed.json?.reconciles === true && killed.json.kills.every(({ held }) => held), killed.json?.failures ?? killed.stderr);
  } finally {
    await world.stop();
  }
});

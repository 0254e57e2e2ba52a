// Where things are: the repository, our binary, the cache, and the node binary of anvil.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);

/** The root of the repository. */
export const repo = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** What can be made again at any time. `FARTHING_CACHE_DIR` moves it out of the checkout. */
export function cacheDir() {
  return process.env.FARTHING_CACHE_DIR ?? join(repo, ".cache/interop");
}

/** The program under test: `FARTHING_BIN`, else the release build. */
export function farthingBin() {
  const target = resolve(repo, process.env.CARGO_TARGET_DIR ?? "target");
  const bin = resolve(process.env.FARTHING_BIN ?? join(target, "release", "farthing"));
  if (!existsSync(bin)) throw new Error(`no program at ${bin}: run 'cargo build --release', or set FARTHING_BIN`);
  return bin;
}

/**
 * Anvil's own executable: `ANVIL_BIN`, else the one that npm installed (for Linux on x86-64, where our tests run),
 * else the one on the path. Its launcher package is not used, so that a kill reaches the node itself.
 */
export function anvilBin() {
  if (process.env.ANVIL_BIN) return process.env.ANVIL_BIN;
  try {
    return join(dirname(require.resolve("@foundry-rs/anvil-linux-amd64/package.json")), "bin", "anvil");
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    return "anvil";
  }
}

// Builds the real Permit2 from Uniswap's published source, with Uniswap's own compiler settings.
//
// `bytecode_hash = none` makes the build exact: the CREATE2 address that follows from this code and
// the published salt is the canonical address itself, and `world.mjs` insists on that.

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

import { cacheDir } from "./paths.mjs";

const require = createRequire(import.meta.url);
const ROOT = join(dirname(require.resolve("@uniswap/v4-periphery/package.json")), "lib/permit2");

const SETTINGS = {
  viaIR: true,
  optimizer: { enabled: true, runs: 1_000_000 },
  metadata: { bytecodeHash: "none" },
  outputSelection: { "src/Permit2.sol": { Permit2: ["evm.bytecode.object"] } },
};

/** Reads `path` and everything it imports, keyed by the path that solc will see. */
function collect(path, into) {
  if (into.has(path)) return;
  const file = path.startsWith("solmate/") ? join(ROOT, "lib", path) : join(ROOT, path);
  const content = readFileSync(file, "utf8");
  into.set(path, content);
  for (const [, target] of content.matchAll(/^\s*import\s+(?:\{[^}]*\}\s+from\s+)?"([^"]+)";/gm)) {
    collect(target.startsWith(".") ? join(dirname(path), target) : target, into);
  }
}

/** Returns the creation code of Permit2, from the cache when the same input was compiled before. */
export function permit2InitCode() {
  const sources = new Map();
  collect("src/Permit2.sol", sources);
  const input = JSON.stringify({
    language: "Solidity",
    sources: Object.fromEntries([...sources].map(([path, content]) => [path, { content }])),
    settings: SETTINGS,
  });
  const key = createHash("sha256").update(input).digest("hex").slice(0, 16);
  const cached = join(cacheDir(), `permit2-${key}.hex`);
  try {
    return readFileSync(cached, "utf8").trim();
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  // The first build takes some ten seconds; whoever waits should know for what.
  console.error("compiling Permit2 (once; kept in the cache directory)");
  const output = JSON.parse(require("solc0817").compile(input));
  const failures = (output.errors ?? []).filter((e) => e.severity === "error");
  if (failures.length > 0) throw new Error(failures.map((e) => e.formattedMessage).join("\n"));
  const code = `0x${output.contracts["src/Permit2.sol"].Permit2.evm.bytecode.object}`;
  mkdirSync(dirname(cached), { recursive: true });
  // Two processes may build at once: each writes its own file, and the rename is atomic.
  const draft = `${cached}.${process.pid}`;
  writeFileSync(draft, code);
  renameSync(draft, cached);
  return code;
}

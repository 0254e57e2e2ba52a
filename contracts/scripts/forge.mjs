// Where forge is, or how it gets there.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { cacheDir } from "../../interop/support/paths.mjs";

const contracts = join(dirname(fileURLToPath(import.meta.url)), "..");
const PACKAGE = "@foundry-rs/forge-linux-amd64";

/**
 * Forge's own executable: `FORGE_BIN`, else the one that npm installed, else the one in the cache, else downloaded there.
 * npm leaves an optional package out that asks for a newer node; the program in it needs no node at all.
 */
export function forgeBin() {
  if (process.env.FORGE_BIN) return process.env.FORGE_BIN;
  const installed = join(contracts, "node_modules", PACKAGE, "bin/forge");
  if (existsSync(installed)) return installed;
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error("forge for this platform is not pinned here: install it and set FORGE_BIN");
  }
  const { version, integrity } = JSON.parse(readFileSync(join(contracts, "package-lock.json"), "utf8")).packages[`node_modules/${PACKAGE}`];
  const cached = join(cacheDir(), `forge-${version}`);
  if (existsSync(cached)) return cached;
  mkdirSync(cacheDir(), { recursive: true });
  const scratch = mkdtempSync(join(cacheDir(), "forge-"));
  try {
    const archive = run("npm", ["pack", "--silent", `${PACKAGE}@${version}`], { cwd: scratch }).trim();
    const hash = `sha512-${createHash("sha512").update(readFileSync(join(scratch, archive))).digest("base64")}`;
    if (hash !== integrity) throw new Error(`${PACKAGE}@${version} is not the one of package-lock.json`);
    run("tar", ["-xzf", archive, "package/bin/forge"], { cwd: scratch });
    chmodSync(join(scratch, "package/bin/forge"), 0o755);
    // Two processes may do this at once; the rename is atomic.
    renameSync(join(scratch, "package/bin/forge"), cached);
  } finally {
    rmSync(scratch, { recursive: true });
  }
  return cached;
}

/** Runs a program that must succeed, and returns what it prints. */
export function run(program, words, options) {
  const { status, stdout, stderr, error } = spawnSync(program, words, { encoding: "utf8", ...options });
  if (error) throw error;
  if (status !== 0) throw new Error(`${program} failed: ${stderr}`);
  return stdout;
}

#!/usr/bin/env node
// The compiler of `package.json`, spoken to as forge speaks to the native one: `--version`, and standard JSON on stdin.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const solc = createRequire(import.meta.url)("solc");
const words = process.argv.slice(2);

if (words.includes("--version")) {
  // forge reads the version from the second line, and wants the platform to be one that it knows.
  console.log("solc, the solidity compiler commandline interface");
  console.log(`Version: ${solc.version().replace(/\.Emscripten.*$/, ".Linux.g++")}`);
} else if (words.includes("--standard-json")) {
  const at = words.indexOf("--base-path");
  const base = resolve(at < 0 ? "." : words[at + 1]);
  const read = path => {
    try {
      return { contents: readFileSync(resolve(base, path), "utf8") };
    } catch (error) {
      return { error: error.message };
    }
  };
  process.stdout.write(solc.compile(readFileSync(0, "utf8"), { import: read }));
} else {
  console.error(`unknown arguments: ${words.join(" ")}`);
  process.exit(2);
}

// What `cargo test --workspace` printed, and which of its tests a narrower `cargo test` would have run.

const { existsSync, readdirSync } = require("node:fs");
const { join } = require("node:path");

/** The tests that passed, by the name of the program that ran them (`farthing_policy`, `ledger`). */
function testsNamed(lines) {
  const programs = new Map();
  let current;
  for (const line of lines) {
    const program = /^\s+Running .*\((?:.*\/)?deps\/([a-z0-9_]+)-[0-9a-f]{16}\)$/.exec(line);
    if (program) programs.set(program[1], (current = programs.get(program[1]) ?? []));
    else if (/^\s+(?:Running|Doc-tests) /.test(line)) current = undefined;
    const test = /^test (\S+)(?: - should panic)? \.\.\. ok$/.exec(line);
    if (test) current?.push(test[1]);
  }
  return programs;
}

/** What a `cargo test` selects: a program, or all of them, and a part of the name. None if that cannot be told here. */
function testsWanted(command) {
  const read = /^cargo test -q (?:--workspace|-p ([a-z0-9-]+))(?: --(lib|test|bin)(?: ([a-z0-9_-]+))?)?(?: ([\w:]+))?$/.exec(command);
  if (!read) return undefined;
  const [, crate, kind, target, part] = read;
  // `--lib` takes no name, so what follows it is a part of one.
  const name = kind === "lib" ? undefined : target;
  // Whose `tests/NAME.rs` it was, its program's name does not say.
  if (crate && kind === "test" && owners(name).length !== 1) return undefined;
  return { program: (name ?? crate)?.replaceAll("-", "_"), part: (kind === "lib" ? target : undefined) ?? part ?? "" };
}

/** The crates that have a `tests/NAME.rs`. */
function owners(name) {
  const crates = join(__dirname, "../../crates");
  return readdirSync(crates).filter((crate) => existsSync(join(crates, crate, "tests", `${name}.rs`)));
}

/** How many of them passed, in words; empty if none did, so that the command has to be run. */
function testsRun(programs, wanted) {
  if (!wanted) return "";
  let count = 0;
  for (const [program, tests] of programs) {
    if (wanted.program && program !== wanted.program) continue;
    count += tests.filter((test) => test.includes(wanted.part)).length;
  }
  return count > 0 ? `${count} tests` : "";
}

module.exports = { testsNamed, testsRun, testsWanted };

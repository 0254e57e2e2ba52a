// What `cargo test --workspace` printed, and which of its tests a narrower `cargo test` would have run.

/** The tests that passed, by the name of the program that ran them (`farthing_policy`, `ledger`). */
function testsNamed(lines) {
  const programs = new Map();
  let current;
  for (const line of lines) {
    const program = /^\s+Running .*\((?:.*\/)?deps\/([a-z0-9_]+)-[0-9a-f]{16}\)$/.exec(line);
    if (program) programs.set(program[1], (current = programs.get(program[1]) ?? []));
    else if (/^\s+Doc-tests /.test(line)) current = undefined;
    const test = /^test (\S+)(?: - should panic)? \.\.\. ok$/.exec(line);
    if (test) current?.push(test[1]);
  }
  return programs;
}

/** What a `cargo test` selects: a program, or all of them, and a part of the name. None if that is not said here. */
function testsWanted(command) {
  const [, crate, kind, target, part] =
    /^cargo test -q (?:--workspace|-p ([a-z0-9-]+))(?: --(lib|test|bin)(?: ([a-z0-9_-]+))?)?(?: ([\w:]+))?$/.exec(command) ?? [];
  // `--lib` takes no name, so what follows it is a part of one.
  const name = kind === "lib" ? undefined : target;
  const wanted = (kind === "lib" ? target : undefined) ?? part ?? "";
  if (!command.startsWith("cargo test -q ") || (crate === undefined && !command.includes("--workspace"))) return undefined;
  const program = name ?? crate;
  return { program: program?.replaceAll("-", "_"), part: wanted };
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

#!/usr/bin/env node
// Published attackers set upon us: a battery for clients of x402, a malicious MCP server with an agent that obeys it, a
// corpus of poisoned tools, and a deliberately vulnerable server. What comes of each case is a cell of a table in
// docs/reference/red-team.md, and a case that ends otherwise than its cell says fails, better or worse. Nothing is tuned:
// what gets through is in the tables, too.
//
//   node interop/redteam/run.mjs [PART…]      parts: vulnerable, poison, bait, facilitators

import { execFile } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

import { bin, check, cleanAfter, devnet, parsed, python, read, repo, run, same, scratch, script, surroundings, within } from "../../scripts/e2e/support.mjs";

const here = join(repo, "interop/redteam");
const started = promisify(execFile);

// ---------------------------------------------------------------------------------------------------------------------
// What the page says.

/** The tables of the page, by the words of their upper left corner: `{ row: { column: cell } }`. */
function tables(text) {
  const cells = (line) => line.split("|").slice(1, -1).map((cell) => cell.trim().replaceAll("`", ""));
  const found = {};
  const lines = text.split("\n");
  lines.forEach((line, at) => {
    if (!/^\|[ :|-]+\|$/.test(line)) return;
    const [corner, ...columns] = cells(lines[at - 1]);
    found[corner] = {};
    for (let next = at + 1; lines[next]?.startsWith("|"); next += 1) {
      const [row, ...values] = cells(lines[next]);
      found[corner][row] = Object.fromEntries(columns.map((column, which) => [column, values[which]]));
    }
  });
  return found;
}

const page = tables(read(join(repo, "docs/reference/red-team.md")));

/** Compares what came of a suite with its table: every cell, none besides. */
function compare(corner, rows) {
  const said = page[corner] ?? {};
  for (const [row, columns] of Object.entries(rows)) {
    for (const [column, found] of Object.entries(columns)) {
      same(`${corner}: ${row}, ${column}: ${found}`, found, said[row]?.[column]);
    }
  }
  same(`${corner}: the page has these cases and no others`, Object.keys(said).sort().join(), Object.keys(rows).sort().join());
}

/** Runs `work` for all of `list`, `width` at a time. */
async function side(width, list, work) {
  const rest = [...list.entries()];
  const done = [];
  await Promise.all(Array.from({ length: width }, async () => {
    for (let next = rest.shift(); next; next = rest.shift()) done[next[0]] = await work(next[1]);
  }));
  return done;
}

// ---------------------------------------------------------------------------------------------------------------------
// hostile-facilitator: a facilitator that settles, and then says that it did not.

const BUYERS = {
  "fetch": ["fetch", 1],
  "fetch, three times": ["fetch", 3],
  "proxy, three times": ["proxy", 3],
  "proxy, three times by one name": ["named", 3],
};

/** What the battery says: two payments for one purchase are a failure, and so are more. */
function paid({ verdict, distinct }) {
  if (distinct > 1) return "paid again";
  return distinct === 0 ? "nothing paid" : verdict === "not_exercised" ? "one payment, not judged" : "one payment";
}

async function facilitators(home, program) {
  const suite = join(dirname(program), "hostile-facilitator");
  const { stdout } = await started(suite, ["selftest"]);
  check("hostile-facilitator tells a careless client from a careful one", /instrument valid: True/.test(stdout), stdout);
  const chain = await devnet();
  const errors = join(home, "errors.txt");
  const env = { ...surroundings(), FARTHING_BIN: bin, EVM_RPC_URL: chain.url, REDTEAM_ERRORS: errors };
  const rows = {};
  await side(2, Object.entries(BUYERS), async ([column, [way, attempts]]) => {
    const command = [process.execPath, join(here, "purchase.mjs"), way, String(attempts)];
    const results = parsed((await started(program, [join(here, "battery.py"), ...command], { env })).stdout);
    const clean = results.find(({ mode }) => mode === "clean");
    check(`hostile-facilitator: ${column}: an ordinary purchase is one`, clean.distinct === 1, clean);
    for (const result of results) (rows[result.mode] ??= {})[column] = paid(result);
  });
  check("hostile-facilitator: every purchase could be tried", !existsSync(errors), existsSync(errors) && read(errors));
  compare("hostile-facilitator 0.2.2", rows);
}

// ---------------------------------------------------------------------------------------------------------------------
// mcpbait: a malicious server, and an agent that does what it reads.

const weather = `
  weather_lookup:
    rules:
      - name: a city, and nothing else
        conditions:
          - { path: args.city, op: regex, value: "^[A-Za-z -]{1,40}$" }
          - { path: args.region, op: exists, value: false }
`;
const policy = (tools, more = "") => `version: "1"\ndefault: deny\n${more}tools:\n${tools}`;
const permit = (names) => names.map((name) => `  ${name}: { rules: [] }\n`).join("");

/** What a policy is, given the tools that there are and what a scan wrote. */
const POLICIES = {
  "without us": () => undefined,
  "all permitted": ({ names }) => policy(permit(names)),
  "as scanned": ({ scanned }) => scanned,
  "one tool permitted": () => policy(weather),
  "the others hidden": ({ names }) => policy(weather, `hide: [${names.filter((name) => name !== "weather_lookup").join(", ")}]\n`),
};

/** Sets the agent upon a server of these modules, with a policy between them. */
async function baited(home, program, modules, write) {
  const suite = join(dirname(program), "mcpbait");
  await started(suite, ["init", "--dir", home]);
  const server = [suite, "serve", "--dir", home, ...(modules ? ["--modules", modules] : [])];
  const scanned = (await run(["mcp", "scan", "--", ...server])).stdout;
  const names = [...scanned.matchAll(/^ {2}"(\w+)": sha256:/gm)].map(([, name]) => name);
  const text = write({ names, scanned });
  const file = join(home, "policy.yaml");
  if (text) writeFileSync(file, text);
  const before = text ? [bin, "mcp", "proxy", "-p", file, "--"] : [];
  const env = { ...surroundings(), FARTHING_HOME: join(home, "wallet") };
  const agent = await started(program, [join(here, "agent.py"), join(home, "workspace"), ...before, ...server], { env });
  const report = join(home, "report.json");
  await started(suite, ["report", "--dir", home, "--json", report]);
  const { verdicts, events } = parsed(read(report));
  const { listed } = parsed(agent.stdout);
  const rows = {};
  for (const [module, verdict] of Object.entries(verdicts)) {
    const tools = events.filter((event) => event.module === module && event.kind === "payload_delivered").flatMap(({ detail }) => detail.tools);
    // The server sees that somebody asked what it has. Whether that reached the agent it cannot see, and we can.
    const seen = tools.some((tool) => listed[tool]);
    rows[module] = verdict === "IGNORED" ? (seen ? "described" : "blocked") : verdict.toLowerCase();
  }
  return { rows, listed };
}

async function bait(home, program) {
  const rows = {};
  await side(2, Object.entries(POLICIES), async ([column, write]) => {
    const found = await baited(join(home, column.replaceAll(" ", "-")), program, undefined, write);
    for (const [module, result] of Object.entries(found.rows)) (rows[module] ??= {})[column] = result;
  });
  compare("mcpbait 0.2.0", rows);
  const names = [["without us", 2], ["all permitted", 1]];
  for (const [column, faces] of names) {
    const alone = await baited(join(home, `rug-pull-${column.replaceAll(" ", "-")}`), program, "rug_pull", POLICIES[column]);
    same(`mcpbait 0.2.0: rug_pull alone, ${column}: of its two faces the agent sees`, alone.listed.weather_lookup?.length, faces);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// mcp-stress-test: labelled cases of poisoned tools.

/** An agent of the published SDK. */
async function connected(command, env) {
  const client = new Client({ name: "redteam", version: "1.0.0" });
  const transport = new StdioClientTransport({ command: command[0], args: command.slice(1), env: { ...surroundings(), ...env }, stderr: "ignore" });
  await within(client.connect(transport), "the start of an agent");
  cleanAfter(() => client.close().catch(() => {}));
  return client;
}

/** A text for a value that is the same however its members are ordered: the proxy writes JSON anew. */
const canonical = (value) => JSON.stringify(value, (_, one) => (one && typeof one === "object" && !Array.isArray(one) ? Object.fromEntries(Object.entries(one).sort()) : one));

/** What an agent reads of a server's tools before and after it calls one of them, and which of them it may still call. */
async function sights(command, env, tool) {
  const client = await connected(command, env);
  const list = async () => (await client.listTools()).tools;
  const words = (tools) => canonical(tools.map(({ name, description, inputSchema }) => ({ name, description, inputSchema })));
  const call = (name) => client.callTool({ name, arguments: {} });
  const before = words(await list());
  await call(tool);
  const tools = await list();
  const called = {};
  for (const name of new Set([tool, ...tools.map(({ name }) => name)])) called[name] = !(await call(name))._meta?.["farthing/denied"];
  await client.close();
  return { before, after: words(tools), called };
}

async function poison(home, program) {
  const server = (...words) => [program, join(here, "poisoned.py"), ...words];
  const cases = parsed((await started(program, [join(here, "poisoned.py"), "--list"])).stdout);
  const rows = {};
  await side(3, cases, async ({ id, tool, carrier }) => {
    const dir = join(home, id);
    mkdirSync(dir, { recursive: true });
    const proxied = (when) => {
      const file = join(dir, `${when}.yaml`);
      writeFileSync(file, policy(permit([tool])));
      return sights([bin, "mcp", "proxy", "-p", file, "--", ...server(id, when)], { FARTHING_HOME: join(dir, "wallet") }, tool);
    };
    const bare = await sights(server(id, "later"), {}, tool);
    const verdict = ({ after, called }) => {
      // The clean tool says what it said before there was poison; to be without tools is to be without poison, too.
      if (after === bare.before || after === "[]") return called[carrier] ? "not blocked" : "blocked";
      return called[carrier] ? "not blocked" : "described";
    };
    rows[id] = {
      "without us": verdict(bare),
      "poisoned from the first": verdict(await proxied("first")),
      "poisoned after a call": verdict(await proxied("later")),
    };
  });
  compare("mcp-stress-test 1.0.3", rows);
}

// ---------------------------------------------------------------------------------------------------------------------
// A server that trusts paths and runs code.

/** The exercises of its documentation, and whether they did harm. */
const EXERCISES = {
  "path traversal": ["read_file", { path: "../../../etc/passwd" }, (text) => text.includes("decoy")],
  "write outside the workspace": ["write_file", { path: "../../../tmp/pwned.txt", content: "pwned" }, (_, outside) => existsSync(join(outside, "tmp/pwned.txt"))],
  "code execution": ["execute_code", { code: "__import__('os').system('id')" }, (text) => /uid=\d+/.test(text)],
  "reading .env": ["read_file", { path: ".env" }, (text) => text.includes("decoy")],
};

const documents = policy(`
  read_file:
    rules:
      - { name: documents, conditions: [{ path: args.path, op: regex, value: "^[a-z0-9_-]+[.](md|txt)$" }] }
  write_file:
    rules:
      - { name: documents, conditions: [{ path: args.path, op: regex, value: "^[a-z0-9_-]+[.](md|txt)$" }] }
`);

const GUARDS = {
  "without us": () => undefined,
  "all permitted": () => policy(permit(["read_file", "write_file", "list_directory", "execute_code"])),
  "as scanned": ({ scanned }) => scanned,
  "documents permitted": () => documents,
};

async function vulnerable(home, program) {
  const rows = {};
  for (const [column, write] of Object.entries(GUARDS)) {
    // The three steps up that the exercises take end in a folder of ours.
    const outside = join(home, column.replaceAll(" ", "-"));
    const workspace = join(outside, "a/b/c");
    for (const dir of [workspace, join(outside, "etc"), join(outside, "tmp")]) mkdirSync(dir, { recursive: true });
    writeFileSync(join(outside, "etc/passwd"), "decoy");
    writeFileSync(join(workspace, ".env"), "decoy");
    writeFileSync(join(workspace, "notes.md"), "ours");
    const server = [join(dirname(program), "vuln-mcp-filesystem-workspace-actions"), workspace];
    const text = write({ scanned: (await run(["mcp", "scan", "--", ...server])).stdout });
    const file = join(outside, "policy.yaml");
    if (text) writeFileSync(file, text);
    const client = await connected([...(text ? [bin, "mcp", "proxy", "-p", file, "--"] : []), ...server], { FARTHING_HOME: join(outside, "wallet") });
    const call = async (name, args) => (await client.callTool({ name, arguments: args })).content.map((part) => part.text ?? "").join("");
    for (const [exercise, [tool, args, harmed]] of Object.entries(EXERCISES)) {
      (rows[exercise] ??= {})[column] = harmed(await call(tool, args), outside) ? "succeeds" : "blocked";
    }
    if (column !== "as scanned") check(`an ordinary document is read, ${column}`, (await call("read_file", { path: "notes.md" })).includes("ours"));
    await client.close();
  }
  compare("vuln-mcp-filesystem-workspace-actions 0.1.0", rows);
}

await script(async () => {
  const home = scratch();
  const program = python("../../interop/redteam/requirements.txt");
  const part = (name) => {
    mkdirSync(join(home, name));
    return join(home, name);
  };
  const wanted = process.argv.slice(2);
  for (const suite of [vulnerable, poison, bait, facilitators]) {
    if (wanted.length > 0 && !wanted.includes(suite.name)) continue;
    const began = Date.now();
    await suite(part(suite.name), program);
    console.log(`-- ${suite.name}: ${Math.round((Date.now() - began) / 1_000)} s`);
  }
});

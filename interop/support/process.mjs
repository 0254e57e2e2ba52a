// Programs that run beside a test: started in their own process group, kept with their output, ended with all they started.

import { spawn } from "node:child_process";

/** How long a participant may take from its start to its first good `/health`. */
const READY_TIMEOUT_MS = 20_000;
/** How long a program may take to end after it was asked; then it is killed. */
const STOP_TIMEOUT_MS = 5_000;
/** What is kept of a program's output, from its end. */
const OUTPUT_LIMIT = 64 * 1024;

/** A running program. `output()` is what it printed lately; `stop()` returns when it and its children are gone. */
export class Program {
  #child;
  #output = "";
  #exited;

  constructor(command, args, env, name = command) {
    this.name = name;
    this.ended = false;
    this.#child = spawn(command, args, { env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (this.#output = (this.#output + text).slice(-OUTPUT_LIMIT)));
    }
    this.#exited = new Promise((done) => {
      const end = (text) => {
        this.ended = true;
        this.#output += text;
        done();
      };
      this.#child.once("error", (error) => end(`${error.message}\n`));
      this.#child.once("exit", (code, signal) => end(`[ended: ${signal ?? code}]\n`));
    });
    running.add(this);
  }

  output() {
    return this.#output;
  }

  get pid() {
    return this.#child.pid;
  }

  /** Waits until `url` answers 200. */
  async ready(url) {
    const deadline = Date.now() + READY_TIMEOUT_MS;
    for (;;) {
      if (this.ended) throw new Error(`${this.name} ended before it was ready:\n${this.#output}`);
      try {
        const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
        await response.arrayBuffer();
        if (response.ok) return this;
      } catch {
        // Not listening yet.
      }
      if (Date.now() > deadline) throw new Error(`${this.name} did not answer ${url} in time:\n${this.#output}`);
      await new Promise((next) => setTimeout(next, 30));
    }
  }

  async stop() {
    running.delete(this);
    this.#signal("SIGTERM");
    const late = setTimeout(() => this.#signal("SIGKILL"), STOP_TIMEOUT_MS);
    await this.#exited;
    clearTimeout(late);
    this.#signal("SIGKILL"); // Whatever it started and did not end itself.
  }

  #signal(signal) {
    try {
      process.kill(-this.#child.pid, signal);
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
  }
}

const running = new Set();

/** Ends everything that is still running; for the way out. */
export async function stopAll() {
  await Promise.all([...running].map((program) => program.stop()));
}

/** Runs a program to its end. Returns its exit code and its output. */
export function runToEnd(command, args, { env, timeoutMs }) {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
    const late = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    child.once("error", fail);
    child.once("close", (code, signal) => {
      clearTimeout(late);
      done({ code, signal, stdout, stderr });
    });
  });
}

/** What the tests of the embedded services share: programs whose lines are JSON, loggers, waiting. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import pg from "pg";
import type { Logger } from "../../src/telemetry/logger.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

/** Cleans up in reverse order, since the test runner's own hooks run in order and would remove a folder below a running server. */
export function inReverse(t: Cleanable): Cleanable {
  const steps: (() => Promise<void> | void)[] = [];
  t.after(async () => {
    for (let step = steps.pop(); step; step = steps.pop()) await step();
  });
  return { after: (step) => void steps.push(step) };
}

export type Line = Readonly<Record<string, unknown>>;

export interface Program {
  readonly child: ChildProcess;
  readonly lines: Line[];
  /** The next or an earlier line that has the key (and value). */
  line(key: string, value?: unknown): Promise<Line>;
  exit(): Promise<number | null>;
}

export function collectingLog(): Logger & { readonly warnings: string[] } {
  const warnings: string[] = [];
  const note = (_: object, message: string): void => void warnings.push(message);
  return { warnings, debug: () => undefined, info: () => undefined, warn: note, error: note };
}

export function fixture(name: string): string {
  return fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));
}

export function startProgram(t: Cleanable, command: readonly string[]): Program {
  const [file = process.execPath, ...args] = command;
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit") as Promise<[number | null]>;
  const lines: Line[] = [];
  const reader = createInterface({ input: child.stdout });
  reader.on("line", (text) => {
    if (text.startsWith("{")) lines.push(JSON.parse(text) as Line);
  });
  t.after(async () => {
    child.kill("SIGTERM");
    const kill = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await exited;
    clearTimeout(kill);
  });
  return {
    child,
    lines,
    line: (key, value) =>
      until(`a line with ${key}`, () => {
        const found = lines.find((candidate) => key in candidate && (value === undefined || candidate[key] === value));
        if (!found && child.exitCode !== null) throw new Error(`ended with ${child.exitCode}: ${JSON.stringify(lines)}`);
        return found;
      }),
    exit: async () => (await exited)[0],
  };
}

/** Polls until there is a value. */
export async function until<T>(what: string, probe: () => T | Promise<T>, timeoutMs = 20_000): Promise<NonNullable<T>> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== null && value !== false) return value;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

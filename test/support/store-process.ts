/** Runs store-child.ts, a process that uses a blob store and may be killed. */
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { StorageConfig } from "../../src/storage/storage-config.ts";

const SCRIPT = fileURLToPath(new URL("store-child.ts", import.meta.url));

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface StoreProcess {
  /** The next line that it says; rejects when it ends first. */
  next(): Promise<Record<string, unknown>>;
  /** kill -9. */
  kill(): Promise<void>;
}

/** The command line, for where a shell must set something up first. */
export function storeCommand(config: StorageConfig, args: readonly string[]): string[] {
  return [process.execPath, "--expose-gc", SCRIPT, args[0] ?? "", JSON.stringify(config), ...args.slice(1)];
}

export function startStoreProcess(t: Cleanable, command: readonly string[]): StoreProcess {
  const child = spawn(command[0] ?? "", command.slice(1), { stdio: ["ignore", "pipe", "pipe"] });
  const exited = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const kill = async (): Promise<void> => {
    child.kill("SIGKILL");
    await exited;
  };
  t.after(kill);
  return { next: lineReader(child), kill };
}

function lineReader(child: ChildProcess): () => Promise<Record<string, unknown>> {
  if (!child.stdout || !child.stderr) throw new Error("no pipes");
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    errors = (errors + text).slice(-4000);
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return async () => {
    const line = await lines.next();
    if (line.done) throw new Error(`the process ended: ${errors}`);
    const message: unknown = JSON.parse(line.value);
    if (typeof message !== "object" || message === null) throw new Error(`unexpected line ${line.value}`);
    return { ...message };
  };
}

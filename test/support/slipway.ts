/** The real program as a child process, on free ports and a folder of its own. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { tempDir } from "./temp.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

const MAIN = fileURLToPath(new URL("../../workers/main.ts", import.meta.url));

export interface RunningSlipway {
  readonly url: string;
  /** host:port, as clients write it in image names. */
  readonly host: string;
  readonly dataDir: string;
  readonly password: string;
  readonly child: ChildProcess;
  readonly env: NodeJS.ProcessEnv;
  output(): string;
  /** Ends by signal and waits; the exit code, or null when a signal ended it. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

export interface SlipwayOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly args?: readonly string[];
  readonly dataDir?: string;
  /** False: return at once; the test watches the output. */
  readonly waitReady?: boolean;
  readonly readyTimeoutMs?: number;
}

/** Below those that a system gives to outgoing connections, one of which would take the port before the program starts on it, or while it starts again. */
const FIRST_PORT = 20_000;
const PORTS = 10_000;
const PORT_TRIES = 100;

export async function freePort(): Promise<number> {
  for (let turn = 0; turn < PORT_TRIES; turn += 1) {
    const port = FIRST_PORT + randomInt(PORTS);
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port from ${FIRST_PORT} to ${FIRST_PORT + PORTS - 1}`);
}

function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** Settings that point at the servers of the test run, so that a test starts none of its own. */
export async function sharedServices(t: Cleanable): Promise<Record<string, string>> {
  const { testDatabase } = await import("./services.ts");
  const { url } = await testDatabase(t, { migrated: false });
  const env: Record<string, string> = { SLIPWAY_DATABASE_URL: url, SLIPWAY_ENCRYPTION_KEY: "11".repeat(32) };
  if (process.env["SLIPWAY_TEST_TEMPORAL_ADDRESS"]) {
    // Of its own: the one relay, the schedules and the runs of a namespace belong to one database.
    const { testNamespace } = await import("./temporal.ts");
    const { address, namespace } = await testNamespace(t);
    Object.assign(env, { TEMPORAL_ADDRESS: address, TEMPORAL_NAMESPACE: namespace });
  }
  return env;
}

export async function startSlipway(t: Cleanable, options: SlipwayOptions = {}): Promise<RunningSlipway> {
  const dataDir = options.dataDir ?? (await tempDir(t, "slipway-run-"));
  const port = options.env?.["SLIPWAY_PORT"] ?? String(await freePort());
  const password = options.env?.["SLIPWAY_ADMIN_PASSWORD"] ?? "Admin-password-1";
  const clean = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith("SLIPWAY_") || name.startsWith("SLIPWAY_TEST_")),
  );
  const env: NodeJS.ProcessEnv = {
    ...clean,
    SLIPWAY_DATA_DIR: dataDir,
    SLIPWAY_PORT: port,
    SLIPWAY_HOST: "127.0.0.1",
    SLIPWAY_ADMIN_PASSWORD: password,
    SLIPWAY_LOG_FORMAT: "json",
    SLIPWAY_DRAIN_NOTICE_SECONDS: "0",
    SLIPWAY_TEMPORAL_PORT: String(await freePort()),
    SLIPWAY_TEMPORAL_UI_PORT: String(await freePort()),
    ...options.env,
  };
  const child = spawn(process.execPath, [MAIN, ...(options.args ?? [])], { env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  const collect = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-200_000);
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  const exited = once(child, "exit") as Promise<[number | null, string | null]>;
  const stop = async (signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    const [code] = await exited;
    return code;
  };
  t.after(async () => {
    const kill = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await stop();
    clearTimeout(kill);
  });
  const running: RunningSlipway = {
    url: `http://127.0.0.1:${port}`,
    host: `127.0.0.1:${port}`,
    dataDir,
    password,
    child,
    env,
    output: () => output,
    stop,
  };
  if (options.waitReady !== false) await waitReady(running, options.readyTimeoutMs ?? 60_000);
  return running;
}

export async function waitReady(running: RunningSlipway, timeoutMs = 60_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (Date.now() < deadline) {
    if (running.child.exitCode !== null) throw new Error(`the program ended with ${running.child.exitCode}\n${running.output()}`);
    const response = await fetch(`${running.url}/health/ready`).catch(() => null);
    if (response?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not ready within ${timeoutMs} ms\n${running.output()}`);
}

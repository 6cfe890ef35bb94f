/**
 * Time from `npm start` to ready with everything installed: the very first start (empty data folder) once, later starts as a median of 5, and where the time of the
 * median start goes. Node's own start and the packages' loading are measured by themselves.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { freePort } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { median } from "./http-load.ts";

const ROUNDS = 5;
const LIMIT_MS = 60_000;
const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const TEMPORAL = "/opt/tools/temporal";

const cleanups: (() => Promise<void> | void)[] = [];
const scope = { after: (fn: () => Promise<void> | void): void => void cleanups.unshift(fn) };

interface Phases {
  /** From the command to each milestone, in milliseconds. */
  readonly postgres: number;
  readonly listening: number;
  readonly ready: number;
  readonly stop: number;
}

async function until(ask: () => Promise<boolean>): Promise<number> {
  const begun = performance.now();
  while (!(await ask())) {
    if (performance.now() - begun > LIMIT_MS) throw new Error("not within a minute");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return performance.now();
}

async function measureStart(dataDir: string): Promise<Phases> {
  const port = await freePort();
  const env: NodeJS.ProcessEnv = {
    ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("SLIPWAY_"))),
    SLIPWAY_DATA_DIR: dataDir,
    SLIPWAY_PORT: String(port),
    SLIPWAY_HOST: "127.0.0.1",
    SLIPWAY_TEMPORAL_PORT: String(await freePort()),
    SLIPWAY_TEMPORAL_UI_PORT: String(await freePort()),
    ...(existsSync(TEMPORAL) && process.env["TEMPORAL_CLI_PATH"] === undefined ? { TEMPORAL_CLI_PATH: TEMPORAL } : {}),
  };
  const { readRunFile } = await import("../../src/embedded/run-file.ts");
  const begun = performance.now();
  // A group of its own, so that the signal reaches the program as Ctrl-C in a terminal would.
  const child = spawn("npm", ["start", "--silent"], { cwd: ROOT, env, stdio: "ignore", detached: true });
  const exited = once(child, "exit");
  const health = async (path: string): Promise<Response | null> => fetch(`http://127.0.0.1:${port}${path}`).catch(() => null);
  const postgres = await until(async () => readRunFile(dataDir)?.servicesReady === true);
  const listening = await until(async () => (await health("/health/live"))?.ok === true);
  const ready = await until(async () => (await health("/health/ready"))?.ok === true);
  const stopping = performance.now();
  if (child.pid !== undefined) process.kill(-child.pid, "SIGINT");
  await exited;
  await until(async () => readRunFile(dataDir) === null);
  return { postgres: postgres - begun, listening: listening - begun, ready: ready - begun, stop: performance.now() - stopping };
}

async function measureNode(code: string): Promise<number> {
  const begun = performance.now();
  await once(spawn(process.execPath, ["--input-type=module", "-e", code], { cwd: ROOT, stdio: "ignore" }), "exit");
  return performance.now() - begun;
}

function show(name: string, value: number): void {
  console.log(`${name.padEnd(44)} ${Math.round(value).toString().padStart(6)} ms`);
}

try {
  const dataDir = await tempDir(scope, "slipway-start-");
  const first = await measureStart(dataDir);
  const later: Phases[] = [];
  for (let round = 0; round < ROUNDS; round += 1) later.push(await measureStart(dataDir));
  const bare = await measureNode("0");
  const loaded = await measureNode('await import("./src/app.ts"); await import("./api/compose.ts"); process.exit(0)');
  show("first start (initdb, migrations), ready", first.ready);
  show(`later starts, ready (median of ${ROUNDS})`, median(later.map((one) => one.ready)));
  show("  embedded services up", median(later.map((one) => one.postgres)));
  show("  from there to listening", median(later.map((one) => one.listening - one.postgres)));
  show("  from there to ready", median(later.map((one) => one.ready - one.listening)));
  show("stop by Ctrl-C", median(later.map((one) => one.stop)));
  show("node alone", bare);
  show("node with the program's modules", loaded);
} finally {
  for (const cleanup of cleanups) await cleanup();
}

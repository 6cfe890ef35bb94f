/**
 * Starts one real server for tests, tells its address in one line, and stops when its stdin closes: it lives as long as the test process,
 * and does not keep that process from ending.
 */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import { guardedSpawn } from "../../src/embedded/guarded-spawn.ts";
import { freePort } from "../../src/embedded/ports.ts";
import { startPostgres } from "../../src/embedded/postgres.ts";
import { startTemporal } from "../../src/embedded/temporal.ts";
import type { Logger } from "../../src/telemetry/logger.ts";
import { searchAttributeNames } from "../../src/temporal/ids.ts";
import { findTool } from "./tools.ts";

interface Service {
  readonly address: string;
  close(): Promise<void>;
}

const log: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: (fields, message) => console.error(message, fields),
  error: (fields, message) => console.error(message, fields),
};

const SERVICES: Record<string, (folder: string) => Promise<Service>> = { postgres, temporal, redis };

async function postgres(folder: string): Promise<Service> {
  const server = await startPostgres({ dataDir: folder, log, durable: false, database: "postgres", maxConnections: 400, forcePort: true });
  return { address: server.url, close: () => server.close() };
}

async function temporal(folder: string): Promise<Service> {
  const searchAttributes = Object.fromEntries(
    Object.values(searchAttributeNames).map((name) => [name, name === searchAttributeNames.failed ? "Int" : "Keyword"]),
  );
  const server = await startTemporal({
    dataDir: folder,
    log,
    port: 0,
    uiPort: null,
    namespace: "default",
    cliPath: process.env["TEMPORAL_CLI_PATH"] ?? findTool("temporal"),
    durable: false,
    searchAttributes,
    onProgress: (line) => console.error(`tests: ${line}`),
  });
  const problem = setInterval(() => {
    if (server.state().phase !== "restarting") return;
    console.error(server.state().problem);
    process.exit(1);
  }, 200);
  await server.ready;
  clearInterval(problem);
  return { address: server.address, close: () => server.close() };
}

async function redis(folder: string): Promise<Service> {
  const path = findTool("redis-server");
  if (path === null) throw new Error("MISSING TOOL: redis-server is not installed");
  const port = await freePort();
  const args = ["--bind", "127.0.0.1", "--port", String(port), "--save", "", "--dir", folder];
  const child = guardedSpawn({ command: path, args, deathSignal: "SIGKILL" });
  const exited = once(child, "exit");
  await new Promise<void>((resolve, reject) => {
    child.stdout?.on("data", (chunk: Buffer) => chunk.includes("Ready to accept connections") && resolve());
    child.once("exit", (code) => reject(new Error(`redis-server ended with ${code}`)));
  });
  return {
    address: `redis://127.0.0.1:${port}`,
    close: async () => {
      child.kill();
      await exited;
    },
  };
}

const name = process.argv[2] ?? "";
const start = SERVICES[name];
if (!start) throw new Error(`no service "${name}"`);
const folder = await mkdtemp(join(tmpdir(), `slipway-${name}-`));
// Where Postgres cannot have a namespace it runs as another user, who must come in.
await chmod(folder, 0o755);
const stdinClosed = once(process.stdin.resume(), "close");
try {
  const service = await start(folder);
  process.stdout.write(`${JSON.stringify({ address: service.address })}\n`);
  // Ctrl-C reaches us together with the tests; they end first and then close our stdin.
  process.on("SIGINT", () => undefined);
  await stdinClosed;
  await service.close();
} finally {
  await rm(folder, { recursive: true, force: true });
}
process.exit(0);

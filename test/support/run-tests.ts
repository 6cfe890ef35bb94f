/**
 * `npm test`: one Postgres, one Temporal dev server and one Redis for the whole run, then node's test runner over all test files.
 * Arguments choose files by a part of their path; what starts with `--` goes to the test runner.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { glob } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { missingRedis, SERVICE_VARIABLES, serviceAddress } from "./services.ts";
import type { ServiceName } from "./services.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** A hanging file must not hang the run; the slowest takes well under this. */
const FILE_TIMEOUT_MS = 240_000;

const args = process.argv.slice(2);
const flags = args.filter((arg) => arg.startsWith("--"));
const filters = args.filter((arg) => !arg.startsWith("--"));
const files = await findFiles(filters);
if (files.length === 0) {
  console.error(`tests: no test file matches ${filters.join(" ")}`);
  process.exit(1);
}

const env = { ...process.env };
for (const name of neededServices()) {
  const started = Date.now();
  const named = Boolean(env[SERVICE_VARIABLES[name]]);
  env[SERVICE_VARIABLES[name]] = await serviceAddress(name);
  console.log(`tests: ${name} ${named ? "is the given one" : `started in ${Date.now() - started} ms`}`);
}

const runner = spawn(
  process.execPath,
  ["--test", `--test-concurrency=${concurrency()}`, `--test-timeout=${FILE_TIMEOUT_MS}`, ...flags, ...files],
  { cwd: ROOT, env, stdio: "inherit" },
);
// Ctrl-C reaches the runner by itself; we stay to stop the services.
process.on("SIGINT", () => undefined);
process.on("SIGTERM", () => runner.kill("SIGTERM"));
const [code] = (await once(runner, "exit")) as [number | null];
process.exit(code ?? 1);

async function findFiles(parts: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for await (const file of glob("test/**/*.test.ts", { cwd: ROOT })) {
    if (file.startsWith("test/bench/")) continue;
    if (parts.length === 0 || parts.some((part) => file.includes(part.replace(/^\.\//, "")))) found.push(file);
  }
  return found.toSorted();
}

function neededServices(): ServiceName[] {
  const missing = missingRedis();
  return missing === false ? ["postgres", "redis", "temporal"] : ["postgres", "temporal"];
}

/** Most test files wait for processes and sockets, so two more than the cores keep them busy. */
function concurrency(): number {
  return Math.min(6, availableParallelism() + 2);
}

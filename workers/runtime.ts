/**
 * The native part of Temporal workers: one per process, installed once and only where a worker role runs. Its log lines go to our logger; its
 * metrics are read from its own exporter on a loopback port, which is chosen here because the exporter cannot tell one that it chose itself.
 */
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { DefaultLogger, makeTelemetryFilterString, Runtime } from "@temporalio/worker";
import type { LogEntry } from "@temporalio/worker";
import type { Logger } from "../src/telemetry/logger.ts";

const PORT_ATTEMPTS = 5;
const METRICS_TIMEOUT_MS = 2_000;

/** A warning for what is meant so: some workers only copy. */
const ACTIVITIES_ONLY = "No workflows registered, not polling for workflow tasks";

let installed: Promise<number> | undefined;

export function installRuntime(logger: Logger): Promise<number> {
  installed ??= install(logger);
  return installed;
}

/** The native metrics in Prometheus's text format; empty where no worker runs. */
export async function workerMetrics(): Promise<string> {
  if (!installed) return "";
  const port = await installed.catch(() => 0);
  if (port === 0) return "";
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/metrics`, { signal: AbortSignal.timeout(METRICS_TIMEOUT_MS) });
    return answer.ok ? await answer.text() : "";
  } catch {
    // The exporter is gone while no connection and no worker exist.
    return "";
  }
}

async function install(logger: Logger): Promise<number> {
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort();
    try {
      Runtime.install({
        logger: new DefaultLogger("INFO", (entry) => bridge(logger, entry)),
        // The process has its own order of shutting down.
        shutdownSignals: [],
        telemetryOptions: {
          logging: { forward: {}, filter: makeTelemetryFilterString({ core: "WARN", other: "ERROR" }) },
          metrics: {
            prometheus: { bindAddress: `127.0.0.1:${port}`, countersTotalSuffix: true, unitSuffix: true, useSecondsForDurations: true },
          },
        },
      });
      return port;
    } catch (error) {
      // Another process took the port in between.
      if (attempt === PORT_ATTEMPTS) throw error;
    }
  }
}

function bridge(logger: Logger, entry: LogEntry): void {
  const fields = { source: "temporal", ...plain(entry.meta ?? {}) };
  if (entry.message === ACTIVITIES_ONLY) logger.debug(fields, entry.message);
  else if (entry.level === "ERROR") logger.error(fields, entry.message);
  else if (entry.level === "WARN") logger.warn(fields, entry.message);
  // Its INFO says what the worker group says in fewer words.
  else logger.debug(fields, entry.message);
}

/** Without symbols and task tokens. */
function plain(meta: Readonly<Record<string | symbol, unknown>>): Record<string, unknown> {
  const entries = Object.entries(meta).filter(([name, value]) => name !== "taskToken" && !(value instanceof Uint8Array));
  return Object.fromEntries(entries.map(([name, value]) => [name, typeof value === "bigint" ? value.toString() : value]));
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

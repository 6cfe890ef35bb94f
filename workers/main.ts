/**
 * The entry point: starts the roles asked for, in this process and in further ones for the registry, and ends them in order. SIGTERM or Ctrl-C: readiness
 * fails first, running transfers get their time, then workers, parts and embedded services are closed. A second signal ends at once.
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { serve } from "../api/compose.ts";
import type { RunningServer } from "../api/server.ts";
import { createApp } from "../src/app.ts";
import type { App } from "../src/app.ts";
import { loadConfig } from "../src/config/config.ts";
import type { Config } from "../src/config/config.ts";
import { sleep, systemClock } from "../src/core/clock.ts";
import { Closer } from "../src/core/dispose.ts";
import { isSlipwayError, SlipwayError } from "../src/core/errors.ts";
import { assertPortFree } from "../src/embedded/ports.ts";
import { startProcessGroup } from "../src/embedded/process-group.ts";
import type { ProcessGroup } from "../src/embedded/process-group.ts";
import type { RunFile } from "../src/embedded/run-file.ts";
import { createLogger } from "../src/telemetry/logger.ts";
import type { RootLogger } from "../src/telemetry/logger.ts";
import { VERSION } from "../src/version.ts";
import { printBanner } from "./banner.ts";
import { openServices } from "./open-services.ts";
import type { OpenedServices } from "./open-services.ts";

const ENTRY = fileURLToPath(import.meta.url);
const EXIT_CONFIG = 2;
const SAME_SIGNAL_MS = 1_000;
const WORKER_ROLES = ["replication", "refresh", "tuf", "maintenance"] as const;

interface Started {
  readonly app: App;
  readonly url: string;
  readonly services: OpenedServices;
}

async function main(): Promise<number> {
  const values = readArguments();
  const config = loadConfig(values.role ? { roles: values.role } : {});
  const { log } = config.settings;
  const logger = createLogger({
    level: log.level,
    format: log.format,
    base: config.rolesGiven ? { roles: [...config.roles].join(",") } : {},
  });
  const stop = stopSignal(logger);
  const closer = new Closer();
  closer.add("logger", () => logger.close());
  let failure: unknown;
  try {
    const started = await start({ config, logger, closer, signal: stop, isMember: values.member });
    printBanner(started.app, { url: started.url, temporalUiUrl: started.services.temporalUiUrl });
    await aborted(stop);
    logger.info({}, "stopping");
  } catch (error) {
    // A signal during the start is no failure.
    if (!stop.aborted) failure = error;
  }
  for (const { name, error } of await closer.close()) logger.warn({ part: name, error }, "a part did not close cleanly");
  if (failure !== undefined) throw failure;
  return 0;
}

function readArguments(): { role?: string[]; member: boolean } {
  try {
    return parseArgs({
      options: { role: { type: "string", multiple: true }, member: { type: "boolean", default: false } },
      strict: true,
    }).values;
  } catch (error) {
    const message = error instanceof Error ? error.message.split(". ")[0] : String(error);
    throw new SlipwayError("CONFIG_INVALID", { message: `${message}; the only argument is --role <role>`, cause: error });
  }
}

interface StartInput {
  readonly config: Config;
  readonly logger: RootLogger;
  readonly closer: Closer;
  readonly signal: AbortSignal;
  /** One of the further processes of a group: it shares the port, and its leader looks after it. */
  readonly isMember: boolean;
}

async function start({ config, logger, closer, signal, isMember }: StartInput): Promise<Started> {
  const { server } = config.settings;
  // What workers have in hand is garbage a moment later. Left to itself, the heap of a busy one grows by half with it.
  if (!config.roles.has("proxy") && !config.roles.has("api")) setFlagsFromString("--heap-growing-percent=20");
  const services = await openServices({ config, logger, signal });
  closer.add("services", () => services.close());
  // Members of a process group, and processes that joined an owner, share its port on purpose.
  const sharesPort = isMember || server.proxy_processes > 1;
  if (!isMember) await assertPortFree(server.port, server.host);
  const app = await createApp(services.config, services.endpoints, { clock: systemClock, logger });
  closer.add("app", () => app.close());
  if (WORKER_ROLES.some((role) => config.roles.has(role))) {
    // Loaded here, so that a process without worker roles never loads Temporal's native part.
    const { startWorkers } = await import("./roles.ts");
    const workers = await startWorkers(app);
    if (workers) closer.add("workers", () => workers.close());
  }
  const running = await serve(app, { host: server.host, port: server.port, reusePort: sharesPort, version: VERSION });
  let members: ProcessGroup | null = null;
  // All processes of the port drain at the same time, or the ones that still listen would take what the others refuse.
  closer.add("listeners", async () => {
    await Promise.all([members?.close(), drain(app, running, signal)]);
  });
  if (!isMember && server.proxy_processes > 1) members = await startMembers(config, { logger, signal, run: services.run });
  services.run?.update({ phase: "running", url: running.url });
  if (services.run) closer.add("phase", () => services.run?.update({ phase: "stopping" }));
  return { app, url: running.url, services };
}

interface MembersInput {
  readonly logger: RootLogger;
  readonly signal: AbortSignal;
  readonly run: RunFile | null;
}

function startMembers(config: Config, { logger, signal, run }: MembersInput): Promise<ProcessGroup> {
  const { server } = config.settings;
  return startProcessGroup(
    {
      count: server.proxy_processes - 1,
      entry: ENTRY,
      args: ["--member", "--role", "proxy", ...(config.roles.has("api") ? ["--role", "api"] : [])],
      run,
      log: logger,
      drainMs: (server.drain_notice_seconds + server.drain_seconds) * 1000,
    },
    signal,
  );
}

/** Not ready at once, deaf after the notice: a load balancer that probes in between sends nobody to a closed port. */
async function drain(app: App, running: RunningServer, signal: AbortSignal): Promise<void> {
  const { server } = app.config.settings;
  app.health.stop();
  if (signal.reason instanceof StopRequest && signal.reason.signal === "SIGTERM") await sleep(server.drain_notice_seconds * 1000);
  const { cut } = await running.drain(server.drain_seconds * 1000);
  if (cut > 0) app.logger.warn({ cut }, "transfers were cut when the time to drain was over");
}

class StopRequest extends Error {
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`ended by ${signal}`);
    this.signal = signal;
  }
}

/** Aborted by the first SIGINT or SIGTERM; the second one does not wait. */
function stopSignal(logger: RootLogger): AbortSignal {
  const controller = new AbortController();
  let first = 0;
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      // One Ctrl-C may arrive twice: from the terminal, and from npm that passes its own on.
      if (Date.now() - first < SAME_SIGNAL_MS) return;
      if (controller.signal.aborted) {
        logger.warn({ signal: name }, "a second signal: ending at once");
        logger.flush();
        process.exit(1);
      }
      first = Date.now();
      controller.abort(new StopRequest(name));
    });
  }
  return controller.signal;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function explain(error: unknown): string {
  if (!isSlipwayError(error)) return error instanceof Error ? (error.stack ?? error.message) : String(error);
  return error.message
    .split("\n")
    .map((line) => `slipway: ${line}`)
    .join("\n");
}

process.on("unhandledRejection", (reason) => {
  process.stderr.write(`slipway: unhandled rejection: ${explain(reason)}\n`);
});
// The last resort: a stream that fails with nobody listening concerns one request, and must not take the other clients along.
process.on("uncaughtException", (error) => {
  process.stderr.write(`slipway: an error that nobody handled: ${explain(error)}\n`);
});

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${explain(error)}\n`);
  process.exitCode = isSlipwayError(error, "CONFIG_INVALID") ? EXIT_CONFIG : 1;
}

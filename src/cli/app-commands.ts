/**
 * Commands that work on the parts of the application itself: they open them beside the running program, as one more process of the deployment, so that what
 * they change takes effect everywhere at once.
 */
import { createInterface } from "node:readline";
import { createApp } from "../app.ts";
import type { App, Endpoints } from "../app.ts";
import { loadConfig } from "../config/config.ts";
import type { Config } from "../config/config.ts";
import { systemClock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import { isRunning } from "../embedded/process-info.ts";
import { readRunFile } from "../embedded/run-file.ts";
import { ExecutionStore } from "../execution/execution-store.ts";
import { TaskStore } from "../execution/task-store.ts";
import { createLogger } from "../telemetry/logger.ts";
import { createMaintenanceStarters } from "../temporal/maintenance.ts";
import type { TemporalConnection } from "../temporal/connection.ts";
import type { MaintenanceStarters } from "../temporal/maintenance.ts";
import { queryRefresh } from "../temporal/refresh.ts";
import { runGc, GC_USAGE } from "./gc.ts";
import { runReconcile, RECONCILE_USAGE } from "./reconcile.ts";
import { runProject, PROJECT_USAGE } from "./project.ts";
import { runRefresh, REFRESH_USAGE } from "./refresh.ts";
import { runRobot, ROBOT_USAGE } from "./robot.ts";
import { runUser, USER_USAGE } from "./user.ts";
import type { AccountServices } from "./accounts.ts";
import type { Command, CommandContext } from "./command.ts";
import type { WatchServices } from "./watch-run.ts";

export const userCommand = accountCommand(USER_USAGE, runUser);
export const projectCommand = accountCommand(PROJECT_USAGE, runProject);
export const robotCommand = accountCommand(ROBOT_USAGE, runRobot);

export const gcCommand = runCommand(GC_USAGE, "the collection", runGc);
export const reconcileCommand = runCommand(RECONCILE_USAGE, "the reconciliation", runReconcile);

export const refreshCommand = runCommand(REFRESH_USAGE, "the refresh", (args, { app, temporal, ...services }) =>
  runRefresh(args, { ...services, ...app.refresh, view: () => queryRefresh(temporal) }),
);

interface RunServices extends WatchServices {
  readonly starters: MaintenanceStarters;
  readonly app: App;
  readonly temporal: TemporalConnection;
}

function runCommand(usage: string, what: string, run: (args: readonly string[], services: RunServices) => Promise<number>): Command {
  return {
    usage: `slipway ${usage}`,
    run: (context) =>
      withApp(context, async (app) => {
        const { temporal } = app;
        if (temporal === null) throw new SlipwayError("TEMPORAL_UNAVAILABLE", { message: `there is no Temporal server to run ${what}` });
        return run(context.args, {
          executions: new ExecutionStore(app.database),
          tasks: new TaskStore(app.database),
          starters: createMaintenanceStarters(temporal),
          app,
          temporal,
          print: context.print,
          signal: context.signal,
        });
      }),
  };
}

function accountCommand(usage: string, run: (args: readonly string[], services: AccountServices) => Promise<void>): Command {
  return {
    usage: `slipway ${usage}`,
    run: (context) =>
      withApp(context, async (app) => {
        await run(context.args, { auth: app.auth, projects: app.catalog.projects, readLine: readFirstLine, print: context.print });
        return 0;
      }),
  };
}

async function withApp(context: CommandContext, work: (app: App) => Promise<number>): Promise<number> {
  // No role: the process serves nothing and runs no worker.
  const config: Config = { ...loadConfig(), roles: new Set() };
  const logger = createLogger({ level: "warn", format: config.settings.log.format });
  const app = await createApp(config, endpointsOf(config), { clock: systemClock, logger });
  try {
    context.signal.throwIfAborted();
    return await work(app);
  } finally {
    await app.close();
    logger.close();
  }
}

/** The embedded services belong to the running program; there is nothing to work on without it. */
function endpointsOf(config: Config): Endpoints {
  const { database, temporal } = config.settings;
  const run = readRunFile(config.dataDir);
  const running = run !== null && isRunning(run.owner) && run.servicesReady ? run : null;
  const databaseUrl = database.url ?? running?.databaseUrl ?? null;
  if (databaseUrl === null) {
    throw new SlipwayError("CONFLICT", {
      message: `Slipway does not run with the data folder ${config.dataDir}: start it first (npm start), or set SLIPWAY_DATABASE_URL`,
    });
  }
  return { databaseUrl, temporalAddress: temporal.address ?? running?.temporalAddress ?? null };
}

async function readFirstLine(): Promise<string> {
  for await (const line of createInterface({ input: process.stdin })) return line;
  return "";
}

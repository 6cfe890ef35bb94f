/** Where database and Temporal are: given by settings, started below the data folder, or those of the owner that runs there already. */
import type { Endpoints } from "../src/app.ts";
import type { Config } from "../src/config/config.ts";
import { openDataFolder } from "../src/embedded/data-folder.ts";
import type { JoinedFolder } from "../src/embedded/data-folder.ts";
import { startEmbeddedServices } from "../src/embedded/embedded-services.ts";
import type { RunFile } from "../src/embedded/run-file.ts";
import type { RootLogger } from "../src/telemetry/logger.ts";

export interface OpenServicesInput {
  readonly config: Config;
  readonly logger: RootLogger;
  readonly signal: AbortSignal;
}

export interface OpenedServices {
  /** With the data folder's real path. */
  readonly config: Config;
  readonly endpoints: Endpoints;
  readonly temporalUiUrl: string | null;
  /** Null when this process does not own the data folder. */
  readonly run: RunFile | null;
  close(): Promise<void>;
}

export async function openServices({ config, logger, signal }: OpenServicesInput): Promise<OpenedServices> {
  const { temporal, database } = config.settings;
  // A process that only serves the registry has no use for Temporal and must not start one.
  const needsTemporal = [...config.roles].some((role) => role !== "proxy");
  const isExternal = config.database.mode === "external" && (config.temporal.mode === "external" || !needsTemporal);
  // One of many processes of a role with external services owns nothing: the folder then only holds caches.
  if (isExternal && config.rolesGiven) {
    return {
      config,
      endpoints: { databaseUrl: database.url ?? "", temporalAddress: temporal.address },
      temporalUiUrl: temporal.ui_url,
      run: null,
      close: () => Promise.resolve(),
    };
  }
  const folder = await openDataFolder({ dataDir: config.dataDir, mayJoin: config.rolesGiven, log: logger, signal });
  if (folder.kind === "joined") {
    return joined(config, folder);
  }
  try {
    const services = await startEmbeddedServices({
      dataDir: folder.dataDir,
      run: folder.run,
      log: logger,
      postgres: config.database.mode === "embedded",
      temporal:
        config.temporal.mode === "embedded"
          ? { port: temporal.port, uiPort: temporal.ui_port, namespace: temporal.namespace, cliPath: temporal.cli_path }
          : null,
      signal,
      onProgress: (line) => process.stdout.write(`slipway: ${line}\n`),
    });
    services.temporalReady.catch(() => undefined);
    return {
      config: { ...config, dataDir: folder.dataDir },
      endpoints: {
        databaseUrl: database.url ?? services.databaseUrl ?? "",
        temporalAddress: temporal.address ?? services.temporalAddress,
        temporalUiUrl: temporal.ui_url ?? services.temporalUiUrl,
      },
      temporalUiUrl: temporal.ui_url ?? services.temporalUiUrl,
      run: folder.run,
      close: async () => {
        await services.close();
        folder.release();
      },
    };
  } catch (error) {
    folder.release();
    throw error;
  }
}

/** The services of the owner of the data folder. */
function joined(config: Config, { dataDir, run }: JoinedFolder): OpenedServices {
  const { temporal, database } = config.settings;
  const temporalUiUrl = temporal.ui_url ?? run.temporalUiUrl;
  return {
    config: { ...config, dataDir },
    endpoints: {
      databaseUrl: database.url ?? run.databaseUrl ?? "",
      temporalAddress: temporal.address ?? run.temporalAddress,
      temporalUiUrl,
    },
    temporalUiUrl,
    run: null,
    close: () => Promise.resolve(),
  };
}

/** The services of the embedded default, as one unit: started together, written to run.json, stopped in order. */
import type { Logger } from "../telemetry/logger.ts";
import { startPostgres } from "./postgres.ts";
import type { EmbeddedPostgres } from "./postgres.ts";
import type { RunFile } from "./run-file.ts";
import { startTemporal } from "./temporal.ts";
import type { EmbeddedTemporal, EmbeddedTemporalOptions } from "./temporal.ts";
import type { ProcessState } from "./watched-process.ts";

export type TemporalSettings = Pick<EmbeddedTemporalOptions, "port" | "uiPort" | "namespace" | "cliPath" | "searchAttributes">;

export interface EmbeddedServicesOptions {
  readonly dataDir: string;
  readonly run: RunFile;
  readonly log: Logger;
  readonly postgres: boolean;
  /** Null when a Temporal service was named. */
  readonly temporal: TemporalSettings | null;
  readonly signal?: AbortSignal;
  /** Lines for a person who waits, such as a download. */
  readonly onProgress?: (line: string) => void;
  readonly onState?: (state: ProcessState) => void;
}

export interface EmbeddedServices {
  readonly databaseUrl: string | null;
  readonly temporalAddress: string | null;
  readonly temporalUiUrl: string | null;
  /** Resolves when the Temporal server answers (at once when there is none to start); rejects only when closed before that. */
  readonly temporalReady: Promise<void>;
  states(): ProcessState[];
  /** Temporal first: its workers and the database's users are gone by then. */
  close(): Promise<void>;
}

/** Returns when Postgres serves. Temporal comes up behind, and trouble with it is a state, not a failure of the start. */
export async function startEmbeddedServices(options: EmbeddedServicesOptions): Promise<EmbeddedServices> {
  const { dataDir, run, log, signal } = options;
  const onChange = (state: ProcessState): void => {
    run.setChild(state.name, state.process);
    options.onState?.(state);
  };
  const [temporal, postgres] = await settleBoth(
    options.temporal
      ? startTemporal(
          { dataDir, log, onChange, ...options.temporal, ...(options.onProgress ? { onProgress: options.onProgress } : {}) },
          signal,
        )
      : Promise.resolve(null),
    options.postgres ? startPostgres({ dataDir, log, onChange }, signal) : Promise.resolve(null),
  );
  const found = {
    databaseUrl: postgres?.url ?? null,
    temporalAddress: temporal?.address ?? null,
    temporalUiUrl: temporal?.uiUrl ?? null,
  };
  run.update({ ...found, servicesReady: true });
  return {
    ...found,
    temporalReady: temporal?.ready ?? Promise.resolve(),
    states: () => [temporal?.state(), postgres?.state()].filter((state) => state !== undefined),
    close: async () => {
      await temporal?.close();
      await postgres?.close();
    },
  };
}

/** When one fails, the other is not left running. */
async function settleBoth(
  temporal: Promise<EmbeddedTemporal | null>,
  postgres: Promise<EmbeddedPostgres | null>,
): Promise<[EmbeddedTemporal | null, EmbeddedPostgres | null]> {
  const results = await Promise.allSettled([temporal, postgres]);
  const failure = results.find((result) => result.status === "rejected");
  if (failure) {
    for (const result of results) if (result.status === "fulfilled") await result.value?.close();
    throw failure.reason;
  }
  return [await temporal, await postgres];
}

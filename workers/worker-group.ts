/**
 * Keeps the workers of the roles asked for alive. Temporal may be away at the start or later: the process lives on, `ready` says what is missing,
 * and each worker is made, or made again, as soon as it can be.
 */
import { NativeConnection } from "@temporalio/worker";
import type { Worker } from "@temporalio/worker";
import { backoffDelay } from "../src/core/backoff.ts";
import { sleep } from "../src/core/clock.ts";
import { toSlipwayError } from "../src/core/errors.ts";
import type { Logger } from "../src/telemetry/logger.ts";
import type { TemporalConnection } from "../src/temporal/connection.ts";
import { workflowBundle } from "./bundle.ts";
import { installRuntime } from "./runtime.ts";

export interface RoleContext {
  readonly connection: NativeConnection;
  readonly namespace: string;
  readonly bundlePath: string;
  /** Aborted when the group begins to close. */
  readonly stopping: AbortSignal;
}

export interface WorkerRole {
  readonly name: string;
  /** What has to exist in Temporal before the worker polls. */
  prepare?(signal: AbortSignal): Promise<void>;
  create(context: RoleContext): Promise<Worker>;
}

export interface WorkerGroupOptions {
  readonly roles: readonly WorkerRole[];
  readonly temporal: TemporalConnection;
  readonly dataDir: string;
  readonly logger: Logger;
  readonly tls?: boolean;
  readonly apiKey?: string;
}

export interface WorkerReadiness {
  readonly ready: boolean;
  /** One line for each thing that is missing. */
  readonly missing: readonly string[];
}

export interface WorkerGroup {
  /** Asks Temporal, at most every two seconds. */
  ready(): Promise<WorkerReadiness>;
  /** Stops polling, lets running activities finish within the grace time, then forces. */
  close(): Promise<void>;
}

const RETRY = { baseMs: 500, capMs: 10_000 } as const;
const CONNECT_TIMEOUT_MS = 10_000;
const CHECK_EVERY_MS = 2_000;
/** A worker that lived so long did not fail at its start: begin with short delays again. */
const STEADY_MS = 60_000;

export function startWorkerGroup(options: WorkerGroupOptions): WorkerGroup {
  const stop = new AbortController();
  const keepers = options.roles.map((role) => new RoleKeeper(role, options, stop.signal));
  const running = keepers.map((keeper) => keeper.run());
  const check = cachedCheck(options.temporal);
  return {
    async ready() {
      const missing = keepers.flatMap((keeper) => (keeper.problem === null ? [] : [`worker ${keeper.name}: ${keeper.problem}`]));
      const trouble = keepers.length === 0 ? null : await check();
      if (trouble !== null) missing.unshift(`temporal: ${trouble}`);
      return { ready: missing.length === 0, missing };
    },
    async close() {
      stop.abort(new Error("shutting down"));
      await Promise.all(running);
    },
  };
}

class RoleKeeper {
  readonly name: string;
  readonly #role: WorkerRole;
  readonly #options: WorkerGroupOptions;
  readonly #stop: AbortSignal;
  problem: string | null = "starting";

  constructor(role: WorkerRole, options: WorkerGroupOptions, stop: AbortSignal) {
    this.name = role.name;
    this.#role = role;
    this.#options = options;
    this.#stop = stop;
  }

  async run(): Promise<void> {
    for (let failures = 0; !this.#stop.aborted;) {
      const since = Date.now();
      try {
        await this.#live();
        if (this.#stop.aborted) break;
        this.problem = "stopped";
      } catch (error) {
        if (this.#stop.aborted) break;
        const { code, message } = toSlipwayError(error);
        this.problem = message;
        // An absent service is no fault of ours: where the call stood tells nothing.
        const cause = code === "TEMPORAL_UNAVAILABLE" ? { reason: message } : { error };
        this.#options.logger.warn({ role: this.name, failures, ...cause }, "worker is away, trying again");
      }
      failures = Date.now() - since > STEADY_MS ? 1 : failures + 1;
      await sleep(backoffDelay(failures, RETRY), this.#stop).catch(() => undefined);
    }
    this.problem = "stopped";
  }

  /** From connection to end of one worker. */
  async #live(): Promise<void> {
    const { temporal, dataDir, logger } = this.#options;
    await temporal.check({ signal: this.#stop });
    const bundlePath = await workflowBundle(dataDir, this.#stop);
    await this.#role.prepare?.(this.#stop);
    await installRuntime(logger);
    const connection = await this.#connect();
    try {
      const worker = await this.#role.create({ connection, namespace: temporal.namespace, bundlePath, stopping: this.#stop });
      await this.#runWorker(worker);
    } finally {
      await connection.close().catch((error: unknown) => logger.debug({ error }, "closing the connection to Temporal failed"));
    }
  }

  async #runWorker(worker: Worker): Promise<void> {
    const shutdown = (): void => {
      if (worker.getState() === "RUNNING") worker.shutdown();
    };
    const run = worker.run();
    this.#stop.addEventListener("abort", shutdown, { once: true });
    if (this.#stop.aborted) shutdown();
    else this.problem = null;
    this.#options.logger.info({ role: this.name, taskQueue: worker.options.taskQueue }, "worker is polling");
    try {
      await run;
    } catch (error) {
      if (!this.#stop.aborted) throw error;
      // The grace time was over before an activity let go; Temporal gives it to another worker.
      this.#options.logger.warn({ role: this.name, error }, "worker was stopped by force");
    } finally {
      this.#stop.removeEventListener("abort", shutdown);
    }
  }

  async #connect(): Promise<NativeConnection> {
    const { temporal, tls, apiKey } = this.#options;
    const connecting = NativeConnection.connect({
      address: temporal.address,
      ...(tls === undefined ? {} : { tls }),
      ...(apiKey === undefined ? {} : { apiKey }),
    });
    const deadline = AbortSignal.any([this.#stop, AbortSignal.timeout(CONNECT_TIMEOUT_MS)]);
    try {
      return await Promise.race([connecting, rejectOn(deadline)]);
    } catch (error) {
      void connecting.then((late) => late.close()).catch(() => undefined);
      throw error;
    }
  }
}

function rejectOn(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    if (signal.aborted) reject(signal.reason);
  });
}

/** The trouble with Temporal in one line; null when it answers. */
function cachedCheck(temporal: TemporalConnection): () => Promise<string | null> {
  let at = 0;
  let result: Promise<string | null> = Promise.resolve(null);
  return () => {
    if (Date.now() - at < CHECK_EVERY_MS) return result;
    at = Date.now();
    result = temporal.check().then(
      () => null,
      (error: unknown) => toSlipwayError(error).message,
    );
    return result;
  };
}

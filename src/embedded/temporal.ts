/** The embedded Temporal dev server: one process with its SQLite file and its web interface, on loopback. */
import { mkdir } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { backoffDelay } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import type { Logger } from "../telemetry/logger.ts";
import { plainEnvironment } from "./guarded-spawn.ts";
import type { ProcessSpec } from "./guarded-spawn.ts";
import { freePort, isPortFree } from "./ports.ts";
import { findTemporal, temporalFolders } from "./temporal-binary.ts";
import type { TemporalBinaryOptions } from "./temporal-binary.ts";
import { describe, WatchedProcess } from "./watched-process.ts";
import type { ProcessState } from "./watched-process.ts";

export interface EmbeddedTemporalOptions {
  /** Absolute; exists. The caller owns it (data lock). */
  readonly dataDir: string;
  readonly log: Logger;
  /** 0 takes any free port; a taken one is a failure. */
  readonly port: number;
  /** The same for the web interface; null for none. */
  readonly uiPort: number | null;
  readonly namespace: string;
  readonly cliPath: string | null;
  /** Name to type, as the command line of the server spells them (Keyword, Int, ...). */
  readonly searchAttributes?: Readonly<Record<string, string>>;
  /** False: the state is in memory and gone with the server. */
  readonly durable?: boolean;
  readonly binary?: Partial<Omit<TemporalBinaryOptions, "cliPath">>;
  readonly onProgress?: (line: string) => void;
  readonly onChange?: (state: ProcessState) => void;
}

export interface EmbeddedTemporal {
  readonly address: string;
  readonly uiUrl: string | null;
  /** Resolves when the server first answers; rejects only when closed before that. Trouble shows in the state meanwhile. */
  readonly ready: Promise<void>;
  state(): ProcessState;
  close(): Promise<void>;
}

const START_MS = 60_000;
const RETRY = { baseMs: 15_000, capMs: 300_000 };

/**
 * A dev server has one history shard, and a shard's queues are polled 20 times a second by default, which would hold every sequential
 * step for up to 50 ms. Clusters with hundreds of shards do not feel that limit.
 */
const DYNAMIC_CONFIG: Readonly<Record<string, string>> = {
  "history.transferProcessorMaxPollRPS": "2000",
  "history.timerProcessorMaxPollRPS": "2000",
  "history.visibilityProcessorMaxPollRPS": "2000",
  // Otherwise the keys that keep a busy target or policy from holding up the others are ignored.
  "matching.enableFairness": "true",
};

/** Returns once the ports are known; the server itself, which may need a download, comes up behind. */
export async function startTemporal(options: EmbeddedTemporalOptions, signal?: AbortSignal): Promise<EmbeddedTemporal> {
  const port = await choosePort(options.port, "SLIPWAY_TEMPORAL_PORT");
  const uiPort = options.uiPort === null ? null : await choosePort(options.uiPort, "SLIPWAY_TEMPORAL_UI_PORT");
  const runner = new TemporalRunner(options, { port, uiPort });
  return {
    address: `127.0.0.1:${port}`,
    uiUrl: uiPort === null ? null : `http://127.0.0.1:${uiPort}`,
    ready: runner.run(signal),
    state: () => runner.state,
    close: () => runner.close(),
  };
}

class TemporalRunner {
  readonly #options: EmbeddedTemporalOptions;
  readonly #ports: { readonly port: number; readonly uiPort: number | null };
  readonly #stopping = new AbortController();
  #server: WatchedProcess | null = null;
  #idle: ProcessState = { name: "temporal", phase: "starting", process: null, restarts: 0, problem: null };
  #run: Promise<void> = Promise.resolve();

  constructor(options: EmbeddedTemporalOptions, ports: { readonly port: number; readonly uiPort: number | null }) {
    this.#options = options;
    this.#ports = ports;
  }

  get state(): ProcessState {
    return this.#server?.state ?? this.#idle;
  }

  run(signal?: AbortSignal): Promise<void> {
    this.#run = this.#keepTrying(signal ? AbortSignal.any([signal, this.#stopping.signal]) : this.#stopping.signal);
    // Who does not wait for readiness must not be ended by its failure.
    this.#run.catch(() => undefined);
    return this.#run;
  }

  async close(): Promise<void> {
    this.#stopping.abort(new SlipwayError("CANCELLED", { message: "temporal is stopping" }));
    await this.#run.catch(() => undefined);
    await this.#server?.close();
  }

  /** The network may come back, so a binary that could not be had is asked for again. */
  async #keepTrying(stop: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#startOnce(stop);
        return;
      } catch (error) {
        stop.throwIfAborted();
        this.#server = null;
        this.#idle = { ...this.#idle, phase: "restarting", problem: describe(error), restarts: attempt };
        this.#options.onChange?.(this.#idle);
        this.#options.log.error({ service: "temporal", problem: describe(error) }, "the embedded Temporal server is not available");
        await sleep(backoffDelay(attempt, RETRY), stop);
      }
    }
  }

  async #startOnce(stop: AbortSignal): Promise<void> {
    const { dataDir, cliPath, log, onProgress, onChange } = this.#options;
    const binary = await findTemporal(
      { keepIn: temporalFolders(dataDir), ...(onProgress ? { onProgress } : {}), ...this.#options.binary, cliPath },
      stop,
    );
    await mkdir(join(dataDir, "temporal"), { recursive: true, mode: 0o700 });
    const server = new WatchedProcess({
      name: "temporal",
      spec: () => serverSpec(binary, this.#options, this.#ports),
      ready: (signal) => untilListening(this.#ports.port, signal),
      readyTimeoutMs: START_MS,
      firstAttempts: 3,
      stop: [{ signal: "SIGTERM", waitMs: 10_000 }],
      log,
      ...(onChange ? { onChange } : {}),
    });
    this.#server = server;
    await server.start(stop);
  }
}

function serverSpec(
  binary: string,
  options: EmbeddedTemporalOptions,
  ports: { readonly port: number; readonly uiPort: number | null },
): ProcessSpec {
  const folder = join(options.dataDir, "temporal");
  const args = ["server", "start-dev", "--ip", "127.0.0.1", "--port", String(ports.port), "--log-level", "error"];
  if (ports.uiPort === null) args.push("--headless");
  else args.push("--ui-port", String(ports.uiPort), "--ui-disable-news-fetch");
  if (options.namespace !== "default") args.push("--namespace", options.namespace);
  if (options.durable !== false) {
    args.push("--db-filename", join(folder, "temporal.db"));
    for (const pragma of ["journal_mode=WAL", "synchronous=NORMAL"]) args.push("--sqlite-pragma", pragma);
  }
  for (const [name, value] of Object.entries(DYNAMIC_CONFIG)) args.push("--dynamic-config-value", `${name}=${value}`);
  for (const [name, type] of Object.entries(options.searchAttributes ?? {})) args.push("--search-attribute", `${name}=${type}`);
  // Its own home keeps it from reading, and from writing, the user's Temporal configuration. SQLite files stay whole after a kill.
  return { command: binary, args, env: plainEnvironment({ HOME: folder }), cwd: folder, deathSignal: "SIGKILL" };
}

async function choosePort(wanted: number, setting: string): Promise<number> {
  if (wanted === 0) return freePort();
  if (await isPortFree(wanted, "127.0.0.1")) return wanted;
  throw new SlipwayError("CONFLICT", {
    message: `port ${wanted} is taken by another program: set ${setting} to a free port, or TEMPORAL_ADDRESS to the Temporal service that runs there`,
    detail: { port: wanted },
  });
}

/** The dev server listens only once its services are up; callers wait for the namespace by their first call. */
async function untilListening(port: number, stop: AbortSignal): Promise<void> {
  while (!(await accepts(port))) await sleep(25, stop);
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

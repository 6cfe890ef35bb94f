/** A child process that should always run: started, found ready, started again with back-off when it dies, stopped in steps. */
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { backoffDelay } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import type { Logger } from "../telemetry/logger.ts";
import { guardedSpawn } from "./guarded-spawn.ts";
import type { ProcessSpec } from "./guarded-spawn.ts";
import { identify } from "./process-info.ts";
import type { ProcessIdentity } from "./process-info.ts";

export type ProcessPhase = "starting" | "running" | "restarting" | "stopping" | "stopped";

export interface ProcessState {
  readonly name: string;
  readonly phase: ProcessPhase;
  readonly process: ProcessIdentity | null;
  readonly restarts: number;
  /** Why it does not run, in one line. */
  readonly problem: string | null;
}

export interface StopStep {
  readonly signal: NodeJS.Signals;
  /** How long the child has before the next step. */
  readonly waitMs: number;
}

export interface WatchedProcessOptions {
  readonly name: string;
  /** Asked before each start, so that a start can clear away what the last one left. */
  readonly spec: () => Promise<ProcessSpec> | ProcessSpec;
  /** Resolves once the child serves; rejects when the signal says that it died or took too long. */
  readonly ready: (signal: AbortSignal) => Promise<void>;
  readonly readyTimeoutMs: number;
  /** Tries of the first start before it is given up; afterwards there is no limit. */
  readonly firstAttempts: number;
  readonly stop: readonly StopStep[];
  readonly log: Logger;
  readonly onChange?: (state: ProcessState) => void;
}

const BACKOFF = { baseMs: 200, capMs: 10_000 };
/** A child that lived so long has recovered: the next death starts at the shortest delay again. */
const STABLE_MS = 30_000;
const KEPT_LINES = 20;

export class WatchedProcess {
  readonly #options: WatchedProcessOptions;
  readonly #stopping = new AbortController();
  #child: ChildProcess | null = null;
  #identity: ProcessIdentity | null = null;
  #exited: Promise<void> = Promise.resolve();
  #phase: ProcessPhase = "stopped";
  #problem: string | null = null;
  #restarts = 0;
  #watching: Promise<void> = Promise.resolve();
  #lines: string[] = [];

  constructor(options: WatchedProcessOptions) {
    this.#options = options;
  }

  get state(): ProcessState {
    return {
      name: this.#options.name,
      phase: this.#phase,
      process: this.#identity,
      restarts: this.#restarts,
      problem: this.#problem,
    };
  }

  /** Resolves when the child serves. Rejects when the first tries failed; then nothing is left running. */
  async start(signal?: AbortSignal): Promise<void> {
    const stop = signal ? AbortSignal.any([signal, this.#stopping.signal]) : this.#stopping.signal;
    for (let attempt = 1; ; attempt += 1) {
      this.#enter("starting");
      try {
        await this.#launch(stop);
        break;
      } catch (error) {
        this.#problem = describe(error);
        if (stop.aborted || attempt >= this.#options.firstAttempts) {
          this.#enter("stopped");
          throw error;
        }
        await sleep(backoffDelay(attempt, BACKOFF), stop);
      }
    }
    this.#watching = this.#watch();
  }

  async close(): Promise<void> {
    if (!this.#stopping.signal.aborted)
      this.#stopping.abort(new SlipwayError("CANCELLED", { message: `${this.#options.name} is stopping` }));
    if (this.#child) this.#enter("stopping");
    await this.#end();
    await this.#watching;
    this.#enter("stopped");
  }

  async #watch(): Promise<void> {
    const stop = this.#stopping.signal;
    let attempt = 0;
    while (!stop.aborted) {
      const since = Date.now();
      await this.#exited;
      if (stop.aborted) return;
      attempt = Date.now() - since > STABLE_MS ? 1 : attempt + 1;
      this.#restarts += 1;
      this.#enter("restarting");
      this.#options.log.warn({ service: this.#options.name, problem: this.#problem, attempt }, "service died, starting it again");
      try {
        await sleep(backoffDelay(attempt, BACKOFF), stop);
        await this.#launch(stop);
      } catch (error) {
        this.#problem = describe(error);
      }
    }
  }

  /** One start, up to readiness. A start that fails leaves no child. */
  async #launch(stop: AbortSignal): Promise<void> {
    const { name, readyTimeoutMs } = this.#options;
    const spec = await this.#options.spec();
    stop.throwIfAborted();
    this.#lines = [];
    const died = new AbortController();
    this.#adopt(guardedSpawn(spec), died);
    try {
      await this.#options.ready(AbortSignal.any([stop, died.signal, AbortSignal.timeout(readyTimeoutMs)]));
      died.signal.throwIfAborted();
    } catch (error) {
      await this.#end();
      const why = died.signal.aborted ? String(died.signal.reason) : describe(error);
      const tail = this.#lines.slice(-5).join(" | ");
      throw new SlipwayError("INTERNAL", { message: `${name} did not start: ${why}${tail === "" ? "" : `: ${tail}`}`, cause: error });
    }
    this.#problem = null;
    this.#enter("running");
  }

  #adopt(child: ChildProcess, died: AbortController): void {
    this.#child = child;
    this.#identity = child.pid === undefined ? null : identify(child.pid);
    this.#changed();
    for (const stream of [child.stdout, child.stderr]) {
      if (stream) createInterface({ input: stream }).on("line", (line) => this.#keep(line));
    }
    // A child that is gone must not end us by a broken pipe.
    child.stdin?.on("error", () => undefined);
    this.#exited = new Promise((resolve) => {
      const gone = (problem: string): void => {
        if (this.#child === child) {
          this.#child = null;
          this.#identity = null;
          this.#problem = problem;
        }
        if (!died.signal.aborted) died.abort(problem);
        resolve();
      };
      child.once("error", (error) => gone(error.message));
      child.once("exit", (code, signal) => gone(signal === null ? `it ended with code ${code}` : `it was ended by ${signal}`));
    });
  }

  async #end(): Promise<void> {
    const child = this.#child;
    if (!child?.pid) return;
    for (const step of this.#options.stop) {
      child.kill(step.signal);
      if (await settlesWithin(this.#exited, step.waitMs)) return;
    }
    this.#options.log.warn({ service: this.#options.name }, "service did not stop in time and is killed");
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      child.kill("SIGKILL");
    }
    await this.#exited;
  }

  #keep(line: string): void {
    if (line === "") return;
    this.#lines.push(line);
    if (this.#lines.length > KEPT_LINES) this.#lines.shift();
    this.#options.log.debug({ service: this.#options.name, line }, "service output");
  }

  #enter(phase: ProcessPhase): void {
    this.#phase = phase;
    this.#changed();
  }

  #changed(): void {
    this.#options.onChange?.(this.state);
  }
}

async function settlesWithin(promise: Promise<void>, milliseconds: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), milliseconds);
  });
  const result = await Promise.race([promise.then(() => true), late]);
  clearTimeout(timer);
  return result;
}

export function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Whether this process can do its work. Checks run when asked, at most once a second, each with a deadline, so that a probe storm costs
 * nothing and a hanging part shows as unhealthy instead of hanging the probe.
 */
export interface HealthCheck {
  readonly name: string;
  /** A part without which this process cannot serve; others only show. */
  readonly required: boolean;
  /** Throws, or returns the reason why it is not healthy; undefined is healthy. */
  check(signal: AbortSignal): Promise<string | undefined | void>;
}

export interface ComponentHealth {
  readonly name: string;
  readonly required: boolean;
  readonly status: "healthy" | "unhealthy";
  readonly error?: string;
}

export interface HealthReport {
  readonly ready: boolean;
  readonly components: readonly ComponentHealth[];
}

const CHECK_DEADLINE_MS = 2_000;
/** What is not needed must not make a probe late: many wait a second, and would take a late answer for a dead process. */
const OPTIONAL_DEADLINE_MS = 500;
const REUSE_MS = 1_000;

export class Health {
  readonly #checks: HealthCheck[] = [];
  #stopping = false;
  #last: { at: number; report: Promise<HealthReport> } | null = null;

  add(check: HealthCheck): void {
    this.#checks.push(check);
  }

  /** From now on not ready, so that load balancers look elsewhere while running work ends. */
  stop(): void {
    this.#stopping = true;
    this.#last = null;
  }

  get stopping(): boolean {
    return this.#stopping;
  }

  report(): Promise<HealthReport> {
    const now = performance.now();
    if (!this.#last || now - this.#last.at > REUSE_MS) this.#last = { at: now, report: this.#run() };
    return this.#last.report;
  }

  async #run(): Promise<HealthReport> {
    const components = await Promise.all(this.#checks.map(runCheck));
    if (this.#stopping) components.push({ name: "shutdown", required: true, status: "unhealthy", error: "this process is shutting down" });
    return { ready: components.every((component) => component.status === "healthy" || !component.required), components };
  }
}

async function runCheck(check: HealthCheck): Promise<ComponentHealth> {
  const { name, required } = check;
  const deadlineMs = required ? CHECK_DEADLINE_MS : OPTIONAL_DEADLINE_MS;
  const signal = AbortSignal.timeout(deadlineMs);
  try {
    const late = new Promise<string>((resolve) => {
      signal.addEventListener("abort", () => resolve(`no answer within ${deadlineMs} ms`), { once: true });
    });
    const reason = await Promise.race([check.check(signal), late]);
    return reason ? { name, required, status: "unhealthy", error: reason } : { name, required, status: "healthy" };
  } catch (error) {
    return { name, required, status: "unhealthy", error: error instanceof Error ? error.message : String(error) };
  }
}

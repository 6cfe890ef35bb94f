/** Asks all registries every few minutes how they are, in one process of the deployment, so that their status in lists is not that of the day they were made. */
import type { Kv } from "../kv/kv.ts";
import type { Logger } from "../telemetry/logger.ts";
import { describeReason } from "./registry-probe.ts";
import type { RegistryProbe } from "./registry-probe.ts";
import type { Registry, RegistryStore } from "./registry-store.ts";
import { endpointOf } from "./upstreams.ts";

export interface RegistryWatchOptions {
  readonly store: Pick<RegistryStore, "listAll" | "saveStatus">;
  readonly probe: Pick<RegistryProbe, "probe">;
  readonly kv: Pick<Kv, "acquireLease">;
  /** Names this process. */
  readonly owner: string;
  readonly logger: Logger;
  readonly intervalMs?: number;
}

const INTERVAL_MS = 5 * 60_000;
const PROBES_AT_ONCE = 4;
const LEASE = "registry-watch";

export class RegistryWatch {
  readonly #options: RegistryWatchOptions;
  readonly #timer: NodeJS.Timeout;
  #isClosed = false;

  constructor(options: RegistryWatchOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#tick(), this.#intervalMs);
    this.#timer.unref();
  }

  /** False when another process does it in this interval. */
  async check(): Promise<boolean> {
    const { kv, owner, store } = this.#options;
    // Kept until it runs out: whoever comes next in this interval finds the work done.
    if ((await kv.acquireLease(LEASE, owner, this.#intervalMs * 0.9)) === null) return false;
    const waiting = (await store.listAll()).filter((registry) => registry.enabled).values();
    const work = async (): Promise<void> => {
      for (const registry of waiting) {
        if (this.#isClosed) return;
        await this.#checkOne(registry);
      }
    };
    await Promise.all(Array.from({ length: PROBES_AT_ONCE }, work));
    return true;
  }

  /** A probe that still waits for its answer is not waited for. */
  close(): void {
    this.#isClosed = true;
    clearInterval(this.#timer);
  }

  get #intervalMs(): number {
    return this.#options.intervalMs ?? INTERVAL_MS;
  }

  #tick(): void {
    this.check().catch((error: unknown) => {
      if (!this.#isClosed) this.#options.logger.debug({ error }, "registries could not be asked how they are");
    });
  }

  async #checkOne(registry: Registry): Promise<void> {
    const { probe, store, logger } = this.#options;
    const result = await probe.probe(endpointOf(registry));
    const status = result.healthy ? "healthy" : "unhealthy";
    if (this.#isClosed || status === registry.status) return;
    if (result.healthy) logger.info({ registry: registry.name }, "a registry is well again");
    else logger.warn({ registry: registry.name, reason: describeReason(result.reason) }, "a registry is unhealthy");
    await store.saveStatus(registry.id, status);
  }
}

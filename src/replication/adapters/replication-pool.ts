/**
 * The way of replication to other registries: a pool of its own, so that a copy never takes slots from pulls, which hears from the others what
 * they learn about a host. Each worker has its own limit; a registry that has too much says so, and then all of them give way.
 */
import type { Kv } from "../../kv/kv.ts";
import { KvHostState } from "../../upstream/shared-host-state.ts";
import { UpstreamPool } from "../../upstream/pool.ts";
import type { UpstreamPoolOptions } from "../../upstream/pool.ts";

export interface ReplicationPoolOptions extends Pick<UpstreamPoolOptions, "deny" | "onSecret" | "attempts" | "probeIntervalMs"> {
  readonly kv: Kv;
  readonly maxRequestsPerHost: number;
}

export interface ReplicationPool {
  readonly pool: UpstreamPool;
  close(): Promise<void>;
}

const INITIAL_META = 32;
const INITIAL_BULK = 16;
/** Batches and planning steps have bounds of their own; this one is far above them. */
const QUEUE_BOUND = 10_000;

export async function openReplicationPool(options: ReplicationPoolOptions): Promise<ReplicationPool> {
  const { kv, maxRequestsPerHost: ceiling, ...rest } = options;
  const shared = await KvHostState.start(kv);
  const pool = new UpstreamPool({
    ...rest,
    shared,
    metaConcurrency: { initial: Math.min(INITIAL_META, ceiling), ceiling },
    bulkConcurrency: { initial: Math.min(INITIAL_BULK, ceiling), ceiling },
    queueBound: QUEUE_BOUND,
    // Nobody waits for these calls.
    reserve: 0,
  });
  return {
    pool,
    close: async () => {
      await pool.close();
      await shared.close();
    },
  };
}

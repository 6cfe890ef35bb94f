/** Puts the parts of the refresh together. Producers need the marker only; instances that refresh need the rest. */
import type { Queryable } from "../../db/pool.ts";
import type { Kv } from "../../kv/kv.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { BatchSettler } from "./batch-settler.ts";
import { ExecutionHooks } from "./execution-hooks.ts";
import { DrainStore } from "./drain-store.ts";
import { OldMarksDrain } from "./old-marks-drain.ts";
import type { OldMarksDrainOptions } from "./old-marks-drain.ts";
import { RefreshCounters } from "./refresh-counters.ts";
import { RefreshMarker } from "./refresh-marker.ts";
import { RefreshQueue } from "./refresh-queue.ts";
import { RefreshStore } from "./refresh-store.ts";
import { Refresher } from "./refresher.ts";
import type { RefresherOptions } from "./refresher.ts";
import { Sweeper } from "./sweeper.ts";

export interface RefreshSettings {
  readonly slots: number;
  readonly batch: number;
  readonly sweepMs: number;
  readonly attempts: number;
}

export interface RefreshOptions {
  readonly kv: Pick<Kv, "queue">;
  readonly database: Queryable;
  readonly logger: Logger;
  readonly settings: RefreshSettings;
  /** Changes wait in the outbox. */
  readonly onChanges?: () => void;
  /** Where earlier designs kept their marks; null: nowhere. */
  readonly oldMarks?: Pick<OldMarksDrainOptions, "mode" | "open" | "acquireLease" | "page" | "pauseMs"> | null;
  readonly pace?: Pick<RefresherOptions, "leaseMs" | "gatherMs" | "idle">;
}

export interface Refresh {
  readonly queue: RefreshQueue;
  readonly store: RefreshStore;
  readonly marker: RefreshMarker;
  readonly sweeper: Sweeper;
  readonly refresher: Refresher;
  readonly counters: RefreshCounters;
  readonly hooks: ExecutionHooks;
  readonly drains: DrainStore;
}

export function openRefresh({ kv, database, logger, settings, onChanges, oldMarks = null, pace = {} }: RefreshOptions): Refresh {
  const { batch, sweepMs, attempts } = settings;
  const queue = new RefreshQueue(kv, settings.slots);
  const counters = new RefreshCounters();
  const store = new RefreshStore(counted(database, counters));
  const settler = new BatchSettler({ store, logger, attempts });
  const sweeper = new Sweeper({ store, queue, settler, logger, batch });
  const drains = new DrainStore(database);
  const drain = oldMarks && new OldMarksDrain({ ...oldMarks, drains, queue, store, counters, logger });
  const events = onChanges ? { onChanges } : {};
  const refresher = new Refresher({ queue, settler, sweeper, drain, counters, logger, batch, sweepMs, ...events, ...pace });
  const marker = new RefreshMarker({ queue, store, logger });
  return { queue, store, marker, sweeper, refresher, counters, hooks: new ExecutionHooks(), drains };
}

function counted(database: Queryable, counters: RefreshCounters): Queryable {
  return {
    query: (text, values) => {
      counters.sent += 1;
      return database.query(text, values);
    },
  };
}

/** Batches of upload expiry, collection and retention. */
import type { CollectedBatch } from "../../src/catalog/collection.ts";
import { vendors } from "../../src/execution/plan/status.ts";
import type { CollectionPhase, CollectionRequest, PhaseTotals } from "../../src/temporal/plan/maintenance.ts";
import type { ActivityServices } from "../services.ts";
import { withHeartbeat } from "../shared/heartbeat.ts";
import { beginTask, reportTask } from "../shared/task-books.ts";

export interface ExpiryBatch {
  readonly executionId: number;
  readonly task: string;
  readonly expiredBefore: number;
}

export interface CollectBatch {
  readonly executionId: number;
  readonly phase: CollectionPhase;
  readonly cursor: string | null;
  readonly request: CollectionRequest;
  /** Totals of the phase before this batch. Absolute figures make a repeated batch harmless. */
  readonly before: PhaseTotals;
}

const BATCH = 200;

export function housekeepingActivities(services: ActivityServices) {
  const { collection, limits } = services;
  return {
    expireUploads: async ({ executionId, task, expiredBefore }: ExpiryBatch): Promise<{ expired: number; finished: boolean }> =>
      withHeartbeat(
        () => expiredBefore,
        async (signal) => {
          await beginTask(services, executionId, task);
          const expired = await collection.expireUploads({ olderThanMs: limits.uploadMaxAgeMs, limit: BATCH }, signal);
          const finished = expired < BATCH;
          await reportTask(services, {
            executionId,
            vendor: vendors.uploadExpiry,
            task,
            attrs: { expired: expiredBefore + expired },
            finished,
          });
          return { expired, finished };
        },
      ),

    collectBatch: async (batch: CollectBatch): Promise<{ totals: PhaseTotals; next: string | null }> =>
      withHeartbeat(
        () => batch.cursor,
        async (signal) => {
          const { executionId, phase, before } = batch;
          await beginTask(services, executionId, phase);
          const { items, bytes, next } = await collect(services, batch, signal);
          const totals = { items: before.items + items, bytes: before.bytes + bytes };
          await reportTask(services, {
            executionId,
            vendor: vendors.garbageCollection,
            task: phase,
            attrs: { ...totals },
            finished: next === null,
          });
          return { totals, next };
        },
      ),

    pruneExecutions: async (): Promise<{ removed: number; finished: boolean }> => {
      const removed = await services.pruneExecutions(BATCH);
      return { removed, finished: removed < BATCH };
    },
  };
}

async function collect(
  { collection, limits, rebuilder, starters }: ActivityServices,
  { phase, cursor, request }: CollectBatch,
  signal: AbortSignal,
): Promise<CollectedBatch> {
  const options = { graceMs: request.graceMs ?? limits.collectionGraceMs, limit: BATCH, dryRun: request.dryRun, after: cursor };
  switch (phase) {
    case "adopt":
      // After the loss of a database its bytes have no rows yet: given rows without links, they would be garbage.
      if (await rebuilder.isDue(signal)) {
        await starters.startReconcile({ trigger: "event" });
        return { items: 0, bytes: 0, next: null };
      }
      return collection.adoptOrphanBytes({ limit: BATCH, after: cursor }, signal);
    case "unlink":
      return collection.unlinkUnreferenced(options);
    case "mark":
      return collection.markGarbage(options);
    case "sweep":
      return collection.sweepMarked({ limit: BATCH }, signal);
  }
}

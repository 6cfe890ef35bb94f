/** Batches of upload expiry, collection and retention, and the start of their runs by schedule. */
import { withHeartbeat } from "../shared/heartbeat.ts";
import type {
  CollectionPhase,
  CollectionRequest,
  MaintenanceTick,
  PhaseTotals,
  StartOutcome,
} from "../../src/temporal/plan/maintenance.ts";
import type { CollectedBatch } from "../../src/catalog/collection.ts";
import type { ActivityServices } from "../services.ts";
import { REVISION } from "./records.ts";

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
  const { tasks, executions, collection, starters, limits } = services;

  async function report(executionId: number, task: string, news: { attrs: Record<string, unknown>; finished: boolean }): Promise<void> {
    await tasks.setAttrs(executionId, task, news.attrs);
    if (!news.finished) return;
    await tasks.update(executionId, task, { status: "Success", revision: REVISION });
  }

  async function begin(executionId: number, task: string): Promise<void> {
    const changed = await tasks.update(executionId, task, { status: "Running", revision: REVISION });
    if (changed) await executions.settle([executionId]);
  }

  async function collect({ phase, cursor, request }: CollectBatch, signal: AbortSignal): Promise<CollectedBatch> {
    if (phase === "adopt") return collection.adoptOrphanBytes({ limit: BATCH, after: cursor }, signal);
    if (phase === "sweep") return collection.sweepMarked({ limit: BATCH }, signal);
    const options = { graceMs: request.graceMs ?? limits.collectionGraceMs, limit: BATCH, dryRun: request.dryRun, after: cursor };
    return phase === "unlink" ? collection.unlinkUnreferenced(options) : collection.markGarbage(options);
  }

  return {
    async expireUploads({ executionId, task, expiredBefore }: ExpiryBatch): Promise<{ expired: number; finished: boolean }> {
      return withHeartbeat(
        () => expiredBefore,
        async (signal) => {
          await begin(executionId, task);
          const expired = await collection.expireUploads({ olderThanMs: limits.uploadMaxAgeMs, limit: BATCH }, signal);
          const finished = expired < BATCH;
          await report(executionId, task, { attrs: { expired: expiredBefore + expired }, finished });
          return { expired, finished };
        },
      );
    },

    async collectBatch(batch: CollectBatch): Promise<{ totals: PhaseTotals; next: string | null }> {
      return withHeartbeat(
        () => batch.cursor,
        async (signal) => {
          await begin(batch.executionId, batch.phase);
          const { items, bytes, next } = await collect(batch, signal);
          const totals = { items: batch.before.items + items, bytes: batch.before.bytes + bytes };
          await report(batch.executionId, batch.phase, { attrs: { ...totals }, finished: next === null });
          return { totals, next };
        },
      );
    },

    async pruneExecutions(): Promise<{ removed: number; finished: boolean }> {
      const removed = await services.pruneExecutions(BATCH);
      return { removed, finished: removed < BATCH };
    },

    async startJob({ job }: MaintenanceTick): Promise<StartOutcome> {
      switch (job) {
        case "upload-expiry":
          return starters.startUploadExpiry({ trigger: "scheduled" });
        case "garbage-collection":
          return starters.startGarbageCollection({ trigger: "scheduled" });
        case "execution-retention":
          return starters.startExecutionRetention({ trigger: "scheduled" });
      }
    },
  };
}

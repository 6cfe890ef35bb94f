/** What the activities of a process are given: parts of the application, and the few stores that only workers need. */
import type { ActivityServices } from "../activities/services.ts";
import type { App } from "../src/app.ts";
import { dispatchEvents } from "../src/catalog/event-dispatcher.ts";
import { writeLinkRecords } from "../src/catalog/link-records.ts";
import { writeProjectRecords } from "../src/catalog/project-records.ts";
import { OUTBOX_CHANNEL, OutboxRelay } from "../src/catalog/outbox-relay.ts";
import { announceChangedRuns } from "../src/replication/run-hooks.ts";
import { replicationListener } from "../src/replication/runs/event-listener.ts";
import { evictionRules } from "../src/proxy/eviction.ts";
import { REGISTRIES_SCOPE } from "../src/proxy/registry-store.ts";
import { CacheUpkeep } from "../src/proxy/upkeep.ts";
import { ExecutionStore } from "../src/execution/execution-store.ts";
import { parseVendorKept, retentionRules } from "../src/execution/plan/retention-rules.ts";
import { vendors } from "../src/execution/plan/status.ts";
import { pruneExecutions } from "../src/execution/retention.ts";
import { TaskStore } from "../src/execution/task-store.ts";
import { ExecutionReconciler } from "../src/execution/refresh/reconciler.ts";
import { findClosedRun } from "../src/temporal/closed-runs.ts";
import type { MaintenanceStarters } from "../src/temporal/maintenance.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

export function createActivityServices(app: App, starters: MaintenanceStarters): ActivityServices {
  const { database, catalog, logger, store, kv } = app;
  const { maintenance } = app.config.settings;
  const { workflows } = app.replication;
  const debounceMs = app.config.settings.replication.event_delay_ms;
  app.refresh.hooks.register(vendors.replication, announceChangedRuns(kv));
  const relay = new OutboxRelay({
    outbox: catalog.outbox,
    kv,
    logger,
    channel: OUTBOX_CHANNEL,
    handlers: {
      "link-record": (rows, signal) => writeLinkRecords(rows, store, signal),
      "project-record": (rows, signal) => writeProjectRecords(rows, { database, store }, signal),
      event: dispatchEvents(workflows ? [replicationListener({ ...app.replication, workflows, debounceMs, logger })] : []),
      "execution-event": app.refresh.hooks.handler(),
    },
  });
  app.metrics.addSource(() => {
    const stats = relay.stats();
    return [
      {
        name: "slipway_outbox_rows_total",
        help: "Outbox rows by outcome.",
        type: "counter",
        samples: [
          { value: stats.handled, labels: { outcome: "handled" } },
          { value: stats.failed, labels: { outcome: "failed" } },
        ],
      },
    ];
  });
  const { cache } = app.config.settings;
  return {
    cache: {
      evictor: app.evictor,
      upkeep: new CacheUpkeep({ db: database, logger, ...app.proxy }),
      rules: evictionRules(app.config),
      warmUpList: cache.warm_up,
    },
    executions: new ExecutionStore(database),
    tasks: new TaskStore(database),
    collection: catalog.collection,
    rebuilder: catalog.createRebuilder({ registriesScope: REGISTRIES_SCOPE }),
    relay,
    marker: app.refresh.marker,
    reconciler: createReconciler(app),
    starters,
    pruneExecutions: (limit) => prune(app, limit),
    limits: {
      uploadMaxAgeMs: maintenance.upload_expiry_hours * HOUR_MS,
      collectionGraceMs: maintenance.gc_grace_hours * HOUR_MS,
    },
    logger,
  };
}

/** Policies keep a history of their own length, and so may every vendor. */
async function prune({ database, config }: App, limit: number): Promise<number> {
  const { maintenance, replication } = config.settings;
  const rules = retentionRules({
    replication: { keep: replication.keep_executions, days: replication.keep_days },
    others: { keep: maintenance.keep_executions, days: maintenance.keep_days },
    named: maintenance.keep_by_vendor.flatMap((text) => parseVendorKept(text) ?? []),
  });
  let removed = 0;
  for (const { vendors: choice, keep, days } of rules) {
    removed += await pruneExecutions(database, { vendors: choice, keep, maxAgeMs: days * DAY_MS, limit });
  }
  return removed;
}

function createReconciler({ database, temporal, refresh: { store, queue } }: App): ExecutionReconciler {
  return new ExecutionReconciler({
    database,
    store,
    queue,
    executions: new ExecutionStore(database),
    tasks: new TaskStore(database),
    findClosedRun: async (workflowId, firstRunId, signal) =>
      temporal === null ? null : findClosedRun(temporal, { workflowId, firstRunId }, signal),
  });
}

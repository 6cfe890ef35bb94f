/** What the reconciler of this process had to mend. */
import type { MetricFamily } from "../../telemetry/metrics.ts";
import type { Reconciler } from "./reconciler.ts";

export function repairMetrics(reconciler: Pick<Reconciler, "totals" | "changes">): MetricFamily[] {
  const { runs, problems, ...mended } = reconciler.totals();
  const { waiting, oldestAgeMs } = reconciler.changes();
  return [
    {
      name: "slipway_replication_changes_waiting",
      help: "Changes of content that no run has taken, as the last reconciliation of this process found them.",
      type: "gauge",
      samples: [{ value: waiting }],
    },
    {
      name: "slipway_replication_changes_oldest_age_seconds",
      help: "Age of the oldest of them.",
      type: "gauge",
      samples: [{ value: oldestAgeMs / 1000 }],
    },
    {
      name: "slipway_replication_reconciliations_total",
      help: "Reconciliations of runs and schedules by this process.",
      type: "counter",
      samples: [{ value: runs }],
    },
    {
      name: "slipway_replication_reconcile_problems_total",
      help: "Parts of reconciliations that failed and are tried again.",
      type: "counter",
      samples: [{ value: problems }],
    },
    {
      name: "slipway_replication_mended_total",
      help: "What reconciliations mended: lost starts, runs whose workflow was gone, stops that had not arrived, queued runs and changes left lying, schedules, uploads of stopped runs.",
      type: "counter",
      samples: Object.entries(mended).map(([what, value]) => ({ value, labels: { what } })),
    },
  ];
}

/** What the reconciler of this process had to mend. */
import type { MetricFamily } from "../../telemetry/metrics.ts";
import type { ReconcileReport } from "./reconciler.ts";

export function repairMetrics({ runs, problems, ...mended }: ReconcileReport & { readonly runs: number }): MetricFamily[] {
  return [
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
      help: "What reconciliations mended: lost starts, runs whose workflow was gone, stops that had not arrived, queued runs and changes left lying, schedules.",
      type: "counter",
      samples: Object.entries(mended).map(([what, value]) => ({ value, labels: { what } })),
    },
  ];
}

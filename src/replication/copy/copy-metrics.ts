/** What copying did in this process, and how much is under way. */
import type { MetricFamily } from "../../telemetry/metrics.ts";
import type { CopyServices } from "./services.ts";

export function copyMetrics({ counters, lanes }: Pick<CopyServices, "counters" | "lanes">): MetricFamily[] {
  const { copied, mounted, skipped, bytes, busy } = counters;
  const stats = lanes.stats();
  return [
    {
      name: "slipway_replication_blobs_total",
      help: "Blobs that targets needed: copied, mounted from another repository there, or there already.",
      type: "counter",
      samples: Object.entries({ copied, mounted, skipped }).map(([how, value]) => ({ value, labels: { how } })),
    },
    {
      name: "slipway_replication_sent_bytes_total",
      help: "Bytes of blobs that this worker sent to targets, of runs that go on too.",
      type: "counter",
      samples: [{ value: bytes }],
    },
    {
      name: "slipway_replication_busy_targets_total",
      help: "How often a batch was given back because its target had half of this worker's batches already.",
      type: "counter",
      samples: [{ value: busy }],
    },
    {
      name: "slipway_replication_lane_running",
      help: "Requests and blobs under way to other registries, over all hosts.",
      type: "gauge",
      samples: stats.map(({ lane, running }) => ({ value: running, labels: { lane } })),
    },
    {
      name: "slipway_replication_lane_waiting",
      help: "Requests and blobs that wait for their turn, over all hosts.",
      type: "gauge",
      samples: stats.map(({ lane, waiting }) => ({ value: waiting, labels: { lane } })),
    },
  ];
}

/** Starts the run that a schedule asks for. */
import type { MaintenanceTick, StartOutcome } from "../../src/temporal/plan/maintenance.ts";
import type { ActivityServices } from "../services.ts";

export function tickActivities({ starters }: ActivityServices) {
  return {
    startJob: async ({ job }: MaintenanceTick): Promise<StartOutcome> => {
      switch (job) {
        case "upload-expiry":
          return starters.startUploadExpiry({ trigger: "scheduled" });
        case "garbage-collection":
          return starters.startGarbageCollection({ trigger: "scheduled" });
        case "cache-eviction":
          return starters.startCacheEviction({ trigger: "scheduled" });
        case "cache-keeping":
          return starters.startCacheKeeping({ trigger: "scheduled" });
        case "cache-warm-up":
          return starters.startWarmUp({ trigger: "scheduled" });
        case "execution-reconcile":
          return starters.startExecutionReconcile({ trigger: "scheduled" });
        case "execution-retention":
          return starters.startExecutionRetention({ trigger: "scheduled" });
      }
    },
  };
}

/** Short jobs of the cache: what no process holds is completed, hot tags are refreshed, the warm-up list is pulled. */
import { batches } from "../shared/activities.ts";

export interface KeepResult {
  readonly done: number;
  readonly failed: number;
}

/** Every minute: cheap when there is nothing to do. */
export async function keepCache(): Promise<{ fills: KeepResult; tags: KeepResult }> {
  const fills = await batches.completeFills();
  const tags = await batches.refreshHotTags();
  return { fills, tags };
}

export async function warmUpCache(): Promise<KeepResult> {
  return batches.warmUp();
}

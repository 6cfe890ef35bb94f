/** Uploads of runs that were stopped: nobody goes on with them, so their targets are told. */
import { isSlipwayError } from "../../core/errors.ts";
import type { RegistryAdapter } from "../adapters/adapter.ts";
import type { CopyServices } from "./services.ts";

const ABANDON_MS = 5_000;

/** Of one run, or of all that were stopped; how many. A target that cannot be told forgets them by itself. */
export async function abandonUploads(services: CopyServices, executionId: number | null, signal: AbortSignal): Promise<number> {
  const { uploads, options } = services;
  let count = 0;
  for (const left of await uploads.ofStopped(executionId)) {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(ABANDON_MS)]);
    try {
      const adapter = await options.adapters.open(left.registryId, deadline);
      count += await abandonAt(services, { executionId: left.executionId, adapter }, deadline);
    } catch (error) {
      signal.throwIfAborted();
      // Without its registry nobody knows where it was.
      if (isSlipwayError(error, "NOT_FOUND")) await uploads.takeAll(left.executionId, left.registryId, "");
      else options.logger.warn({ error, executionId: left.executionId }, "uploads of a stopped run could not be cancelled");
    }
  }
  return count;
}

/** At one target. */
export async function abandonAt(
  { uploads }: Pick<CopyServices, "uploads">,
  {
    executionId,
    adapter,
  }: { readonly executionId: number; readonly adapter: Pick<RegistryAdapter, "registryId" | "host" | "cancelUpload"> },
  signal: AbortSignal,
): Promise<number> {
  const left = await uploads.takeAll(executionId, adapter.registryId, adapter.host);
  await Promise.allSettled(left.map(({ repository, session }) => adapter.cancelUpload(repository, session, signal)));
  return left.length;
}

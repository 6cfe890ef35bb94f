/** What a dry run tells: for each repository and destination how much would be done, and how many bytes that is. */
import type { ExecutionStore } from "../../execution/execution-store.ts";
import { isSlipwayError } from "../../core/errors.ts";
import { parse } from "./artifact-details.ts";
import { insist } from "./retry.ts";
import { referenceOf } from "./source-pages.ts";
import type { Judged, Seen } from "./sighting.ts";
import type { StepContext } from "./step-context.ts";
import type { Forecast, StretchStore } from "./stretch-store.ts";

/** Rows of the summary; the totals are of all. */
const REPOSITORIES_SHOWN = 500;

export interface StretchFindings {
  readonly repository: string;
  readonly seen: readonly Seen[];
  readonly judged: readonly Judged[];
}

export async function forecastOf(context: StepContext, { repository, seen, judged }: StretchFindings): Promise<Forecast[]> {
  const sizes = new Map<string, ReadonlyMap<string, number>>();
  const wanted = judged.filter(({ verdicts }) => verdicts?.includes("copy") === true);
  await Promise.all(
    wanted.map(async ({ artifact }) => {
      const reference = referenceOf(artifact);
      sizes.set(reference, await context.sourceHeads.run(() => blobsOf(context, repository, artifact.digest ?? reference)));
    }),
  );
  return seen.map((one, index) => {
    const count = (verdict: string): number => judged.filter(({ verdicts }) => verdicts?.[index] === verdict).length;
    // What artifacts share crosses once.
    const blobs = new Map(
      wanted
        .filter(({ verdicts }) => verdicts?.[index] === "copy")
        .flatMap(({ artifact }) => [...(sizes.get(referenceOf(artifact)) ?? [])]),
    );
    return {
      destination: one.target.destination.position,
      repository: one.repository,
      copy: count("copy"),
      delete: 0,
      unchanged: count("unchanged"),
      kept: count("keep"),
      bytes: [...blobs.values()].reduce((sum, size) => sum + size, 0),
    };
  });
}

/** Sizes by digest of everything that an artifact consists of, itself included. */
async function blobsOf(context: StepContext, repository: string, reference: string): Promise<Map<string, number>> {
  const { source } = context.options;
  const { signal } = context;
  const found = new Map<string, number>();
  const read = async (name: string): Promise<void> => {
    const manifest = await insist(() => source.getManifest(repository, name, signal), signal);
    found.set(manifest.digest, manifest.bytes.length);
    const parsed = parse(manifest.bytes, manifest.mediaType);
    if (!parsed) return;
    for (const { digest, size } of [...(parsed.config ? [parsed.config] : []), ...parsed.layers]) found.set(digest, size);
    for (const child of parsed.manifests) if (!found.has(child.digest)) await read(child.digest);
  };
  await read(reference).catch((error: unknown) => {
    // What cannot be read is told by the item of a real run.
    if (!isSlipwayError(error) || error.retryable || error.code === "CANCELLED") throw error;
  });
  return found;
}

/** Puts the summary where clients find it: beside the execution. */
export async function summarize(
  parts: { readonly stretches: StretchStore; readonly executions: Pick<ExecutionStore, "setAttrs"> },
  executionId: number,
): Promise<void> {
  const rows = await parts.stretches.forecasts(executionId, REPOSITORIES_SHOWN + 1);
  const repositories = rows.slice(0, REPOSITORIES_SHOWN);
  await parts.executions.setAttrs(executionId, { plan: { repositories, truncated: rows.length > REPOSITORIES_SHOWN } });
}

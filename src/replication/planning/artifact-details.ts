/** What filters want to know of artifacts and listing does not tell: asked one by one, and only then. */
import { z } from "zod";
import { isSlipwayError } from "../../core/errors.ts";
import { parseManifest } from "../../oci/manifest.ts";
import type { ParsedManifest } from "../../oci/manifest.ts";
import type { Artifact } from "../adapters/adapter.ts";
import type { FilterNeeds } from "../plan/filters.ts";
import { insist } from "./retry.ts";
import { referenceOf } from "./source-pages.ts";
import type { StepContext } from "./step-context.ts";

const CREATED = "org.opencontainers.image.created";
const MAX_CONFIG_BYTES = 4 * 1024 * 1024;

const Config = z.object({ created: z.string() });

/** Those that are gone from the source are left out. */
export async function withDetails(context: StepContext, repository: string, artifacts: readonly Artifact[]): Promise<Artifact[]> {
  const { needs } = context.options.filters;
  const detailed = await Promise.all(
    artifacts.map(async (artifact) => {
      if (isComplete(artifact, needs)) return artifact;
      return await context.sourceHeads.run(() => resolve(context, repository, artifact)).catch(absent);
    }),
  );
  return detailed.filter((artifact) => artifact !== null);
}

function isComplete(artifact: Artifact, needs: FilterNeeds): boolean {
  return (
    (!needs.times || artifact.pushedAt !== null) &&
    (!needs.mediaTypes || artifact.mediaType !== null) &&
    (!needs.artifactTypes || artifact.artifactType !== null)
  );
}

async function resolve(context: StepContext, repository: string, artifact: Artifact): Promise<Artifact> {
  const { source, filters } = context.options;
  const { signal } = context;
  const { needs } = filters;
  if (!needs.times && !needs.artifactTypes) {
    const head = await insist(() => source.headManifest(repository, referenceOf(artifact), signal), signal);
    return { ...artifact, digest: head.digest, mediaType: head.mediaType };
  }
  const manifest = await insist(() => source.getManifest(repository, referenceOf(artifact), signal), signal);
  const parsed = parse(manifest.bytes, manifest.mediaType);
  return {
    ...artifact,
    digest: manifest.digest,
    mediaType: manifest.mediaType,
    artifactType: artifact.artifactType ?? parsed?.artifactType ?? null,
    pushedAt: artifact.pushedAt ?? (needs.times && parsed ? await createdAt(context, repository, parsed) : null),
  };
}

/** When the image was made, as it says itself: registries that list no times tell no other. */
async function createdAt(context: StepContext, repository: string, parsed: ParsedManifest): Promise<Date | null> {
  const { source } = context.options;
  const { signal } = context;
  const told = dateOf(parsed.annotations[CREATED]);
  if (told !== null) return told;
  const [child] = parsed.manifests;
  if (child !== undefined) {
    const manifest = await insist(() => source.getManifest(repository, child.digest, signal), signal);
    const inner = parse(manifest.bytes, manifest.mediaType);
    return inner === null || inner.manifests.length > 0 ? null : await createdAt(context, repository, inner);
  }
  if (parsed.config === null || parsed.config.size > MAX_CONFIG_BYTES) return null;
  const { digest, size } = parsed.config;
  const body = await source.readBlob(repository, { digest, size }, signal);
  const chunks: Buffer[] = [];
  for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk);
  return readCreated(Buffer.concat(chunks));
}

function readCreated(bytes: Buffer): Date | null {
  try {
    return dateOf(Config.safeParse(JSON.parse(bytes.toString("utf8"))).data?.created);
  } catch {
    return null;
  }
}

/** Null for what is no manifest that we read; the item tells what is wrong with it when it is copied. */
export function parse(bytes: Buffer, mediaType: string): ParsedManifest | null {
  try {
    return parseManifest(bytes, mediaType);
  } catch (error) {
    if (isSlipwayError(error)) return null;
    throw error;
  }
}

function dateOf(text: string | undefined): Date | null {
  const time = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(time) ? null : new Date(time);
}

function absent(error: unknown): null {
  if (isSlipwayError(error, "MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN")) return null;
  throw error;
}

/** A manifest push: parse, check what it names, store the bytes exactly, then rows and tags in one transaction. */
import { createHash } from "node:crypto";
import { SlipwayError } from "../core/errors.ts";
import { LIMITS } from "../core/limits.ts";
import type { Queryable } from "../db/pool.ts";
import { DEFAULT_DIGEST_ALGORITHM, requireDigest } from "../oci/digests.ts";
import { type Descriptor, type ParsedManifest, parseManifest } from "../oci/manifest.ts";
import { isNonDistributable } from "../oci/media-types.ts";
import { isTag } from "../oci/references.ts";
import { BlobRecordStore } from "./blob-record-store.ts";
import type { BlobWriter } from "./blob-writer.ts";
import { type CatalogContext, announce, timestamp } from "./catalog-context.ts";
import { type EventFacts, eventRecord, linkRecord } from "./content-records.ts";
import { ManifestStore } from "./manifest-store.ts";
import { Outbox, type OutboxDraft } from "./outbox.ts";
import { checkPreconditions } from "./preconditions.ts";
import { type ManifestPut, type ManifestPutResult, cacheScopes } from "./registry.ts";
import { RepositoryStore } from "./repository-store.ts";
import { TagStore } from "./tag-store.ts";

interface Push {
  readonly put: ManifestPut;
  readonly parsed: ParsedManifest;
  readonly digest: string;
}

/** Collection or the removal of the repository may undo a step; a few rounds outlast any honest coincidence. */
const ATTEMPTS = 5;

export class ManifestPusher {
  readonly #context: CatalogContext;
  readonly #blobs: BlobWriter;
  readonly #repositories: RepositoryStore;

  constructor(context: CatalogContext, blobs: BlobWriter) {
    this.#context = context;
    this.#blobs = blobs;
    this.#repositories = new RepositoryStore(context.database);
  }

  async put(put: ManifestPut, signal?: AbortSignal): Promise<ManifestPutResult> {
    const push = preparePush(put);
    await this.#precheck(push);
    const bytes = {
      digest: push.digest,
      size: put.bytes.length,
      promote: (abort?: AbortSignal): Promise<void> => this.#context.store.put(push.digest, put.bytes, abort),
    };
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      await this.#blobs.ensureStored(bytes, signal);
      const repositoryId = await this.#repositories.ensure(put.project.id, put.repository);
      const done = await this.#context.database.transaction((tx) => this.#commit(tx, repositoryId, push));
      if (!done) continue;
      await announce(this.#context, cacheScopes.repository(put.repository));
      return { digest: push.digest, subject: push.parsed.subject?.digest ?? null, tags: put.tags };
    }
    throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "the repository is just being collected", retryAfterSeconds: 2 });
  }

  /** Refuses most bad pushes before anything is stored or a repository made; the transaction decides. */
  async #precheck(push: Push): Promise<void> {
    if (push.put.allowMissingBlobs === true) return;
    const repositoryId = await this.#repositories.findId(push.put.repository);
    await checkContent(this.#context.database, repositoryId, push);
  }

  async #commit(tx: Queryable, repositoryId: number, push: Push): Promise<boolean> {
    const { put, digest } = push;
    if (!(await new RepositoryStore(tx).lock(repositoryId))) return false;
    if (!(await new BlobRecordStore(tx).markStored(digest))) return false;
    const manifests = new ManifestStore(tx);
    const tags = new TagStore(tx);
    await checkPut(tx, repositoryId, push);
    await checkContent(tx, repositoryId, push);
    const created = await manifests.save({
      repositoryId,
      digest,
      size: put.bytes.length,
      parsed: push.parsed,
      bytes: put.bytes.length <= LIMITS.manifestInlineBytes ? put.bytes : null,
    });
    const moved = put.tags.length > 0 ? await tags.point(repositoryId, put.tags, digest) : [];
    await new Outbox(tx).append(outboxOf(push, { created, moved, at: timestamp(this.#context) }));
    return true;
  }
}

function preparePush(put: ManifestPut): Push {
  if (put.tags.length > LIMITS.tagsPerManifestPut)
    throw new SlipwayError("URI_TOO_LONG", { message: `more than ${LIMITS.tagsPerManifestPut} tags in one push` });
  const badTag = put.tags.find((tag) => !isTag(tag));
  if (badTag !== undefined) throw new SlipwayError("MANIFEST_INVALID", { message: "invalid tag", detail: { tag: badTag.slice(0, 200) } });
  const algorithm = put.digest === null ? DEFAULT_DIGEST_ALGORITHM : requireDigest(put.digest).algorithm;
  const parsed = parseManifest(put.bytes, put.contentType);
  const digest = `${algorithm}:${createHash(algorithm).update(put.bytes).digest("hex")}`;
  if (put.digest !== null && put.digest !== digest)
    throw new SlipwayError("DIGEST_INVALID", { detail: { digest: put.digest, computed: digest } });
  return { put, parsed, digest };
}

async function checkPut(tx: Queryable, repositoryId: number, push: Push): Promise<void> {
  const { put, digest } = push;
  if (put.ifMatch === undefined && put.ifNoneMatch === undefined) return;
  if (put.tags.length === 0) {
    const known = await new ManifestStore(tx).sizes(repositoryId, [digest]);
    checkPreconditions(known.has(digest) ? digest : undefined, put);
    return;
  }
  const current = await new TagStore(tx).current(repositoryId, put.tags);
  for (const tag of put.tags) checkPreconditions(current.get(tag), put);
}

/**
 * Every blob must be readable in this repository, in the size that the manifest tells. Children of an index and subjects may be absent:
 * sparse copies and signatures that come first are legal. A child that is here must have the size that the index tells.
 */
async function checkContent(db: Queryable, repositoryId: number | null, push: Push): Promise<void> {
  if (push.put.allowMissingBlobs === true) return;
  const { parsed } = push;
  const required = [...(parsed.config ? [parsed.config] : []), ...parsed.layers.filter((layer) => !isNonDistributable(layer.mediaType))];
  const blobs = await sizesOf(required, (digests) =>
    repositoryId === null ? Promise.resolve(new Map<string, number>()) : new BlobRecordStore(db).linkedSizes(repositoryId, digests),
  );
  const demanded = push.put.sparse === true ? (parsed.config ? [parsed.config] : []) : required;
  const missing = [...new Set(demanded.map((descriptor) => descriptor.digest))].filter((digest) => !blobs.has(digest));
  if (missing.length > 0) throw new SlipwayError("MANIFEST_BLOB_UNKNOWN", { detail: { digests: missing.slice(0, 100) } });
  checkSizes(required, blobs);
  if (repositoryId === null) return;
  checkSizes(parsed.manifests, await sizesOf(parsed.manifests, (digests) => new ManifestStore(db).sizes(repositoryId, digests)));
}

async function sizesOf(
  descriptors: readonly Descriptor[],
  ask: (digests: string[]) => Promise<Map<string, number>>,
): Promise<Map<string, number>> {
  return descriptors.length === 0 ? new Map() : ask([...new Set(descriptors.map((descriptor) => descriptor.digest))]);
}

function checkSizes(descriptors: readonly Descriptor[], known: ReadonlyMap<string, number>): void {
  const wrong = descriptors.find((descriptor) => (known.get(descriptor.digest) ?? descriptor.size) !== descriptor.size);
  if (!wrong) return;
  throw new SlipwayError("MANIFEST_INVALID", {
    message: "a descriptor tells another size than its content has",
    detail: { digest: wrong.digest, size: wrong.size, stored: known.get(wrong.digest) },
  });
}

function outboxOf(push: Push, change: { created: boolean; moved: readonly string[]; at: string }): OutboxDraft[] {
  const { put, parsed, digest } = push;
  const { repository } = put;
  const content = { digest, mediaType: parsed.mediaType, size: put.bytes.length };
  const facts: EventFacts = {
    ...content,
    repository,
    principal: put.principal,
    origin: put.origin ?? "push",
    ...(put.originRegistry === undefined ? {} : { originRegistry: put.originRegistry }),
    artifactType: parsed.artifactType,
    subject: parsed.subject?.digest ?? null,
    at: change.at,
  };
  const drafts: OutboxDraft[] = [];
  if (change.created) drafts.push(linkRecord({ op: "add", target: "manifest", repository, ...content, at: change.at }));
  for (const tag of change.moved) drafts.push(linkRecord({ op: "add", target: "tag", repository, digest, tag, at: change.at }));
  if (change.created) drafts.push(eventRecord("push", facts));
  for (const tag of change.moved) drafts.push(eventRecord("tag", { ...facts, tag }));
  return drafts;
}

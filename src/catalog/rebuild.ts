/**
 * Rows from what is kept in storage, after the database was lost: projects, then repository by repository blobs, manifests and tags. Only what is
 * missing is made, and only when its bytes are there; nothing that was removed comes back. In small steps, each of which may be repeated.
 */
import { createHash } from "node:crypto";
import { SlipwayError } from "../core/errors.ts";
import { sleep } from "../core/clock.ts";
import { LIMITS } from "../core/limits.ts";
import { parseRepositoryName } from "../oci/names.ts";
import { type CatalogContext, announce } from "./catalog-context.ts";
import { hasOlderRecords, readLinkRecords, recordedRepositories } from "./link-records.ts";
import { removeRowsWithoutBytes } from "./missing-bytes.ts";
import { LinkState, type LiveItem } from "./plan/link-state.ts";
import { firstNumber, nextProjectRecord, restoreProject } from "./project-records.ts";
import { ProjectStore } from "./project-store.ts";
import { RebuildFence } from "./rebuild-fence.ts";
import { type StoredItem, type Target, restoreBlobs, restoreManifests, restoreTags, withoutRows } from "./rebuild-rows.ts";
import { cacheScopes } from "./registry.ts";
import { RepositoryStore } from "./repository-store.ts";

export interface RebuiltBatch {
  /** Rows made. */
  readonly items: number;
  /** Things that storage has no bytes of. */
  readonly missing: number;
  /** Where the next batch begins; null at the end. */
  readonly next: string | null;
}

export interface BatchOptions {
  /** Things looked at in one batch. */
  readonly limit: number;
  readonly after: string | null;
}

export interface RebuilderOptions {
  /** Announced when registries were made. */
  readonly registriesScope: string;
}

interface Cursor {
  /** Storage behind which the next repository is looked for. */
  readonly marker: string | null;
  /** What of it is done; null when it has not begun. */
  readonly item: string | null;
}

interface Step {
  readonly items: number;
  readonly missing: number;
  readonly seen: number;
  /** Null when the repository is finished. */
  readonly item: string | null;
}

const CHUNK = 50;
/** Their bytes are in memory at once. */
const MANIFEST_CHUNK = 8;
const STATS_AT_ONCE = 8;
/** A batch ends after this whatever is left of it, so that a cancelled run ends soon. */
const BATCH_MS = 20_000;
const FENCE_ATTEMPTS = 10;
const FENCE_PAUSE_MS = 500;

export class Rebuilder {
  readonly #context: CatalogContext;
  readonly #projects: ProjectStore;
  readonly #registriesScope: string;

  constructor(context: CatalogContext, options: RebuilderOptions) {
    this.#context = context;
    this.#projects = new ProjectStore(context.database, context.invalidator);
    this.#registriesScope = options.registriesScope;
  }

  /** True when storage tells of content from before this database, and no run has come to its end yet. */
  async isDue(signal?: AbortSignal): Promise<boolean> {
    const { database, store } = this.#context;
    const done = await database.query("SELECT 1 FROM reconciliations LIMIT 1");
    return done.rowCount === 0 && hasOlderRecords(store, await firstNumber(database), signal);
  }

  async noteFinished(): Promise<void> {
    await this.#context.database.query(
      "WITH older AS (DELETE FROM reconciliations) INSERT INTO reconciliations DEFAULT VALUES ON CONFLICT DO NOTHING",
    );
  }

  /** Projects and the registries that they stand for. */
  async rebuildProjects({ limit, after }: BatchOptions, signal?: AbortSignal): Promise<RebuiltBatch> {
    const { database, store, invalidator, log } = this.#context;
    const before = await firstNumber(database);
    let items = 0;
    let marker = after;
    for (let seen = 0; seen < limit; seen += 1) {
      signal?.throwIfAborted();
      const found = await nextProjectRecord(store, { after: marker, before }, signal);
      if (!found) return { items, missing: 0, next: null };
      marker = found.marker;
      const { record } = found;
      if (!record || record.removed) continue;
      if (!(await restoreProject(record, { database, invalidator, registriesScope: this.#registriesScope }))) continue;
      items += 1;
      if (record.registry?.hadCredential)
        log.warn({ registry: record.registry.name }, "a registry was rebuilt without its credential, which has to be given again");
    }
    return { items, missing: 0, next: marker };
  }

  /** Repositories with their content. */
  async rebuildContent({ limit, after }: BatchOptions, signal?: AbortSignal): Promise<RebuiltBatch> {
    const { store, clock } = this.#context;
    const until = clock.now() + BATCH_MS;
    let cursor: Cursor = after === null ? { marker: null, item: null } : (JSON.parse(after) as Cursor);
    let items = 0;
    let missing = 0;
    let room = limit;
    for await (const repository of recordedRepositories(store, cursor.marker, signal)) {
      while (room > 0 && clock.now() < until) {
        signal?.throwIfAborted();
        const step = await this.#fenced(repository.name, { after: cursor.item, limit: room }, signal);
        items += step.items;
        missing += step.missing;
        room -= Math.max(1, step.seen);
        cursor = step.item === null ? { marker: repository.marker, item: null } : { marker: cursor.marker, item: step.item };
        if (step.item === null) break;
      }
      if (room <= 0 || clock.now() >= until) return { items, missing, next: JSON.stringify(cursor) };
    }
    return { items, missing, next: null };
  }

  /** Links, manifests and tags whose bytes storage has lost; see there. */
  removeRowsWithoutBytes(options: BatchOptions & { youngMs?: number; perSecond?: number }, signal?: AbortSignal): Promise<RebuiltBatch> {
    return removeRowsWithoutBytes(this.#context, options, signal);
  }

  async #fenced(repository: string, options: BatchOptions, signal?: AbortSignal): Promise<Step> {
    for (let attempt = 0; attempt < FENCE_ATTEMPTS; attempt += 1) {
      const fence = await RebuildFence.raise(this.#context.database, repository);
      try {
        const step = await this.#repository(repository, { ...options, fence }, signal);
        if (step) return step;
      } finally {
        await fence.lower();
      }
      await sleep(FENCE_PAUSE_MS, signal);
    }
    throw new SlipwayError("STORAGE_UNAVAILABLE", {
      message: `the records of ${repository} are being written all the time`,
      retryAfterSeconds: 5,
    });
  }

  /** Null when records went past the fence: what was read may be out of date. */
  async #repository(name: string, options: BatchOptions & { fence: RebuildFence }, signal?: AbortSignal): Promise<Step | null> {
    const { database, store } = this.#context;
    const state = new LinkState();
    for await (const record of options.fence.pending()) state.apply(record);
    for await (const record of readLinkRecords(name, store, signal)) state.apply(record);
    const items = state.live(options.after);
    const parsed = parseRepositoryName(name);
    if (items.length === 0 || !parsed) return { items: 0, missing: 0, seen: 0, item: null };
    const project = await this.#projects.ensure({ name: parsed.project, public: false, ownerId: null });
    const repositoryId = await new RepositoryStore(database).ensure(project.id, name);
    const target: Target = { repositoryId, name, project };
    const taken = items.slice(0, options.limit);
    let made = 0;
    let missing = 0;
    for (const chunk of chunksOf(taken)) {
      signal?.throwIfAborted();
      const result = await this.#chunk(target, chunk, { fence: options.fence, signal });
      if (!result) return null;
      made += result.made;
      missing += result.missing;
    }
    if (made > 0) await announce(this.#context, cacheScopes.repository(name), cacheScopes.blobs(name));
    return { items: made, missing, seen: taken.length, item: taken.length < items.length ? (taken.at(-1)?.key ?? null) : null };
  }

  async #chunk(
    target: Target,
    chunk: readonly LiveItem[],
    { fence, signal }: { fence: RebuildFence; signal: AbortSignal | undefined },
  ): Promise<{ made: number; missing: number } | null> {
    const { database } = this.#context;
    const kind = chunk[0]?.target;
    const wanted = await withoutRows(database, target, chunk);
    if (wanted.length === 0) return { made: 0, missing: 0 };
    const stored = kind === "tag" ? wanted.map((item) => ({ item, size: 0, bytes: null })) : await this.#secure(wanted, signal);
    const made = await database.transaction(async (tx) => {
      if (!(await new RepositoryStore(tx).lock(target.repositoryId))) return 0;
      const changed = await fence.changedSince(tx);
      if (changed === null) return null;
      if (changed === "all") return 0;
      const wantedStill = stored.filter(({ item }) => !changed.has(item.key));
      if (kind === "blob") return restoreBlobs(tx, target, wantedStill);
      return kind === "manifest" ? restoreManifests(tx, target, wantedStill) : restoreTags(tx, target, wantedStill);
    });
    return made === null ? null : { made, missing: wanted.length - stored.length };
  }

  /** Those whose bytes are there. Reserved first: from then on no sweeper removes the bytes, and only then a look at storage counts. */
  async #secure(items: readonly LiveItem[], signal?: AbortSignal): Promise<StoredItem[]> {
    const { database, store } = this.#context;
    const reserved = await database.query<{ digest: string }>(
      `INSERT INTO blobs (digest, size) SELECT DISTINCT d, 0 FROM unnest($1::text[]) d ORDER BY d
       ON CONFLICT (digest) DO UPDATE SET touched_at = now(), state = 'live', deleting_until = NULL,
         stored = blobs.stored AND blobs.deleting_until IS NULL
       WHERE blobs.state = 'live' OR blobs.deleting_until IS NULL OR blobs.deleting_until < now()
       RETURNING digest`,
      [items.map((item) => item.digest)],
    );
    const usable = new Set(reserved.rows.map((row) => row.digest));
    const stored: StoredItem[] = [];
    const waiting = items.filter((item) => usable.has(item.digest));
    const worker = async (): Promise<void> => {
      for (let item = waiting.shift(); item; item = waiting.shift()) {
        const found = await store.stat(item.digest, signal);
        if (!found || (item.size !== null && item.size !== found.size)) continue;
        const bytes = item.target === "manifest" ? await this.#manifestBytes(item.digest, signal) : null;
        if (item.target !== "manifest" || bytes) stored.push({ item, size: found.size, bytes });
      }
    };
    await Promise.all(Array.from({ length: STATS_AT_ONCE }, worker));
    return stored.toSorted((a, b) => (a.item.key < b.item.key ? -1 : 1));
  }

  /** Null when they are not those of the digest. */
  async #manifestBytes(digest: string, signal?: AbortSignal): Promise<Buffer | null> {
    const bytes = await this.#context.store.readAll(digest, LIMITS.manifestBytes, signal);
    const [algorithm = ""] = digest.split(":");
    const isRight = `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}` === digest;
    if (!isRight) this.#context.log.warn({ digest }, "a manifest in storage is damaged and was not rebuilt");
    return isRight ? bytes : null;
  }
}

/** Of one kind each. */
function* chunksOf(items: readonly LiveItem[]): Generator<LiveItem[]> {
  for (const [kind, group] of Map.groupBy(items, (item) => item.target)) {
    const size = kind === "manifest" ? MANIFEST_CHUNK : CHUNK;
    for (let start = 0; start < group.length; start += size) yield group.slice(start, start + size);
  }
}

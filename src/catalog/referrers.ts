/**
 * Referrers of a subject, by rows and by what clients keep under the referrers tag.
 *
 * Both ways: an index that a client pushed under the tag is merged into the list, as far as its manifests are here; and where nobody
 * pushed such a tag but rows know referrers, the tag answers with an index made from the rows. That index is kept for a day under its
 * digest, so that a client which resolves the tag first and fetches by digest then gets the same bytes from any process.
 */
import { createHash } from "node:crypto";
import { LIMITS } from "../core/limits.ts";
import type { Queryable } from "../db/pool.ts";
import { referrersTag, subjectPrefixOfTag } from "../oci/digests.ts";
import { parseManifest } from "../oci/manifest.ts";
import { MEDIA_TYPES, isIndexKind } from "../oci/media-types.ts";
import { ManifestStore, subjectRange } from "./manifest-store.ts";
import type { ReferrerDescriptor, ReferrersPage, StoredManifest } from "./registry.ts";

export interface ReferrersRequest {
  readonly repository: string;
  readonly digest: string;
  readonly artifactType: string | null;
  readonly limit: number;
  readonly last: string | null;
}

/** Gives the manifest of a tag that somebody pushed; null when there is none. */
export type TaggedManifest = (repository: string, tag: string) => Promise<StoredManifest | null>;

const LOOKUP_STEP = 500;
const INDEX_ENTRIES = 5_000;
const INDEX_BYTES = 4 * 1024 * 1024;

export class Referrers {
  readonly #db: Queryable;
  readonly #manifests: ManifestStore;
  readonly #tagged: TaggedManifest;

  constructor(db: Queryable, tagged: TaggedManifest) {
    this.#db = db;
    this.#manifests = new ManifestStore(db);
    this.#tagged = tagged;
  }

  /** Ordered by digest, each once. */
  async list(request: ReferrersRequest): Promise<ReferrersPage> {
    const { repository, artifactType, limit, last } = request;
    const [rows, pushed] = await Promise.all([
      this.#manifests.listReferrers({ repository, subject: subjectRange(request.digest), artifactType, limit: limit + 1, last }),
      this.#pushedDigests(repository, request.digest),
    ]);
    const merged = new Map(rows.map((row) => [row.digest, row]));
    const wanted = pushed.filter((digest) => digest > (last ?? "") && !merged.has(digest)).toSorted();
    for (const descriptor of await this.#known(request, wanted)) merged.set(descriptor.digest, descriptor);
    const sorted = [...merged.values()].toSorted((a, b) => (a.digest < b.digest ? -1 : 1));
    const manifests = sorted.slice(0, limit);
    return { manifests, next: sorted.length > limit ? (manifests.at(-1)?.digest ?? null) : null };
  }

  /** What a referrers tag stands for that nobody pushed; null when it is no such tag or nothing refers to its subject. */
  async indexOfTag(repository: string, tag: string): Promise<StoredManifest | null> {
    const prefix = subjectPrefixOfTag(tag);
    if (prefix === null) return null;
    const rows = await this.#manifests.listReferrers({
      repository,
      subject: subjectRange(prefix),
      artifactType: null,
      limit: INDEX_ENTRIES,
      last: null,
    });
    if (rows.length === 0) return null;
    const bytes = indexBytes(rows);
    return { digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}`, mediaType: MEDIA_TYPES.ociIndex, bytes };
  }

  async keepIndex(repository: string, tag: string, index: StoredManifest): Promise<void> {
    await this.#db.query(
      `WITH old AS (
         DELETE FROM referrer_indexes i USING repositories r
         WHERE r.name = $1 AND i.repository_id = r.id AND i.subject_prefix = $2 AND i.built_at < now() - interval '1 day' AND i.digest <> $3)
       INSERT INTO referrer_indexes (repository_id, subject_prefix, digest, bytes) SELECT id, $2, $3, $4 FROM repositories WHERE name = $1
       ON CONFLICT (repository_id, digest) DO UPDATE SET built_at = now()`,
      [repository, subjectPrefixOfTag(tag) ?? "", index.digest, index.bytes],
    );
  }

  async findIndex(repository: string, digest: string): Promise<StoredManifest | null> {
    const found = await this.#db.query<{ bytes: Buffer }>(
      "SELECT i.bytes FROM referrer_indexes i JOIN repositories r ON r.id = i.repository_id WHERE r.name = $1 AND i.digest = $2",
      [repository, digest],
    );
    const row = found.rows[0];
    return row ? { digest, mediaType: MEDIA_TYPES.ociIndex, bytes: row.bytes } : null;
  }

  async #pushedDigests(repository: string, subject: string): Promise<string[]> {
    const tagged = await this.#tagged(repository, referrersTag(subject));
    if (!tagged) return [];
    const parsed = parseManifest(tagged.bytes, tagged.mediaType);
    // The tag may have been given to something else.
    return isIndexKind(parsed.kind) ? [...new Set(parsed.manifests.map((descriptor) => descriptor.digest))] : [];
  }

  /** Descriptors of those that are here and match, until a page is full. */
  async #known(request: ReferrersRequest, digests: readonly string[]): Promise<ReferrerDescriptor[]> {
    const found: ReferrerDescriptor[] = [];
    for (let start = 0; start < digests.length && found.length <= request.limit; start += LOOKUP_STEP) {
      const step = digests.slice(start, start + LOOKUP_STEP);
      const known = await this.#manifests.descriptors(request.repository, step);
      for (const descriptor of known.values())
        if (request.artifactType === null || descriptor.artifactType === request.artifactType) found.push(descriptor);
    }
    return found;
  }
}

/** The same rows give the same bytes. */
function indexBytes(rows: readonly ReferrerDescriptor[]): Buffer {
  const manifests: ReferrerDescriptor[] = [];
  let size = 0;
  for (const row of rows) {
    const { mediaType, digest, size: length, artifactType, annotations } = row;
    const sorted = annotations && Object.fromEntries(Object.entries(annotations).toSorted(([a], [b]) => (a < b ? -1 : 1)));
    const descriptor = {
      mediaType,
      digest,
      size: length,
      ...(artifactType !== undefined && { artifactType }),
      ...(sorted && { annotations: sorted }),
    };
    size += JSON.stringify(descriptor).length;
    if (size > Math.min(INDEX_BYTES, LIMITS.manifestBytes)) break;
    manifests.push(descriptor);
  }
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }));
}

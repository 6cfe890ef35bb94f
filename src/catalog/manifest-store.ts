/** Manifests of a repository, what they reference, and which of them refer to a subject. */
import type { Queryable } from "../db/pool.ts";
import type { ParsedManifest } from "../oci/manifest.ts";
import type { ReferrerDescriptor } from "./registry.ts";

export interface ManifestRecord {
  readonly digest: string;
  readonly mediaType: string;
  readonly size: number;
  /** Null when only blob storage has them. */
  readonly bytes: Buffer | null;
}

export interface ManifestDraft {
  readonly repositoryId: number;
  readonly digest: string;
  readonly size: number;
  readonly parsed: ParsedManifest;
  readonly bytes: Buffer | null;
}

export interface ReferrerQuery {
  readonly repository: string;
  /** First digest that counts, and the first that does not any more; see `subjectRange`. */
  readonly subject: SubjectRange;
  readonly artifactType: string | null;
  readonly limit: number;
  readonly last: string | null;
}

export interface SubjectRange {
  readonly from: string;
  readonly before: string;
}

interface ReferrerRow {
  digest: string;
  media_type: string;
  artifact_type: string | null;
  size: number;
  annotations: Record<string, string>;
}

/** Every digest that begins so: one digest, or what a cut referrers tag stands for. */
export function subjectRange(prefix: string): SubjectRange {
  // "g" follows every hexadecimal digit.
  return { from: prefix, before: `${prefix}g` };
}

export class ManifestStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  async find(repository: string, digest: string): Promise<ManifestRecord | null> {
    const found = await this.#db.query<{ media_type: string; size: number; bytes: Buffer | null }>(
      `SELECT m.media_type, m.size, m.bytes FROM manifests m JOIN repositories r ON r.id = m.repository_id
       WHERE r.name = $1 AND m.digest = $2`,
      [repository, digest],
    );
    const row = found.rows[0];
    return row ? { digest, mediaType: row.media_type, size: row.size, bytes: row.bytes } : null;
  }

  /** Sizes of those that the repository has. */
  async sizes(repositoryId: number, digests: readonly string[]): Promise<Map<string, number>> {
    const found = await this.#db.query<{ digest: string; size: number }>(
      "SELECT digest, size FROM manifests WHERE repository_id = $1 AND digest = ANY ($2)",
      [repositoryId, digests],
    );
    return new Map(found.rows.map((row) => [row.digest, row.size]));
  }

  /** True when it is new in the repository. */
  async save(draft: ManifestDraft): Promise<boolean> {
    const { parsed } = draft;
    const saved = await this.#db.query<{ created: boolean }>(
      `INSERT INTO manifests (repository_id, digest, media_type, artifact_type, config_media_type, subject_digest, size, total_size, annotations, bytes)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
       ON CONFLICT (repository_id, digest) DO UPDATE SET media_type = EXCLUDED.media_type, bytes = EXCLUDED.bytes
       RETURNING (xmax = 0) AS created`,
      [
        draft.repositoryId,
        draft.digest,
        parsed.mediaType,
        parsed.artifactType,
        parsed.config?.mediaType ?? null,
        parsed.subject?.digest ?? null,
        draft.size,
        draft.size + contentSize(parsed),
        JSON.stringify(parsed.annotations),
        draft.bytes,
      ],
    );
    const created = saved.rows[0]?.created ?? false;
    if (created) await this.#saveReferences(draft);
    return created;
  }

  async remove(repositoryId: number, digest: string): Promise<{ mediaType: string } | null> {
    const removed = await this.#db.query<{ media_type: string }>(
      "DELETE FROM manifests WHERE repository_id = $1 AND digest = $2 RETURNING media_type",
      [repositoryId, digest],
    );
    return removed.rows[0] ? { mediaType: removed.rows[0].media_type } : null;
  }

  async listReferrers(query: ReferrerQuery): Promise<ReferrerDescriptor[]> {
    const found = await this.#db.query<ReferrerRow>(
      `SELECT m.digest, m.media_type, m.artifact_type, m.size, m.annotations
       FROM manifests m JOIN repositories r ON r.id = m.repository_id
       WHERE r.name = $1 AND m.subject_digest >= $2 AND m.subject_digest < $3
         AND ($4::text IS NULL OR m.artifact_type = $4) AND m.digest > $5
       ORDER BY m.digest LIMIT $6`,
      [query.repository, query.subject.from, query.subject.before, query.artifactType, query.last ?? "", query.limit],
    );
    return found.rows.map(toReferrer);
  }

  /** Those of the digests that the repository has, as descriptors. */
  async descriptors(repository: string, digests: readonly string[]): Promise<Map<string, ReferrerDescriptor>> {
    const found = await this.#db.query<ReferrerRow>(
      `SELECT m.digest, m.media_type, m.artifact_type, m.size, m.annotations
       FROM manifests m JOIN repositories r ON r.id = m.repository_id WHERE r.name = $1 AND m.digest = ANY ($2)`,
      [repository, digests],
    );
    return new Map(found.rows.map((row) => [row.digest, toReferrer(row)]));
  }

  async #saveReferences(draft: ManifestDraft): Promise<void> {
    const rows = referenceRows(draft.parsed);
    if (rows.length === 0) return;
    await this.#db.query(
      `INSERT INTO manifest_references (repository_id, manifest_digest, digest, kind, size, position, platform)
       SELECT $1, $2, e.digest, e.kind, e.size, e.position, e.platform
       FROM jsonb_to_recordset($3::jsonb) AS e (digest text, kind text, size bigint, position int, platform jsonb)
       ON CONFLICT DO NOTHING`,
      [draft.repositoryId, draft.digest, JSON.stringify(rows)],
    );
  }
}

interface ReferenceRow {
  readonly digest: string;
  readonly kind: "config" | "layer" | "manifest";
  readonly size: number;
  readonly position: number;
  readonly platform: unknown;
}

function referenceRows(parsed: ParsedManifest): ReferenceRow[] {
  const rows: ReferenceRow[] = [];
  if (parsed.config) rows.push({ digest: parsed.config.digest, kind: "config", size: parsed.config.size, position: 0, platform: null });
  for (const [position, layer] of parsed.layers.entries())
    rows.push({ digest: layer.digest, kind: "layer", size: layer.size, position, platform: null });
  for (const [position, child] of parsed.manifests.entries())
    rows.push({ digest: child.digest, kind: "manifest", size: child.size, position, platform: child.platform ?? null });
  return rows;
}

/** Config and layers, each digest once. */
function contentSize(parsed: ParsedManifest): number {
  const sizes = new Map(parsed.layers.map((layer) => [layer.digest, layer.size]));
  if (parsed.config) sizes.set(parsed.config.digest, parsed.config.size);
  let total = 0;
  for (const size of sizes.values()) total += size;
  return Math.min(total, Number.MAX_SAFE_INTEGER / 2);
}

function toReferrer(row: ReferrerRow): ReferrerDescriptor {
  return {
    mediaType: row.media_type,
    digest: row.digest,
    size: row.size,
    ...(row.artifact_type !== null && { artifactType: row.artifact_type }),
    ...(Object.keys(row.annotations).length > 0 && { annotations: row.annotations }),
  };
}

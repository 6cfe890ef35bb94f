/**
 * Rows of stored digests and the links that make them readable. Each change is one statement that refreshes the digest's mark and links it,
 * so that collection, which looks at rows only after it has locked them, never takes what somebody begins to use.
 */
import { FOREIGN_KEY_VIOLATION, type Queryable, sqlState } from "../db/pool.ts";
import { type OutboxDraft, outboxJson } from "./outbox.ts";
import { type ProjectRow, toProject } from "./project-row.ts";
import type { Project } from "./registry.ts";

/** What a writer of a digest meets: bytes are there; they have to be brought; collection is removing them, come back. */
export type Reservation = "stored" | "reserved" | "busy";

export interface LinkRequest {
  readonly repositoryId: number;
  readonly digest: string;
  /** Written in the same statement when the link is new; keyed by repository. */
  readonly outbox: readonly OutboxDraft[];
}

export interface LinkResult {
  readonly size: number;
  readonly created: boolean;
}

export interface BlobHolder {
  readonly repository: string;
  readonly project: Project;
}

// Marked for collection but not leased to a sweeper: the bytes are intact and the digest may be taken back.
const USABLE = "(state = 'live' OR deleting_until IS NULL)";

const LINK = `
  linked AS (
    INSERT INTO blob_links (repository_id, digest) SELECT $1, $2 FROM used
    ON CONFLICT (repository_id, digest) DO UPDATE SET touched_at = now() RETURNING (xmax = 0) AS created
  ), told AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT e.kind, e.key, e.payload FROM linked, jsonb_to_recordset($3::jsonb) AS e (kind text, key text, payload jsonb) WHERE linked.created
  )
  SELECT used.size, linked.created FROM used, linked`;

export class BlobRecordStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  /** Announces that bytes of this digest are needed, before they are moved to their place. */
  async reserve(digest: string, size: number): Promise<Reservation> {
    const reserved = await this.#db.query<{ stored: boolean }>(
      `INSERT INTO blobs (digest, size) VALUES ($1, $2)
       ON CONFLICT (digest) DO UPDATE SET touched_at = now(), state = 'live', deleting_until = NULL,
         stored = blobs.stored AND blobs.deleting_until IS NULL,
         size = CASE WHEN blobs.stored AND blobs.deleting_until IS NULL THEN blobs.size ELSE EXCLUDED.size END
       WHERE blobs.state = 'live' OR blobs.deleting_until IS NULL OR blobs.deleting_until < now()
       RETURNING stored`,
      [digest, size],
    );
    const row = reserved.rows[0];
    if (!row) return "busy";
    return row.stored ? "stored" : "reserved";
  }

  /** The bytes are in place: the digest is stored and linked. Null when collection took the reservation meanwhile. */
  completeAndLink(request: LinkRequest): Promise<LinkResult | null> {
    return this.#link(
      `WITH used AS (UPDATE blobs SET touched_at = now(), stored = true WHERE digest = $2 AND state = 'live' RETURNING size), ${LINK}`,
      request,
    );
  }

  /** Links what is stored. With `via`, only while that repository holds a link too. Null when it is not to be had. */
  linkStored(request: LinkRequest, via: string | null = null): Promise<LinkResult | null> {
    return this.#link(
      `WITH used AS (
         UPDATE blobs SET touched_at = now(), state = 'live', deleting_until = NULL
         WHERE digest = $2 AND stored AND ${USABLE} AND ($4::text IS NULL OR EXISTS (
           SELECT 1 FROM blob_links l JOIN repositories r ON r.id = l.repository_id WHERE l.digest = $2 AND r.name = $4))
         RETURNING size
       ), ${LINK}`,
      request,
      [via],
    );
  }

  /** Inside the transaction that makes a row depend on the digest. False when collection took it. */
  async markStored(digest: string): Promise<boolean> {
    const marked = await this.#db.query("UPDATE blobs SET touched_at = now(), stored = true WHERE digest = $1 AND state = 'live'", [
      digest,
    ]);
    return (marked.rowCount ?? 0) > 0;
  }

  async findLinked(repository: string, digest: string): Promise<{ size: number } | null> {
    const found = await this.#db.query<{ size: number }>(
      `SELECT b.size FROM repositories r JOIN blob_links l ON l.repository_id = r.id JOIN blobs b ON b.digest = l.digest
       WHERE r.name = $1 AND l.digest = $2`,
      [repository, digest],
    );
    return found.rows[0] ?? null;
  }

  /** Sizes of those that the repository may read. */
  async linkedSizes(repositoryId: number, digests: readonly string[]): Promise<Map<string, number>> {
    const found = await this.#db.query<{ digest: string; size: number }>(
      "SELECT l.digest, b.size FROM blob_links l JOIN blobs b ON b.digest = l.digest WHERE l.repository_id = $1 AND l.digest = ANY ($2)",
      [repositoryId, digests],
    );
    return new Map(found.rows.map((row) => [row.digest, row.size]));
  }

  async unlink(repositoryId: number, digest: string): Promise<boolean> {
    const removed = await this.#db.query("DELETE FROM blob_links WHERE repository_id = $1 AND digest = $2", [repositoryId, digest]);
    return (removed.rowCount ?? 0) > 0;
  }

  /** One repository of each project that holds the digest. */
  async holders(digest: string, limit: number): Promise<BlobHolder[]> {
    const found = await this.#db.query<HolderRow>(
      `SELECT DISTINCT ON (p.id) r.name AS repository, p.id, p.name, p.public, p.owner_id, p.registry_id, p.metadata, p.storage_limit, p.repo_count,
              p.created_at, p.updated_at
       FROM blob_links l JOIN repositories r ON r.id = l.repository_id JOIN projects p ON p.id = r.project_id
       WHERE l.digest = $1 ORDER BY p.id LIMIT $2`,
      [digest, limit],
    );
    return found.rows.map(toHolder);
  }

  async #link(sql: string, request: LinkRequest, more: readonly unknown[] = []): Promise<LinkResult | null> {
    const values = [request.repositoryId, request.digest, outboxJson(request.outbox), ...more];
    const linked = await this.#db.query<{ size: number; created: boolean }>(sql, values).catch((error: unknown) => {
      // The repository was removed; the caller makes it anew or gives up.
      if (sqlState(error) === FOREIGN_KEY_VIOLATION) return null;
      throw error;
    });
    return linked?.rows[0] ?? null;
  }
}

interface HolderRow extends ProjectRow {
  repository: string;
}

function toHolder(row: HolderRow): BlobHolder {
  return { repository: row.repository, project: toProject(row) };
}

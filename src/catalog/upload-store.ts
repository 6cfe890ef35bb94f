/**
 * Rows of running uploads. One holder at a time appends: the lease names it, `version` tells it from its predecessors, and a holder that
 * died is replaced when its lease ends.
 */
import type { Queryable } from "../db/pool.ts";

export interface UploadRecord {
  readonly id: string;
  readonly repository: string;
  readonly algorithm: string | null;
  readonly offset: number;
  readonly version: number;
  readonly locked: boolean;
}

interface UploadRow {
  id: string;
  repository: string;
  algorithm: string | null;
  offset_bytes: number;
  version: number;
  locked: boolean;
}

const COLUMNS = "id, repository, algorithm, offset_bytes, version, coalesce(locked_until > now(), false) AS locked";

export class UploadStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  async create(upload: { id: string; repository: string; principal: string; algorithm: string | null }): Promise<void> {
    await this.#db.query("INSERT INTO uploads (id, repository, principal, algorithm) VALUES ($1, $2, $3, $4)", [
      upload.id,
      upload.repository,
      upload.principal,
      upload.algorithm,
    ]);
  }

  async find(id: string, repository: string): Promise<UploadRecord | null> {
    const found = await this.#db.query<UploadRow>(`SELECT ${COLUMNS} FROM uploads WHERE id = $1 AND repository = $2`, [id, repository]);
    return found.rows[0] ? toRecord(found.rows[0]) : null;
  }

  /** Takes the lease; null when another holds it or there is no such upload. */
  async lock(id: string, repository: string, leaseMs: number): Promise<UploadRecord | null> {
    const locked = await this.#db.query<UploadRow>(
      `UPDATE uploads SET version = version + 1, locked_until = now() + $3 * interval '1 millisecond', touched_at = now()
       WHERE id = $1 AND repository = $2 AND (locked_until IS NULL OR locked_until < now()) RETURNING ${COLUMNS}`,
      [id, repository, leaseMs],
    );
    return locked.rows[0] ? toRecord(locked.rows[0]) : null;
  }

  /** False when the lease was lost or the upload is gone. */
  async renew(id: string, version: number, leaseMs: number): Promise<boolean> {
    const renewed = await this.#db.query(
      "UPDATE uploads SET locked_until = now() + $3 * interval '1 millisecond', touched_at = now() WHERE id = $1 AND version = $2",
      [id, version, leaseMs],
    );
    return (renewed.rowCount ?? 0) > 0;
  }

  /** Gives the lease back with the offset that storage has confirmed. */
  async release(id: string, version: number, offset: number): Promise<boolean> {
    const released = await this.#db.query(
      "UPDATE uploads SET offset_bytes = $3, locked_until = NULL, touched_at = now() WHERE id = $1 AND version = $2",
      [id, version, offset],
    );
    return (released.rowCount ?? 0) > 0;
  }

  async remove(id: string, repository: string): Promise<boolean> {
    const removed = await this.#db.query("DELETE FROM uploads WHERE id = $1 AND repository = $2", [id, repository]);
    return (removed.rowCount ?? 0) > 0;
  }

  /** Removes the oldest of those that nobody touched for so long, and gives their ids. Running ones are touched by their lease. */
  async takeExpired(olderThanMs: number, limit: number): Promise<{ id: string; bytes: number }[]> {
    const taken = await this.#db.query<{ id: string; bytes: number }>(
      `DELETE FROM uploads WHERE id IN (
         SELECT id FROM uploads WHERE touched_at < now() - $1 * interval '1 millisecond' AND (locked_until IS NULL OR locked_until < now())
         ORDER BY touched_at LIMIT $2 FOR UPDATE SKIP LOCKED)
       RETURNING id, offset_bytes AS bytes`,
      [olderThanMs, limit],
    );
    return taken.rows;
  }

  async existing(ids: readonly string[]): Promise<Set<string>> {
    const found = await this.#db.query<{ id: string }>("SELECT id FROM uploads WHERE id = ANY ($1)", [ids]);
    return new Set(found.rows.map((row) => row.id));
  }
}

function toRecord(row: UploadRow): UploadRecord {
  return {
    id: row.id,
    repository: row.repository,
    algorithm: row.algorithm,
    offset: row.offset_bytes,
    version: row.version,
    locked: row.locked,
  };
}

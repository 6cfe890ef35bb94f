/** Uploads in chunks, kept for whoever continues them. What a location says may be a secret, so it is sealed and bound to its target. */
import type { Encryption } from "../../auth/encryption.ts";
import type { Queryable } from "../../db/pool.ts";
import type { UploadSession } from "../../upstream/types.ts";

export interface UploadKey {
  readonly registryId: number;
  /** The registry's host: a location is of no use, and no business, at another. */
  readonly host: string;
  readonly repository: string;
  readonly digest: string;
}

export interface KeptUpload extends UploadKey {
  readonly session: UploadSession;
}

interface UploadRow {
  registry_id: number;
  repository: string;
  digest: string;
  session: string;
  confirmed: number;
}

export class UploadStore {
  readonly #db: Queryable;
  readonly #encryption: Encryption;

  constructor(db: Queryable, encryption: Encryption) {
    this.#db = db;
    this.#encryption = encryption;
  }

  async find(key: UploadKey): Promise<UploadSession | null> {
    const { rows } = await this.#db.query<UploadRow>(
      "SELECT * FROM copy_uploads WHERE registry_id = $1 AND repository = $2 AND digest = $3",
      [key.registryId, key.repository, key.digest],
    );
    return rows[0] ? this.#open(rows[0], key.host) : null;
  }

  async save(key: UploadKey, session: UploadSession, executionId: number): Promise<void> {
    const { location, minChunkBytes } = session;
    await this.#db.query(
      `INSERT INTO copy_uploads (registry_id, repository, digest, session, confirmed, execution_id) VALUES ($1, $2, $3, $4, $5, $6)
       ON CONFLICT (registry_id, repository, digest) DO UPDATE
       SET session = excluded.session, confirmed = excluded.confirmed, execution_id = excluded.execution_id, updated_at = now()`,
      [
        key.registryId,
        key.repository,
        key.digest,
        this.#encryption.encrypt(JSON.stringify({ location, minChunkBytes }), boundTo(key)),
        session.offset,
        executionId,
      ],
    );
  }

  async remove(key: UploadKey): Promise<void> {
    await this.#db.query("DELETE FROM copy_uploads WHERE registry_id = $1 AND repository = $2 AND digest = $3", [
      key.registryId,
      key.repository,
      key.digest,
    ]);
  }

  /** Where runs that were stopped have some: one of them, or any. */
  async ofStopped(executionId: number | null): Promise<{ readonly executionId: number; readonly registryId: number }[]> {
    const { rows } = await this.#db.query<{ execution_id: number; registry_id: number }>(
      `SELECT DISTINCT u.execution_id, u.registry_id FROM copy_uploads u JOIN executions e ON e.id = u.execution_id
        WHERE e.status = 'Stopped' AND ($1::bigint IS NULL OR e.id = $1) LIMIT 100`,
      [executionId],
    );
    return rows.map((row) => ({ executionId: row.execution_id, registryId: row.registry_id }));
  }

  /** Of a run that was ended; taken out in the same step, so that they are cancelled once. */
  async takeAll(executionId: number, registryId: number, host: string): Promise<KeptUpload[]> {
    const { rows } = await this.#db.query<UploadRow>("DELETE FROM copy_uploads WHERE execution_id = $1 AND registry_id = $2 RETURNING *", [
      executionId,
      registryId,
    ]);
    return rows.flatMap((row) => {
      const session = this.#open(row, host);
      return session ? [{ registryId, host, repository: row.repository, digest: row.digest, session }] : [];
    });
  }

  /** Registries throw sessions away after a week at the latest. */
  async prune(): Promise<void> {
    await this.#db.query("DELETE FROM copy_uploads WHERE updated_at < now() - interval '7 days'");
  }

  /** Null for what another key sealed or belongs to another host: the upload begins anew. */
  #open(row: UploadRow, host: string): UploadSession | null {
    try {
      const text = this.#encryption.decrypt(
        row.session,
        boundTo({ registryId: row.registry_id, host, repository: row.repository, digest: row.digest }),
      );
      const kept = JSON.parse(text) as { location: string; minChunkBytes: number };
      return { location: kept.location, minChunkBytes: kept.minChunkBytes, offset: row.confirmed };
    } catch {
      return null;
    }
  }
}

function boundTo(key: UploadKey): string {
  return `copy-upload:${key.registryId}:${key.host}:${key.repository}@${key.digest}`;
}

/** Tags of a repository. */
import type { Queryable } from "../db/pool.ts";
import type { TagPage } from "./registry.ts";

export interface TagRecord {
  readonly name: string;
  readonly digest: string;
  readonly pushedAt: Date;
  readonly pulledAt: Date | null;
}

interface TagRow {
  name: string;
  digest: string;
  pushed_at: Date;
  pulled_at: Date | null;
}

export class TagStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  async findDigest(repository: string, tag: string): Promise<string | null> {
    const found = await this.#db.query<{ digest: string }>(
      "SELECT t.digest FROM tags t JOIN repositories r ON r.id = t.repository_id WHERE r.name = $1 AND t.name = $2",
      [repository, tag],
    );
    return found.rows[0]?.digest ?? null;
  }

  /** Null when there is no such repository. */
  async listNames(repository: string, limit: number, last: string | null): Promise<TagPage | null> {
    const found = await this.#db.query<{ names: string[] }>(
      `SELECT ARRAY (SELECT t.name FROM tags t WHERE t.repository_id = r.id AND t.name > $2 ORDER BY t.name LIMIT $3) AS names
       FROM repositories r WHERE r.name = $1`,
      [repository, last ?? "", limit + 1],
    );
    const row = found.rows[0];
    if (!row) return null;
    const tags = row.names.slice(0, limit);
    return { tags, next: row.names.length > limit ? (tags.at(-1) ?? null) : null };
  }

  async ofManifest(repositoryId: number, digest: string): Promise<TagRecord[]> {
    const found = await this.#db.query<TagRow>(
      "SELECT name, digest, pushed_at, pulled_at FROM tags WHERE repository_id = $1 AND digest = $2 ORDER BY name",
      [repositoryId, digest],
    );
    return found.rows.map((row) => ({ name: row.name, digest: row.digest, pushedAt: row.pushed_at, pulledAt: row.pulled_at }));
  }

  async all(repositoryId: number): Promise<{ name: string; digest: string }[]> {
    const sql = "SELECT name, digest FROM tags WHERE repository_id = $1 ORDER BY name";
    return (await this.#db.query<{ name: string; digest: string }>(sql, [repositoryId])).rows;
  }

  /** Where the tags point now. Holds until the transaction ends when the repository is locked. */
  async current(repositoryId: number, names: readonly string[]): Promise<Map<string, string>> {
    const found = await this.#db.query<{ name: string; digest: string }>(
      "SELECT name, digest FROM tags WHERE repository_id = $1 AND name = ANY ($2)",
      [repositoryId, names],
    );
    return new Map(found.rows.map((row) => [row.name, row.digest]));
  }

  /** All of them or none. Gives the tags that changed. */
  async point(repositoryId: number, names: readonly string[], digest: string): Promise<string[]> {
    const changed = await this.#db.query<{ name: string }>(
      `INSERT INTO tags (repository_id, name, digest) SELECT $1, n, $3 FROM unnest($2::text[]) n ORDER BY n
       ON CONFLICT (repository_id, name) DO UPDATE SET digest = EXCLUDED.digest, pushed_at = now() WHERE tags.digest <> EXCLUDED.digest
       RETURNING name`,
      [repositoryId, [...new Set(names)], digest],
    );
    return changed.rows.map((row) => row.name);
  }

  /** Removes the tag while it points to the digest. */
  async remove(repositoryId: number, name: string, digest: string): Promise<boolean> {
    const removed = await this.#db.query("DELETE FROM tags WHERE repository_id = $1 AND name = $2 AND digest = $3", [
      repositoryId,
      name,
      digest,
    ]);
    return (removed.rowCount ?? 0) > 0;
  }
}

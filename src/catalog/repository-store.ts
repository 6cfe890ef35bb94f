/** Repositories. Pages go by name, so that an index answers any of them without a look at the rest. */
import { SlipwayError } from "../core/errors.ts";
import { FOREIGN_KEY_VIOLATION, type Queryable, sqlState } from "../db/pool.ts";
import { containsPattern } from "./like.ts";
import type { RepositoryPage } from "./registry.ts";

export interface Repository {
  readonly id: number;
  readonly projectId: number;
  readonly name: string;
  readonly description: string;
  readonly pullCount: number;
  readonly artifactCount: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

export type RepositorySort = "name" | "createdAt" | "updatedAt" | "pullCount" | "artifactCount";

export interface RepositoryListOptions {
  readonly projectId?: number;
  /** Part of the full name. */
  readonly q?: string;
  readonly sort?: RepositorySort;
  readonly descending?: boolean;
  readonly limit: number;
  readonly offset: number;
}

interface RepositoryRow {
  id: number;
  project_id: number;
  name: string;
  description: string;
  pull_count: number;
  artifact_count: number;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = "id, project_id, name, description, pull_count, artifact_count, created_at, updated_at";

const SORT_COLUMNS: Readonly<Record<RepositorySort, string>> = {
  name: "name",
  createdAt: "created_at",
  updatedAt: "updated_at",
  pullCount: "pull_count",
  artifactCount: "artifact_count",
};

export class RepositoryStore {
  readonly #db: Queryable;

  constructor(db: Queryable) {
    this.#db = db;
  }

  async find(name: string): Promise<Repository | null> {
    const found = await this.#db.query<RepositoryRow>(`SELECT ${COLUMNS} FROM repositories WHERE name = $1`, [name]);
    return found.rows[0] ? toRepository(found.rows[0]) : null;
  }

  async findId(name: string): Promise<number | null> {
    const found = await this.#db.query<{ id: number }>("SELECT id FROM repositories WHERE name = $1", [name]);
    return found.rows[0]?.id ?? null;
  }

  /** The id, made when the name is new. NAME_UNKNOWN when the project is gone. */
  async ensure(projectId: number, name: string): Promise<number> {
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const known = await this.findId(name);
      if (known !== null) return known;
      const made = await this.#db
        .query<{ id: number }>("INSERT INTO repositories (project_id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING RETURNING id", [
          projectId,
          name,
        ])
        .catch((error: unknown) => {
          if (sqlState(error) !== FOREIGN_KEY_VIOLATION) throw error;
          throw new SlipwayError("NAME_UNKNOWN", { message: "the project was removed", cause: error });
        });
      if (made.rows[0]) return made.rows[0].id;
    }
    throw new SlipwayError("CONFLICT", { message: `repository ${name} is being created and removed at the same time` });
  }

  /**
   * Keeps other writers of the repository out until the transaction ends, so that checks on links, manifests and tags hold when it
   * commits. Adding a link needs no lock. False when the repository is gone.
   */
  async lock(id: number): Promise<boolean> {
    const locked = await this.#db.query("SELECT 1 FROM repositories WHERE id = $1 FOR NO KEY UPDATE", [id]);
    return locked.rows.length > 0;
  }

  async listNames(limit: number, last: string | null): Promise<RepositoryPage> {
    const found = await this.#db.query<{ name: string }>("SELECT name FROM repositories WHERE name > $1 ORDER BY name LIMIT $2", [
      last ?? "",
      limit + 1,
    ]);
    const names = found.rows.slice(0, limit).map((row) => row.name);
    return { names, next: found.rows.length > limit ? (names.at(-1) ?? null) : null };
  }

  /** As listNames, of these names or of these projects only. */
  async listAmong(
    among: { readonly names: readonly string[] | null; readonly projects: readonly string[] | null },
    limit: number,
    last: string | null,
  ): Promise<RepositoryPage> {
    const found = await this.#db.query<{ name: string }>(
      `SELECT r.name FROM repositories r
        WHERE r.name > $1 AND ($2::text[] IS NULL OR r.name = ANY ($2))
          AND ($3::text[] IS NULL OR r.project_id IN (SELECT id FROM projects WHERE name = ANY ($3)))
        ORDER BY r.name LIMIT $4`,
      [last ?? "", among.names, among.projects, limit + 1],
    );
    const names = found.rows.slice(0, limit).map((row) => row.name);
    return { names, next: found.rows.length > limit ? (names.at(-1) ?? null) : null };
  }

  async list(options: RepositoryListOptions): Promise<{ items: Repository[]; total: number }> {
    const values = [options.projectId ?? null, options.q === undefined ? null : containsPattern(options.q)];
    const filter = "($1::bigint IS NULL OR project_id = $1) AND ($2::text IS NULL OR name LIKE $2)";
    const column = SORT_COLUMNS[options.sort ?? "name"];
    const direction = options.descending ? "DESC" : "ASC";
    const [rows, count] = await Promise.all([
      this.#db.query<RepositoryRow>(
        `SELECT ${COLUMNS} FROM repositories WHERE ${filter} ORDER BY ${column} ${direction}, id ${direction} LIMIT $3 OFFSET $4`,
        [...values, options.limit, options.offset],
      ),
      this.#db.query<{ total: number }>(`SELECT count(*) AS total FROM repositories WHERE ${filter}`, values),
    ]);
    return { items: rows.rows.map(toRepository), total: count.rows[0]?.total ?? 0 };
  }

  async setDescription(id: number, description: string): Promise<boolean> {
    const updated = await this.#db.query("UPDATE repositories SET description = $2, updated_at = now() WHERE id = $1", [id, description]);
    return (updated.rowCount ?? 0) > 0;
  }

  async remove(id: number): Promise<boolean> {
    const removed = await this.#db.query("DELETE FROM repositories WHERE id = $1", [id]);
    return (removed.rowCount ?? 0) > 0;
  }

  /** Pulls counted elsewhere and handed in as a batch; order by name keeps two batches from waiting for each other in a circle. */
  async addPulls(pulls: ReadonlyMap<string, number>): Promise<void> {
    if (pulls.size === 0) return;
    await this.#db.query(
      `WITH given AS (SELECT * FROM unnest($1::text[], $2::bigint[]) AS g (name, amount)),
            locked AS (SELECT r.id, g.amount FROM repositories r JOIN given g USING (name) ORDER BY r.id FOR NO KEY UPDATE OF r)
       UPDATE repositories r SET pull_count = r.pull_count + l.amount FROM locked l WHERE r.id = l.id`,
      [[...pulls.keys()], [...pulls.values()]],
    );
  }
}

function toRepository(row: RepositoryRow): Repository {
  return {
    id: row.id,
    projectId: row.project_id,
    name: row.name,
    description: row.description,
    pullCount: row.pull_count,
    artifactCount: row.artifact_count,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

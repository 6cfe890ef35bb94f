/** Projects: reading them for every API, and the guarded changes. Changes answer once every process has dropped what it knew. */
import { SlipwayError } from "../core/errors.ts";
import { FOREIGN_KEY_VIOLATION, type Queryable, UNIQUE_VIOLATION, sqlState } from "../db/pool.ts";
import { isProjectName } from "../oci/names.ts";
import { containsPattern } from "./like.ts";
import { type ProjectRow, toProject } from "./project-row.ts";
import { type Invalidator, type Project, cacheScopes } from "./registry.ts";

export type ProjectSort = "name" | "createdAt" | "updatedAt" | "repoCount";

export interface ProjectFilter {
  /** Part of the name. */
  readonly q?: string;
  readonly name?: string;
  readonly public?: boolean;
  readonly ownerId?: number;
  /** Proxy projects (true) or local ones (false). */
  readonly proxy?: boolean;
  /** Ids that the caller may see besides the public ones; null means all. */
  readonly visibleIds: readonly number[] | null;
}

export interface ProjectPageOptions {
  readonly sort?: ProjectSort;
  readonly descending?: boolean;
  readonly limit: number;
  readonly offset: number;
}

export interface ProjectPage {
  readonly items: Project[];
  readonly total: number;
}

export interface ProjectDraft {
  readonly name: string;
  readonly public: boolean;
  readonly ownerId: number | null;
  readonly registryId?: number | null;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly storageLimit?: number;
}

export interface ProjectChange {
  readonly public?: boolean;
  readonly ownerId?: number | null;
  readonly registryId?: number | null;
  /** Replaces the whole. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Sets these keys and keeps the others. */
  readonly metadataMerge?: Readonly<Record<string, string>>;
  readonly metadataRemove?: readonly string[];
  readonly storageLimit?: number;
}

const COLUMNS = "id, name, public, owner_id, registry_id, metadata, storage_limit, repo_count, created_at, updated_at";

const SORT_COLUMNS: Readonly<Record<ProjectSort, string>> = {
  name: "name",
  createdAt: "created_at",
  updatedAt: "updated_at",
  repoCount: "repo_count",
};

const FILTER = `
  ($1::text IS NULL OR name LIKE $1)
  AND ($2::text IS NULL OR name = $2)
  AND ($3::boolean IS NULL OR public = $3)
  AND ($4::bigint IS NULL OR owner_id = $4)
  AND ($5::boolean IS NULL OR (registry_id IS NOT NULL) = $5)
  AND ($6::bigint[] IS NULL OR public OR id = ANY ($6))`;

export class ProjectStore {
  readonly #db: Queryable;
  readonly #invalidator: Invalidator;

  constructor(db: Queryable, invalidator: Invalidator) {
    this.#db = db;
    this.#invalidator = invalidator;
  }

  async find(name: string): Promise<Project | null> {
    const found = await this.#db.query<ProjectRow>(`SELECT ${COLUMNS} FROM projects WHERE name = $1`, [name]);
    return found.rows[0] ? toProject(found.rows[0]) : null;
  }

  async findById(id: number): Promise<Project | null> {
    const found = await this.#db.query<ProjectRow>(`SELECT ${COLUMNS} FROM projects WHERE id = $1`, [id]);
    return found.rows[0] ? toProject(found.rows[0]) : null;
  }

  async list(filter: ProjectFilter, page: ProjectPageOptions): Promise<ProjectPage> {
    const values = [
      filter.q === undefined ? null : containsPattern(filter.q),
      filter.name ?? null,
      filter.public ?? null,
      filter.ownerId ?? null,
      filter.proxy ?? null,
      filter.visibleIds,
    ];
    const column = SORT_COLUMNS[page.sort ?? "name"];
    const direction = page.descending ? "DESC" : "ASC";
    const [rows, count] = await Promise.all([
      this.#db.query<ProjectRow>(
        `SELECT ${COLUMNS} FROM projects WHERE ${FILTER} ORDER BY ${column} ${direction}, id ${direction} LIMIT $7 OFFSET $8`,
        [...values, page.limit, page.offset],
      ),
      this.#db.query<{ total: number }>(`SELECT count(*) AS total FROM projects WHERE ${FILTER}`, values),
    ]);
    return { items: rows.rows.map(toProject), total: count.rows[0]?.total ?? 0 };
  }

  /** CONFLICT when the name is taken. */
  async create(draft: ProjectDraft): Promise<Project> {
    requireName(draft.name);
    const row = await this.#insert(draft, "").catch((error: unknown) => {
      if (sqlState(error) === UNIQUE_VIOLATION)
        throw new SlipwayError("CONFLICT", { message: `project ${draft.name} exists already`, cause: error });
      if (sqlState(error) === FOREIGN_KEY_VIOLATION)
        throw new SlipwayError("BAD_REQUEST", { message: `registry ${draft.registryId} not found`, cause: error });
      throw error;
    });
    if (!row) throw new SlipwayError("INTERNAL", { message: "the project was not created" });
    await this.#changed(draft.name);
    return toProject(row);
  }

  /** The project of this name, created when there is none; any number of callers at once get the same one. */
  async ensure(draft: ProjectDraft): Promise<Project> {
    requireName(draft.name);
    const known = await this.find(draft.name);
    if (known) return known;
    const row = await this.#insert(draft, "ON CONFLICT (name) DO NOTHING");
    if (row) {
      await this.#changed(draft.name);
      return toProject(row);
    }
    const other = await this.find(draft.name);
    if (!other) throw new SlipwayError("CONFLICT", { message: `project ${draft.name} was removed meanwhile` });
    return other;
  }

  /** Null when there is no such project. */
  async update(id: number, change: ProjectChange): Promise<Project | null> {
    const updated = await this.#db.query<ProjectRow>(
      `UPDATE projects SET
         public = coalesce($2, public),
         owner_id = CASE WHEN $3 THEN $4::bigint ELSE owner_id END,
         registry_id = CASE WHEN $5 THEN $6::bigint ELSE registry_id END,
         metadata = (coalesce($7::jsonb, metadata) || coalesce($9::jsonb, '{}')) - coalesce($10::text[], '{}'),
         storage_limit = coalesce($8, storage_limit),
         updated_at = now()
       WHERE id = $1 RETURNING ${COLUMNS}`,
      [
        id,
        change.public ?? null,
        change.ownerId !== undefined,
        change.ownerId ?? null,
        change.registryId !== undefined,
        change.registryId ?? null,
        change.metadata === undefined ? null : JSON.stringify(change.metadata),
        change.storageLimit ?? null,
        change.metadataMerge === undefined ? null : JSON.stringify(change.metadataMerge),
        change.metadataRemove ?? null,
      ],
    );
    const row = updated.rows[0];
    if (!row) return null;
    await this.#changed(row.name);
    return toProject(row);
  }

  /** False when there is no such project; PRECONDITION_FAILED while it has repositories. */
  async remove(id: number): Promise<boolean> {
    const removed = await this.#db
      .query<{ name: string }>("DELETE FROM projects WHERE id = $1 RETURNING name", [id])
      .catch((error: unknown) => {
        if (sqlState(error) !== FOREIGN_KEY_VIOLATION) throw error;
        throw new SlipwayError("PRECONDITION_FAILED", { message: "the project still has repositories", cause: error });
      });
    const row = removed.rows[0];
    if (!row) return false;
    await this.#changed(row.name);
    return true;
  }

  async #insert(draft: ProjectDraft, onConflict: string): Promise<ProjectRow | undefined> {
    const inserted = await this.#db.query<ProjectRow>(
      `INSERT INTO projects (name, public, owner_id, registry_id, metadata, storage_limit)
       VALUES ($1, $2, $3, $4, $5, $6) ${onConflict} RETURNING ${COLUMNS}`,
      [draft.name, draft.public, draft.ownerId, draft.registryId ?? null, JSON.stringify(draft.metadata ?? {}), draft.storageLimit ?? -1],
    );
    return inserted.rows[0];
  }

  #changed(name: string): Promise<void> {
    return this.#invalidator.publish([cacheScopes.project(name), cacheScopes.rights(name)]);
  }
}

function requireName(name: string): void {
  if (!isProjectName(name)) throw new SlipwayError("NAME_INVALID", { message: "invalid project name" });
}

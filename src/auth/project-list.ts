/** The list of projects as a caller sees it, in two statements whatever the number of projects: visibility, owner and role included. */
import { type ProjectRow, toProject } from "../catalog/project-row.ts";
import type { Project } from "../catalog/registry.ts";
import type { Queryable } from "../db/pool.ts";
import { ListSql } from "./list-query.ts";
import type { Columns, Listed, ListQuery } from "./list-query.ts";

export interface ListedProject extends Project {
  readonly ownerName: string;
  /** Of the user who asks; 0 without membership. */
  readonly role: number;
}

/** Besides the public projects. */
export type Visibility =
  | { readonly kind: "all" }
  | { readonly kind: "public" }
  | { readonly kind: "member"; readonly userId: number }
  | { readonly kind: "named"; readonly names: readonly string[] };

export interface ProjectListOptions {
  readonly visibility: Visibility;
  /** Whose role is shown. */
  readonly userId: number | null;
  readonly nameContains?: string;
  readonly public?: boolean;
  readonly owner?: string;
  readonly query: ListQuery;
}

const COLUMNS: Columns = {
  project_id: { sql: "p.id", type: "number" },
  name: { sql: "p.name", type: "text" },
  owner_id: { sql: "p.owner_id", type: "number" },
  owner_name: { sql: "o.username", type: "text" },
  owner: { sql: "o.username", type: "text" },
  public: { sql: "p.public", type: "boolean" },
  registry_id: { sql: "p.registry_id", type: "number" },
  repo_count: { sql: "p.repo_count", type: "number" },
  creation_time: { sql: "p.created_at", type: "time" },
  update_time: { sql: "p.updated_at", type: "time" },
};
export const PROJECT_LIST_KEYS = Object.keys(COLUMNS);

interface Row extends ProjectRow {
  owner_name: string | null;
  role: number | null;
}

export class ProjectList {
  readonly #database: Queryable;

  constructor(database: Queryable) {
    this.#database = database;
  }

  async list(options: ProjectListOptions): Promise<Listed<ListedProject>> {
    const sql = new ListSql(COLUMNS).filter(options.query.filters);
    const { visibility } = options;
    if (visibility.kind === "public") sql.where("p.public");
    if (visibility.kind === "member") {
      sql.where("(p.public OR EXISTS (SELECT 1 FROM project_members v WHERE v.project_id = p.id AND v.user_id = ?))", visibility.userId);
    }
    if (visibility.kind === "named") sql.where("(p.public OR p.name = ANY(?))", visibility.names);
    if (options.public !== undefined) sql.where("p.public = ?", options.public);
    if (options.owner !== undefined) sql.where("o.username = ?", options.owner);
    if (options.nameContains !== undefined) sql.filter([{ key: "name", kind: "contains", value: options.nameContains }]);
    const from = "FROM projects p LEFT JOIN users o ON o.id = p.owner_id";
    const where = sql.whereSql;
    const counted = await this.#database.query<{ total: number }>(`SELECT count(*) AS total ${from} ${where}`, sql.values);
    const total = counted.rows[0]?.total ?? 0;
    if (total === 0) return { rows: [], total };
    const order = sql.orderSql(options.query.sort, "p.name");
    const page = sql.pageSql(options.query);
    sql.values.push(options.userId ?? 0);
    const { rows } = await this.#database.query<Row>(
      `SELECT p.*, o.username AS owner_name, m.role ${from}
         LEFT JOIN project_members m ON m.project_id = p.id AND m.user_id = $${sql.values.length} ${where} ${order} ${page}`,
      sql.values,
    );
    return { rows: rows.map(toListed), total };
  }

  /** Bytes of the project's content, each digest once. */
  async usedStorage(projectId: number): Promise<number> {
    const { rows } = await this.#database.query<{ used: number }>(
      `SELECT coalesce(sum(b.size), 0)::bigint AS used FROM blobs b
        WHERE b.digest IN (SELECT l.digest FROM blob_links l JOIN repositories r ON r.id = l.repository_id WHERE r.project_id = $1)`,
      [projectId],
    );
    return rows[0]?.used ?? 0;
  }
}

function toListed(row: Row): ListedProject {
  return { ...toProject(row), ownerName: row.owner_name ?? "", role: row.role ?? 0 };
}

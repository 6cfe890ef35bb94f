/** Repositories and artifacts as lists of the API, each page in a few statements however much a row shows: tags, parts and what refers to it included. */
import type { Queryable } from "../db/pool.ts";
import { ListSql } from "./list-query.ts";
import type { Columns, Filter, Listed, ListQuery } from "./list-query.ts";
import type { Visibility } from "./project-list.ts";

export interface ListedRepository {
  readonly id: number;
  readonly projectId: number;
  readonly name: string;
  readonly description: string;
  readonly artifactCount: number;
  readonly pullCount: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

export interface ListedTag {
  readonly name: string;
  readonly pushedAt: string;
  readonly pulledAt: string | null;
}

export interface ListedReferrer {
  readonly digest: string;
  readonly artifactType: string | null;
  readonly size: number;
  readonly pushedAt: string;
}

export interface ListedChild {
  readonly digest: string;
  readonly platform: Readonly<Record<string, string | readonly string[]>> | null;
}

export interface ListedArtifact {
  readonly repositoryId: number;
  readonly projectId: number;
  readonly repository: string;
  readonly digest: string;
  readonly mediaType: string;
  readonly configMediaType: string | null;
  readonly artifactType: string | null;
  readonly size: number;
  readonly annotations: Readonly<Record<string, string>>;
  readonly pushedAt: Date;
  readonly pulledAt: Date | null;
  readonly tags: readonly ListedTag[];
  readonly children: readonly ListedChild[];
  readonly referrers: readonly ListedReferrer[];
}

const REPOSITORY_COLUMNS: Columns = {
  repository_id: { sql: "r.id", type: "number" },
  id: { sql: "r.id", type: "number" },
  project_id: { sql: "r.project_id", type: "number" },
  name: { sql: "r.name", type: "text" },
  description: { sql: "r.description", type: "text" },
  pull_count: { sql: "r.pull_count", type: "number" },
  artifact_count: { sql: "r.artifact_count", type: "number" },
  creation_time: { sql: "r.created_at", type: "time" },
  update_time: { sql: "r.updated_at", type: "time" },
};
const ARTIFACT_COLUMNS: Columns = {
  digest: { sql: "m.digest", type: "text" },
  size: { sql: "m.total_size", type: "number" },
  media_type: { sql: "m.config_media_type", type: "text" },
  manifest_media_type: { sql: "m.media_type", type: "text" },
  artifact_type: { sql: "m.artifact_type", type: "text" },
  push_time: { sql: "m.pushed_at", type: "time" },
  pull_time: { sql: "m.pulled_at", type: "time" },
};
export const REPOSITORY_LIST_KEYS = [...Object.keys(REPOSITORY_COLUMNS), "blob_digest"];
export const ARTIFACT_LIST_KEYS = [...Object.keys(ARTIFACT_COLUMNS), "tags", "base"];

/** An image with more is shown with these. */
const MOST_PARTS = 1000;

const ARTIFACT = `r.id AS "repositoryId", r.project_id AS "projectId", r.name AS repository, m.digest, m.media_type AS "mediaType",
  m.config_media_type AS "configMediaType", m.artifact_type AS "artifactType", m.total_size AS size, m.annotations,
  m.pushed_at AS "pushedAt", m.pulled_at AS "pulledAt",
  (SELECT coalesce(jsonb_agg(x ORDER BY x."pushedAt" DESC, x.name), '[]') FROM (SELECT t.name, t.pushed_at AS "pushedAt", t.pulled_at AS "pulledAt"
     FROM tags t WHERE t.repository_id = m.repository_id AND t.digest = m.digest LIMIT ${MOST_PARTS}) x) AS tags,
  (SELECT coalesce(jsonb_agg(x ORDER BY x.position), '[]') FROM (SELECT c.digest, c.platform, c.position FROM manifest_references c
    WHERE c.repository_id = m.repository_id AND c.manifest_digest = m.digest AND c.kind = 'manifest' LIMIT ${MOST_PARTS}) x) AS children,
  (SELECT coalesce(jsonb_agg(x ORDER BY x.digest), '[]') FROM (SELECT a.digest, a.artifact_type AS "artifactType", a.total_size AS size, a.pushed_at AS "pushedAt"
     FROM manifests a WHERE a.repository_id = m.repository_id AND a.subject_digest = m.digest LIMIT ${MOST_PARTS}) x) AS referrers`;
const TAGGED = "EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = m.repository_id AND t.digest = m.digest)";
const IS_CHILD = `EXISTS (SELECT 1 FROM manifest_references c
  WHERE c.repository_id = m.repository_id AND c.digest = m.digest AND c.kind = 'manifest')`;

export class ContentList {
  readonly #database: Queryable;

  constructor(database: Queryable) {
    this.#database = database;
  }

  /** Of one project, or of all that the caller sees. */
  async repositories(
    scope: { readonly projectId: number } | { readonly visibility: Visibility },
    query: ListQuery,
  ): Promise<Listed<ListedRepository>> {
    const sql = new ListSql(REPOSITORY_COLUMNS).filter(query.filters);
    if ("projectId" in scope) sql.where("r.project_id = ?", scope.projectId);
    else see(sql, scope.visibility);
    for (const filter of query.filters) {
      if (filter.key.toLowerCase() !== "blob_digest" || filter.kind !== "equals") continue;
      sql.where("EXISTS (SELECT 1 FROM blob_links b WHERE b.repository_id = r.id AND b.digest = ?)", filter.value);
    }
    const from = "FROM repositories r JOIN projects p ON p.id = r.project_id";
    const total = await this.#count(`${from} ${sql.whereSql}`, sql.values);
    const [order, where] = [sql.orderSql(query.sort, "r.created_at DESC, r.id DESC"), sql.whereSql];
    const { rows } = await this.#database.query<ListedRepository>(
      `SELECT r.id, r.project_id AS "projectId", r.name, r.description, r.artifact_count AS "artifactCount", r.pull_count AS "pullCount",
              r.created_at AS "createdAt", r.updated_at AS "updatedAt" ${from} ${where} ${order} ${sql.pageSql(query)}`,
      sql.values,
    );
    return { rows, total };
  }

  /** Without what only belongs to others: parts of an index and what refers to something; an absent repository has none. */
  async artifacts(repository: string, query: ListQuery): Promise<Listed<ListedArtifact>> {
    const sql = new ListSql(ARTIFACT_COLUMNS).filter(query.filters).where("r.name = ?", repository).where("m.subject_digest IS NULL");
    const tags = query.filters.filter(({ key }) => key.toLowerCase() === "tags");
    for (const filter of tags) selectTags(sql, filter);
    if (!query.filters.some(({ key }) => key.toLowerCase() === "base")) sql.where(`(NOT ${IS_CHILD} OR ${TAGGED})`);
    const from = "FROM repositories r JOIN manifests m ON m.repository_id = r.id";
    const total = await this.#count(`${from} ${sql.whereSql}`, sql.values);
    const [order, where] = [sql.orderSql(query.sort, "m.pushed_at DESC, m.digest"), sql.whereSql];
    const { rows } = await this.#database.query<ListedArtifact>(
      `SELECT ${ARTIFACT} ${from} ${where} ${order} ${sql.pageSql(query)}`,
      sql.values,
    );
    return { rows, total };
  }

  /** By tag or digest. */
  async artifact(repository: string, reference: string): Promise<ListedArtifact | null> {
    const { rows } = await this.#database.query<ListedArtifact>(
      `SELECT ${ARTIFACT} FROM repositories r JOIN manifests m ON m.repository_id = r.id
        WHERE r.name = $1 AND m.digest = coalesce((SELECT t.digest FROM tags t WHERE t.repository_id = r.id AND t.name = $2), $2)`,
      [repository, reference],
    );
    return rows[0] ?? null;
  }

  async #count(from: string, values: readonly unknown[]): Promise<number> {
    const { rows } = await this.#database.query<{ total: number }>(`SELECT count(*) AS total ${from}`, [...values]);
    return rows[0]?.total ?? 0;
  }
}

function see(sql: ListSql, visibility: Visibility): void {
  if (visibility.kind === "public") sql.where("p.public");
  if (visibility.kind === "member") {
    sql.where("(p.public OR EXISTS (SELECT 1 FROM project_members v WHERE v.project_id = p.id AND v.user_id = ?))", visibility.userId);
  }
  if (visibility.kind === "named") sql.where("(p.public OR p.name = ANY(?))", visibility.names);
}

/** `*`: any; `nil`: none; otherwise one of that name, or with it in its name. */
function selectTags(sql: ListSql, filter: Filter): void {
  const named = "EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = m.repository_id AND t.digest = m.digest AND";
  if (filter.kind === "contains") sql.where(`${named} t.name ILIKE ?)`, `%${filter.value.replace(/[\\%_]/g, "\\$&")}%`);
  if (filter.kind !== "equals") return;
  if (filter.value === "*") sql.where(TAGGED);
  else if (filter.value === "nil") sql.where(`NOT ${TAGGED}`);
  else sql.where(`${named} t.name = ?)`, filter.value);
}

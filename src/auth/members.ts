/** Who has which role in a project. */
import { cacheScopes } from "../catalog/registry.ts";
import { SlipwayError } from "../core/errors.ts";
import { FOREIGN_KEY_VIOLATION, sqlState, UNIQUE_VIOLATION } from "../db/pool.ts";
import type { Database } from "../db/pool.ts";
import { principalKey } from "./accounts.ts";
import type { Invalidations } from "./invalidations.ts";
import { ListSql } from "./list-query.ts";
import type { Listed, ListQuery } from "./list-query.ts";
import { NO_ROLE } from "./roles.ts";
import type { RoleId } from "./roles.ts";

export interface Member {
  readonly id: number;
  readonly projectId: number;
  readonly userId: number;
  readonly username: string;
  readonly role: RoleId;
}

interface ProjectRef {
  readonly id: number;
  readonly name: string;
}

interface MemberRow {
  id: number;
  project_id: number;
  user_id: number;
  username: string;
  role: RoleId;
}

const SELECT = "SELECT m.id, m.project_id, m.user_id, u.username, m.role FROM project_members m JOIN users u ON u.id = m.user_id";

export class MemberStore {
  readonly #database: Database;
  readonly #invalidations: Invalidations;

  constructor(database: Database, invalidations: Invalidations) {
    this.#database = database;
    this.#invalidations = invalidations;
  }

  async findRole(projectId: number, userId: number): Promise<number> {
    const { rows } = await this.#database.query<{ role: number }>(
      "SELECT role FROM project_members WHERE project_id = $1 AND user_id = $2",
      [projectId, userId],
    );
    return rows[0]?.role ?? NO_ROLE;
  }

  /** Roles of one user in some projects. */
  async listRoles(userId: number, projectIds: readonly number[]): Promise<Map<number, number>> {
    if (projectIds.length === 0) return new Map();
    const { rows } = await this.#database.query<{ project_id: number; role: number }>(
      "SELECT project_id, role FROM project_members WHERE user_id = $1 AND project_id = ANY($2)",
      [userId, projectIds],
    );
    return new Map(rows.map((row) => [row.project_id, row.role]));
  }

  /** How many members have each role. */
  async countRoles(projectId: number): Promise<Map<number, number>> {
    const { rows } = await this.#database.query<{ role: number; members: number }>(
      "SELECT role, count(*) AS members FROM project_members WHERE project_id = $1 GROUP BY role",
      [projectId],
    );
    return new Map(rows.map((row) => [row.role, row.members]));
  }

  async find(projectId: number, memberId: number): Promise<Member | null> {
    const { rows } = await this.#database.query<MemberRow>(`${SELECT} WHERE m.project_id = $1 AND m.id = $2`, [projectId, memberId]);
    return rows[0] ? toMember(rows[0]) : null;
  }

  async list(projectId: number, nameContains: string, page: Pick<ListQuery, "page" | "pageSize">): Promise<Listed<Member>> {
    const sql = new ListSql({ entity_name: { sql: "u.username", type: "text" } }).where("m.project_id = ?", projectId);
    if (nameContains !== "") sql.filter([{ key: "entity_name", kind: "contains", value: nameContains }]);
    const where = sql.whereSql;
    const counted = await this.#database.query<{ total: number }>(
      `SELECT count(*) AS total FROM project_members m JOIN users u ON u.id = m.user_id ${where}`,
      sql.values,
    );
    const { rows } = await this.#database.query<MemberRow>(`${SELECT} ${where} ORDER BY u.username, m.id ${sql.pageSql(page)}`, sql.values);
    return { rows: rows.map(toMember), total: counted.rows[0]?.total ?? 0 };
  }

  /** Throws CONFLICT when the user is a member, NOT_FOUND when user or project are gone. Returns the member's id. */
  async create(project: ProjectRef, userId: number, role: RoleId): Promise<number> {
    try {
      const { rows } = await this.#database.query<{ id: number }>(
        `INSERT INTO project_members (project_id, user_id, role)
         SELECT $1, id, $3 FROM users WHERE id = $2 AND deleted_at IS NULL RETURNING id`,
        [project.id, userId, role],
      );
      const id = rows[0]?.id;
      if (id === undefined) throw new SlipwayError("NOT_FOUND", { message: "user not found" });
      await this.#changed(project, userId);
      return id;
    } catch (error) {
      if (sqlState(error) === UNIQUE_VIOLATION) throw new SlipwayError("CONFLICT", { message: "the user is a member of the project" });
      if (sqlState(error) === FOREIGN_KEY_VIOLATION) throw new SlipwayError("NOT_FOUND", { message: "project not found" });
      throw error;
    }
  }

  async update(project: ProjectRef, memberId: number, role: RoleId): Promise<boolean> {
    const { rows } = await this.#database.query<{ user_id: number }>(
      "UPDATE project_members SET role = $3, updated_at = now() WHERE project_id = $1 AND id = $2 RETURNING user_id",
      [project.id, memberId, role],
    );
    if (rows[0]) await this.#changed(project, rows[0].user_id);
    return rows.length === 1;
  }

  async remove(project: ProjectRef, memberId: number): Promise<boolean> {
    const { rows } = await this.#database.query<{ user_id: number }>(
      "DELETE FROM project_members WHERE project_id = $1 AND id = $2 RETURNING user_id",
      [project.id, memberId],
    );
    if (rows[0]) await this.#changed(project, rows[0].user_id);
    return rows.length === 1;
  }

  async #changed(project: ProjectRef, userId: number): Promise<void> {
    await this.#invalidations.publish([cacheScopes.rights(project.name), cacheScopes.principal(principalKey("user", userId))]);
  }
}

function toMember(row: MemberRow): Member {
  return { id: row.id, projectId: row.project_id, userId: row.user_id, username: row.username, role: row.role };
}

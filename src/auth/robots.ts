/** Robots: accounts for machines, with a list of permissions instead of roles. */
import { cacheScopes } from "../catalog/registry.ts";
import { SlipwayError } from "../core/errors.ts";
import { FOREIGN_KEY_VIOLATION, sqlState, UNIQUE_VIOLATION } from "../db/pool.ts";
import type { Database } from "../db/pool.ts";
import { principalKey } from "./accounts.ts";
import type { Invalidations } from "./invalidations.ts";
import { ListSql } from "./list-query.ts";
import type { Columns, Listed, ListQuery } from "./list-query.ts";
import type { RobotPermission } from "./roles.ts";

export interface Robot {
  readonly id: number;
  /** Without the login prefix: "name", or "project+name". */
  readonly loginName: string;
  readonly level: "system" | "project";
  readonly projectId: number | null;
  readonly description: string;
  readonly permissions: readonly RobotPermission[];
  readonly durationDays: number;
  readonly disabled: boolean;
  readonly expiresAt: Date | null;
  readonly version: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

export interface NewRobot {
  readonly loginName: string;
  readonly projectId: number | null;
  readonly description: string;
  readonly permissions: readonly RobotPermission[];
  readonly durationDays: number;
  readonly disabled: boolean;
  readonly expiresAt: Date | null;
  readonly secretHash: string;
}

export type RobotChange = Pick<Robot, "description" | "permissions" | "durationDays" | "disabled" | "expiresAt">;

interface RobotRow {
  id: number;
  login_name: string;
  level: "system" | "project";
  project_id: number | null;
  description: string;
  permissions: RobotPermission[];
  duration_days: number;
  disabled: boolean;
  expires_at: Date | null;
  version: number;
  created_at: Date;
  updated_at: Date;
}

const FIELDS =
  "id, login_name, level, project_id, description, permissions, duration_days, disabled, expires_at, version, created_at, updated_at";
const COLUMNS: Columns = {
  id: { sql: "id", type: "number" },
  name: { sql: "login_name", type: "text" },
  description: { sql: "description", type: "text" },
  disable: { sql: "disabled", type: "boolean" },
  duration: { sql: "duration_days", type: "number" },
  creation_time: { sql: "created_at", type: "time" },
  update_time: { sql: "updated_at", type: "time" },
};
export const ROBOT_LIST_KEYS = Object.keys(COLUMNS);

export class RobotStore {
  readonly #database: Database;
  readonly #invalidations: Invalidations;

  constructor(database: Database, invalidations: Invalidations) {
    this.#database = database;
    this.#invalidations = invalidations;
  }

  async find(id: number): Promise<Robot | null> {
    const { rows } = await this.#database.query<RobotRow>(`SELECT ${FIELDS} FROM robots WHERE id = $1`, [id]);
    return rows[0] ? toRobot(rows[0]) : null;
  }

  async findByLoginName(loginName: string): Promise<Robot | null> {
    const { rows } = await this.#database.query<RobotRow>(`SELECT ${FIELDS} FROM robots WHERE login_name = $1`, [loginName]);
    return rows[0] ? toRobot(rows[0]) : null;
  }

  /** A null project lists the system's robots. */
  async list(projectId: number | null, query: ListQuery): Promise<Listed<Robot>> {
    const sql = new ListSql(COLUMNS).filter(query.filters);
    if (projectId === null) sql.where("level = 'system'");
    else sql.where("project_id = ?", projectId);
    const where = sql.whereSql;
    const counted = await this.#database.query<{ total: number }>(`SELECT count(*) AS total FROM robots ${where}`, sql.values);
    const text = `SELECT ${FIELDS} FROM robots ${where} ${sql.orderSql(query.sort, "created_at DESC, id DESC")} ${sql.pageSql(query)}`;
    const { rows } = await this.#database.query<RobotRow>(text, sql.values);
    return { rows: rows.map(toRobot), total: counted.rows[0]?.total ?? 0 };
  }

  /** Throws CONFLICT when the name is taken, NOT_FOUND when the project is gone. */
  async create(robot: NewRobot): Promise<Robot> {
    try {
      const { rows } = await this.#database.query<RobotRow>(
        `INSERT INTO robots (login_name, level, project_id, description, permissions, duration_days, disabled, expires_at, secret_hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING ${FIELDS}`,
        [
          robot.loginName,
          robot.projectId === null ? "system" : "project",
          robot.projectId,
          robot.description,
          JSON.stringify(robot.permissions),
          robot.durationDays,
          robot.disabled,
          robot.expiresAt,
          robot.secretHash,
        ],
      );
      return toRobot(rows[0] as RobotRow);
    } catch (error) {
      if (sqlState(error) === UNIQUE_VIOLATION) throw new SlipwayError("CONFLICT", { message: "a robot of this name exists" });
      if (sqlState(error) === FOREIGN_KEY_VIOLATION) throw new SlipwayError("NOT_FOUND", { message: "project not found" });
      throw error;
    }
  }

  /** False when the robot was changed since it was read, or is gone. */
  async update(robot: Pick<Robot, "id" | "version">, change: RobotChange): Promise<boolean> {
    const { rowCount } = await this.#database.query(
      `UPDATE robots SET description = $3, permissions = $4, duration_days = $5, disabled = $6, expires_at = $7,
              version = version + 1, updated_at = now()
        WHERE id = $1 AND version = $2`,
      [
        robot.id,
        robot.version,
        change.description,
        JSON.stringify(change.permissions),
        change.durationDays,
        change.disabled,
        change.expiresAt,
      ],
    );
    if (rowCount === 1) await this.#changed(robot.id);
    return rowCount === 1;
  }

  /** Ends the robot's tokens. */
  async changeSecret(id: number, secretHash: string): Promise<boolean> {
    const { rowCount } = await this.#database.query(
      `UPDATE robots SET secret_hash = $2, credential_version = credential_version + 1, version = version + 1, updated_at = now()
        WHERE id = $1`,
      [id, secretHash],
    );
    if (rowCount === 1) await this.#changed(id);
    return rowCount === 1;
  }

  async remove(id: number): Promise<boolean> {
    const removed = await this.#database.transaction(async (tx) => {
      await tx.query("DELETE FROM refresh_tokens WHERE principal = $1", [principalKey("robot", id)]);
      return (await tx.query("DELETE FROM robots WHERE id = $1", [id])).rowCount === 1;
    });
    if (removed) await this.#changed(id);
    return removed;
  }

  async #changed(id: number): Promise<void> {
    await this.#invalidations.publish([cacheScopes.principal(principalKey("robot", id))]);
  }
}

function toRobot(row: RobotRow): Robot {
  return {
    id: row.id,
    loginName: row.login_name,
    level: row.level,
    projectId: row.project_id,
    description: row.description,
    permissions: row.permissions,
    durationDays: row.duration_days,
    disabled: row.disabled,
    expiresAt: row.expires_at,
    version: row.version,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/** Users: every write is one guarded statement, and answers when each process has dropped what it knew of the user. */
import { cacheScopes } from "../catalog/registry.ts";
import { SlipwayError } from "../core/errors.ts";
import { sqlState, UNIQUE_VIOLATION } from "../db/pool.ts";
import type { Database, Queryable } from "../db/pool.ts";
import { principalKey } from "./accounts.ts";
import type { Invalidations } from "./invalidations.ts";
import { ListSql } from "./list-query.ts";
import type { Columns, Listed, ListQuery } from "./list-query.ts";

export interface User {
  readonly id: number;
  readonly username: string;
  readonly email: string;
  readonly realname: string;
  readonly comment: string;
  readonly sysadmin: boolean;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

export interface NewUser {
  readonly username: string;
  readonly passwordHash: string;
  readonly email: string;
  readonly realname: string;
  readonly comment: string;
  readonly sysadmin?: boolean;
}

export interface UserProfile {
  readonly email: string;
  readonly realname: string;
  readonly comment: string;
}

interface UserRow {
  id: number;
  username: string;
  email: string;
  realname: string;
  comment: string;
  sysadmin: boolean;
  created_at: Date;
  updated_at: Date;
}

const FIELDS = "id, username, email, realname, comment, sysadmin, created_at, updated_at";
const COLUMNS: Columns = {
  user_id: { sql: "id", type: "number" },
  username: { sql: "username", type: "text" },
  email: { sql: "email", type: "text" },
  realname: { sql: "realname", type: "text" },
  comment: { sql: "comment", type: "text" },
  sysadmin_flag: { sql: "sysadmin", type: "boolean" },
  creation_time: { sql: "created_at", type: "time" },
  update_time: { sql: "updated_at", type: "time" },
};
export const USER_LIST_KEYS = Object.keys(COLUMNS);
/** Changes that could leave the system without an administrator happen one after the other. */
const SYSADMIN_LOCK = 7_514_012;

export class UserStore {
  readonly #database: Database;
  readonly #invalidations: Invalidations;

  constructor(database: Database, invalidations: Invalidations) {
    this.#database = database;
    this.#invalidations = invalidations;
  }

  async find(id: number): Promise<User | null> {
    const { rows } = await this.#database.query<UserRow>(`SELECT ${FIELDS} FROM users WHERE id = $1 AND deleted_at IS NULL`, [id]);
    return rows[0] ? toUser(rows[0]) : null;
  }

  async findByName(username: string): Promise<User | null> {
    const { rows } = await this.#database.query<UserRow>(`SELECT ${FIELDS} FROM users WHERE username = $1 AND deleted_at IS NULL`, [
      username,
    ]);
    return rows[0] ? toUser(rows[0]) : null;
  }

  /** Names of users, deleted ones included, for lists that show owners. */
  async listNames(ids: readonly number[]): Promise<Map<number, string>> {
    if (ids.length === 0) return new Map();
    const { rows } = await this.#database.query<{ id: number; username: string }>("SELECT id, username FROM users WHERE id = ANY($1)", [
      ids,
    ]);
    return new Map(rows.map((row) => [row.id, row.username]));
  }

  async list(query: ListQuery): Promise<Listed<User>> {
    const sql = new ListSql(COLUMNS).where("deleted_at IS NULL").filter(query.filters);
    const counted = await this.#database.query<{ total: number }>(`SELECT count(*) AS total FROM users ${sql.whereSql}`, sql.values);
    const where = sql.whereSql;
    const text = `SELECT ${FIELDS} FROM users ${where} ${sql.orderSql(query.sort, "username, id")} ${sql.pageSql(query)}`;
    const { rows } = await this.#database.query<UserRow>(text, sql.values);
    return { rows: rows.map(toUser), total: counted.rows[0]?.total ?? 0 };
  }

  /** Throws CONFLICT when name or e-mail address are taken. */
  async create(user: NewUser): Promise<User> {
    try {
      const { rows } = await this.#database.query<UserRow>(
        `INSERT INTO users (username, password_hash, email, realname, comment, sysadmin) VALUES ($1, $2, $3, $4, $5, $6) RETURNING ${FIELDS}`,
        [user.username, user.passwordHash, user.email, user.realname, user.comment, user.sysadmin ?? false],
      );
      return toUser(rows[0] as UserRow);
    } catch (error) {
      throw conflictOf(error);
    }
  }

  /** False when there is no such user. */
  async updateProfile(id: number, profile: UserProfile): Promise<boolean> {
    try {
      const { rowCount } = await this.#database.query(
        "UPDATE users SET email = $2, realname = $3, comment = $4, updated_at = now() WHERE id = $1 AND deleted_at IS NULL",
        [id, profile.email, profile.realname, profile.comment],
      );
      return rowCount === 1;
    } catch (error) {
      throw conflictOf(error);
    }
  }

  async findPasswordHash(id: number): Promise<string | null> {
    const { rows } = await this.#database.query<{ password_hash: string }>(
      "SELECT password_hash FROM users WHERE id = $1 AND deleted_at IS NULL",
      [id],
    );
    return rows[0]?.password_hash ?? null;
  }

  /** Ends the user's tokens. False when the user is gone, or the password is no longer the one that `expected` is the hash of. */
  async changePassword(id: number, hash: string, expected: string | null = null): Promise<boolean> {
    const { rowCount } = await this.#database.query(
      `UPDATE users SET password_hash = $2, credential_version = credential_version + 1, updated_at = now()
        WHERE id = $1 AND deleted_at IS NULL AND ($3::text IS NULL OR password_hash = $3)`,
      [id, hash, expected],
    );
    if (rowCount === 1) await this.#changed(id);
    return rowCount === 1;
  }

  /** Throws PRECONDITION_FAILED for the last administrator. False when there is no such user. */
  async setSysadmin(id: number, sysadmin: boolean): Promise<boolean> {
    const changed = await this.#database.transaction(async (tx) => {
      await guardLastSysadmin(tx, sysadmin ? null : id);
      const { rowCount } = await tx.query("UPDATE users SET sysadmin = $2, updated_at = now() WHERE id = $1 AND deleted_at IS NULL", [
        id,
        sysadmin,
      ]);
      return rowCount === 1;
    });
    if (changed) await this.#changed(id);
    return changed;
  }

  /** The row stays for the names of owners; memberships go. Throws PRECONDITION_FAILED for the last administrator. */
  async remove(id: number): Promise<boolean> {
    const removed = await this.#database.transaction(async (tx) => {
      await guardLastSysadmin(tx, id);
      const { rowCount } = await tx.query(
        `UPDATE users SET deleted_at = now(), updated_at = now(), password_hash = '', credential_version = credential_version + 1
          WHERE id = $1 AND deleted_at IS NULL`,
        [id],
      );
      await tx.query("DELETE FROM project_members WHERE user_id = $1", [id]);
      await tx.query("DELETE FROM refresh_tokens WHERE principal = $1", [principalKey("user", id)]);
      return rowCount === 1;
    });
    if (removed) await this.#changed(id);
    return removed;
  }

  async #changed(id: number): Promise<void> {
    await this.#invalidations.publish([cacheScopes.principal(principalKey("user", id))]);
  }
}

async function guardLastSysadmin(tx: Queryable, leaving: number | null): Promise<void> {
  if (leaving === null) return;
  await tx.query("SELECT pg_advisory_xact_lock($1)", [SYSADMIN_LOCK]);
  const { rows } = await tx.query<{ leaves: boolean; others: boolean }>(
    `SELECT EXISTS (SELECT 1 FROM users WHERE sysadmin AND deleted_at IS NULL AND id = $1) AS leaves,
            EXISTS (SELECT 1 FROM users WHERE sysadmin AND deleted_at IS NULL AND id <> $1) AS others`,
    [leaving],
  );
  if (rows[0]?.leaves === true && !rows[0].others) {
    throw new SlipwayError("PRECONDITION_FAILED", { message: "the last system administrator must stay one" });
  }
}

function conflictOf(error: unknown): unknown {
  if (sqlState(error) !== UNIQUE_VIOLATION) return error;
  const what = (error as { constraint?: string }).constraint === "users_by_email" ? "e-mail address" : "username";
  return new SlipwayError("CONFLICT", { message: `the ${what} is taken`, cause: error });
}

function toUser(row: UserRow): User {
  const { id, username, email, realname, comment, sysadmin } = row;
  return { id, username, email, realname, comment, sysadmin, createdAt: row.created_at, updatedAt: row.updated_at };
}

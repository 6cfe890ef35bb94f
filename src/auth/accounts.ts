/** Accounts as authentication sees them: users and robots in one shape, by principal key or by login name. */
import type { Queryable } from "../db/pool.ts";
import type { Principal, TokenScope } from "./principal.ts";
import { cacheScopes } from "../catalog/registry.ts";
import { KnownCache } from "./known-cache.ts";
import type { KnownCacheOptions, Loaded } from "./known-cache.ts";
import type { RobotPermission } from "./roles.ts";

export interface Account {
  readonly kind: "user" | "robot";
  readonly key: string;
  readonly id: number;
  /** As it is given at login. */
  readonly name: string;
  readonly sysadmin: boolean;
  readonly secretHash: string;
  readonly credentialVersion: number;
  readonly disabled: boolean;
  /** Milliseconds since the epoch; null: never. */
  readonly expiresAt: number | null;
  /** Of robots. */
  readonly permissions: readonly RobotPermission[];
}

export function principalKey(kind: "user" | "robot", id: number): string {
  return `${kind}:${id}`;
}

export function isActive(account: Account, now: number): boolean {
  return !account.disabled && (account.expiresAt === null || now < account.expiresAt);
}

export class Accounts {
  readonly #database: Queryable;
  readonly #robotPrefix: string;
  readonly #known: KnownCache<Account>;
  readonly #ofPrincipal = new WeakMap<Principal, Account>();

  constructor(database: Queryable, robotPrefix: string, cache: KnownCacheOptions) {
    this.#database = database;
    this.#robotPrefix = robotPrefix;
    this.#known = new KnownCache(cache);
  }

  /** By the reference that `refByKey` and `refByLogin` give. */
  peek(ref: string): Account | undefined {
    return this.#known.peek(ref);
  }

  async find(ref: string): Promise<Account | null> {
    return await this.#known.load(ref, () => this.#read(ref));
  }

  /** From the database, whatever is known. */
  async read(ref: string): Promise<Account | null> {
    return (await this.#read(ref))?.value ?? null;
  }

  isRobotLogin(login: string): boolean {
    return login.startsWith(this.#robotPrefix);
  }

  /** A principal remembers its account, so that a robot's rights need no further look-up. */
  principalOf(account: Account, scopes: readonly TokenScope[] | null): Principal {
    const principal: Principal = {
      kind: account.kind,
      key: account.key,
      id: account.id,
      name: account.name,
      sysadmin: account.sysadmin,
      scopes,
    };
    this.#ofPrincipal.set(principal, account);
    return principal;
  }

  accountOf(principal: Principal): Account | undefined {
    return this.#ofPrincipal.get(principal) ?? this.#known.peek(principal.key);
  }

  stats(): ReturnType<KnownCache<Account>["stats"]> {
    return this.#known.stats();
  }

  close(): void {
    this.#known.close();
  }

  async #read(ref: string): Promise<Loaded<Account> | null> {
    const separator = ref.indexOf(":");
    const kind = ref.slice(0, separator);
    const value = ref.slice(separator + 1);
    if (kind === "user") return await this.#readUser("id", Number(value));
    if (kind === "robot") return await this.#readRobot("id", Number(value));
    if (this.isRobotLogin(value)) return await this.#readRobot("login_name", value.slice(this.#robotPrefix.length));
    return await this.#readUser("username", value);
  }

  async #readUser(column: "id" | "username", value: number | string): Promise<Loaded<Account> | null> {
    const { rows } = await this.#database.query<UserRow>(
      `SELECT id, username, sysadmin, password_hash, credential_version FROM users WHERE ${column} = $1 AND deleted_at IS NULL`,
      [value],
    );
    const row = rows[0];
    if (!row) return null;
    const key = principalKey("user", row.id);
    const account: Account = {
      kind: "user",
      key,
      id: row.id,
      name: row.username,
      sysadmin: row.sysadmin,
      secretHash: row.password_hash,
      credentialVersion: row.credential_version,
      disabled: false,
      expiresAt: null,
      permissions: [],
    };
    return { value: account, scopes: [cacheScopes.principal(key)] };
  }

  async #readRobot(column: "id" | "login_name", value: number | string): Promise<Loaded<Account> | null> {
    const { rows } = await this.#database.query<RobotRow>(
      `SELECT r.id, r.login_name, r.secret_hash, r.credential_version, r.disabled, r.expires_at, r.permissions, p.name AS project
         FROM robots r LEFT JOIN projects p ON p.id = r.project_id WHERE r.${column} = $1`,
      [value],
    );
    const row = rows[0];
    if (!row) return null;
    const key = principalKey("robot", row.id);
    const account: Account = {
      kind: "robot",
      key,
      id: row.id,
      name: `${this.#robotPrefix}${row.login_name}`,
      sysadmin: false,
      secretHash: row.secret_hash,
      credentialVersion: row.credential_version,
      disabled: row.disabled,
      expiresAt: row.expires_at?.getTime() ?? null,
      permissions: row.permissions,
    };
    const scopes = [cacheScopes.principal(key)];
    // Removing a project removes its robots.
    if (row.project !== null) scopes.push(cacheScopes.project(row.project), cacheScopes.rights(row.project));
    return { value: account, scopes };
  }
}

export function refByKey(key: string): string {
  return key;
}

export function refByLogin(login: string): string {
  return `login:${login}`;
}

interface UserRow {
  id: number;
  username: string;
  sysadmin: boolean;
  password_hash: string;
  credential_version: number;
}

interface RobotRow {
  id: number;
  login_name: string;
  secret_hash: string;
  credential_version: number;
  disabled: boolean;
  expires_at: Date | null;
  permissions: RobotPermission[];
  project: string | null;
}

/** Rows of other registries. Secrets are sealed with the row's address, so that a changed address cannot carry a credential elsewhere. */
import type { Encryption } from "../auth/encryption.ts";
import { ListSql } from "../auth/list-query.ts";
import type { Columns, Listed, ListQuery } from "../auth/list-query.ts";
import { SlipwayError } from "../core/errors.ts";
import { FOREIGN_KEY_VIOLATION, RESTRICT_VIOLATION, sqlState, UNIQUE_VIOLATION } from "../db/pool.ts";
import type { Queryable } from "../db/pool.ts";
import type { UpstreamProject } from "./plan/naming.ts";

export interface Route {
  readonly pattern: string;
  readonly priority: number;
}

export type RegistryOrigin = "rest" | "config" | "default";

export interface RegistryDraft {
  readonly name: string;
  readonly type: string;
  readonly url: string;
  readonly mirrors: readonly string[];
  readonly hosts: readonly string[];
  readonly credentialType: string;
  readonly accessKey: string;
  readonly accessSecret: string;
  readonly caCertificate: string;
  readonly insecure: boolean;
  readonly enabled: boolean;
  readonly priority: number;
  readonly isDefault: boolean;
  readonly routes: readonly Route[];
  /** Put before every path that does not begin with it. */
  readonly prefix: string;
  readonly projects: readonly UpstreamProject[];
  readonly description: string;
  readonly origin: RegistryOrigin;
}

export interface Registry extends RegistryDraft {
  readonly id: number;
  readonly status: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  /** Another one after each change of the row. */
  readonly version: string;
}

export const EMPTY_REGISTRY: Omit<RegistryDraft, "name" | "url"> = {
  type: "docker-registry",
  mirrors: [],
  hosts: [],
  credentialType: "",
  accessKey: "",
  accessSecret: "",
  caCertificate: "",
  insecure: false,
  enabled: true,
  priority: 100,
  isDefault: false,
  routes: [],
  prefix: "",
  projects: [],
  description: "",
  origin: "rest",
};

interface RegistryRow {
  id: number;
  name: string;
  type: string;
  url: string;
  mirrors: string[];
  hosts: string[];
  credential_type: string;
  access_key: string;
  access_secret: string;
  ca_certificate: string;
  insecure: boolean;
  enabled: boolean;
  priority: number;
  is_default: boolean;
  routes: Route[];
  prefix: string;
  projects: UpstreamProject[];
  description: string;
  status: string;
  origin: RegistryOrigin;
  created_at: Date;
  updated_at: Date;
  version: string;
}

const FIELDS = "*, xmin::text AS version";

const COLUMNS: Columns = {
  id: { sql: "id", type: "number" },
  name: { sql: "name", type: "text" },
  type: { sql: "type", type: "text" },
  url: { sql: "url", type: "text" },
  description: { sql: "description", type: "text" },
  status: { sql: "status", type: "text" },
  enabled: { sql: "enabled", type: "boolean" },
  priority: { sql: "priority", type: "number" },
  creation_time: { sql: "created_at", type: "time" },
  update_time: { sql: "updated_at", type: "time" },
};
export const REGISTRY_LIST_KEYS = Object.keys(COLUMNS);

export interface Announcer {
  publish(scopes: readonly string[]): Promise<void>;
}

/** Whoever keeps a picture of the upstreams listens to this scope. */
export const REGISTRIES_SCOPE = "registries";

export class RegistryStore {
  readonly #db: Queryable;
  readonly #encryption: Encryption;
  readonly #announcer: Announcer;

  constructor(db: Queryable, encryption: Encryption, announcer: Announcer) {
    this.#db = db;
    this.#encryption = encryption;
    this.#announcer = announcer;
  }

  async find(id: number): Promise<Registry | null> {
    const { rows } = await this.#db.query<RegistryRow>(`SELECT ${FIELDS} FROM registries WHERE id = $1`, [id]);
    return rows[0] ? this.#read(rows[0]) : null;
  }

  async findMany(ids: readonly number[]): Promise<Registry[]> {
    if (ids.length === 0) return [];
    const { rows } = await this.#db.query<RegistryRow>(`SELECT ${FIELDS} FROM registries WHERE id = ANY ($1)`, [ids]);
    return rows.map((row) => this.#read(row));
  }

  async findByName(name: string): Promise<Registry | null> {
    const { rows } = await this.#db.query<RegistryRow>(`SELECT ${FIELDS} FROM registries WHERE name = $1`, [name]);
    return rows[0] ? this.#read(rows[0]) : null;
  }

  /** All of them, in the order in which they are preferred; there are tens, not thousands. */
  async listAll(limit = 1000): Promise<Registry[]> {
    const { rows } = await this.#db.query<RegistryRow>(`SELECT ${FIELDS} FROM registries ORDER BY priority, id LIMIT $1`, [limit]);
    return rows.map((row) => this.#read(row));
  }

  async list(query: ListQuery, nameContains?: string): Promise<Listed<Registry>> {
    const sql = new ListSql(COLUMNS).filter(query.filters);
    if (nameContains !== undefined) sql.filter([{ key: "name", kind: "contains", value: nameContains }]);
    const where = sql.whereSql;
    const count = await this.#db.query<{ total: number }>(`SELECT count(*) AS total FROM registries ${where}`, sql.values);
    const order = sql.orderSql(query.sort, "name");
    const page = sql.pageSql(query);
    const { rows } = await this.#db.query<RegistryRow>(`SELECT ${FIELDS} FROM registries ${where} ${order} ${page}`, sql.values);
    return { rows: rows.map((row) => this.#read(row)), total: count.rows[0]?.total ?? 0 };
  }

  async save(draft: RegistryDraft): Promise<Registry> {
    const columns = this.#columns(draft);
    const names = Object.keys(columns);
    try {
      const { rows } = await this.#db.query<RegistryRow>(
        `INSERT INTO registries (${names.join(", ")}) VALUES (${names.map((_, index) => `$${index + 1}`).join(", ")}) RETURNING ${FIELDS}`,
        Object.values(columns),
      );
      await this.#announcer.publish([REGISTRIES_SCOPE]);
      return this.#read(rows[0] as RegistryRow);
    } catch (error) {
      if (sqlState(error) === UNIQUE_VIOLATION) throw new SlipwayError("CONFLICT", { message: `registry ${draft.name} already exists` });
      throw error;
    }
  }

  /** Replaces the whole row, or null when it is no longer of the version that the draft was made from. */
  async update(id: number, draft: RegistryDraft, version: string): Promise<Registry | null> {
    const columns = this.#columns(draft);
    const sets = Object.keys(columns).map((name, index) => `${name} = $${index + 3}`);
    try {
      const { rows } = await this.#db.query<RegistryRow>(
        `UPDATE registries SET ${sets.join(", ")}, updated_at = now() WHERE id = $1 AND xmin = $2::xid RETURNING ${FIELDS}`,
        [id, version, ...Object.values(columns)],
      );
      if (!rows[0]) return null;
      await this.#announcer.publish([REGISTRIES_SCOPE]);
      return this.#read(rows[0]);
    } catch (error) {
      if (sqlState(error) === UNIQUE_VIOLATION) throw new SlipwayError("CONFLICT", { message: `registry ${draft.name} already exists` });
      throw error;
    }
  }

  /** PRECONDITION_FAILED while a policy or a project still uses it. */
  async remove(id: number): Promise<boolean> {
    try {
      const { rowCount } = await this.#db.query("DELETE FROM registries WHERE id = $1", [id]);
      if (rowCount === 1) await this.#announcer.publish([REGISTRIES_SCOPE]);
      return rowCount === 1;
    } catch (error) {
      // Which of the two it is depends on the version of Postgres.
      if (![FOREIGN_KEY_VIOLATION, RESTRICT_VIOLATION].includes(sqlState(error) ?? "")) throw error;
      const user = (await this.#isReplicated(id)) ? "replication policies" : "proxy cache project";
      throw new SlipwayError("PRECONDITION_FAILED", { message: `the registry ${id} is referenced by ${user}, cannot delete it` });
    }
  }

  async saveStatus(id: number, status: "healthy" | "unhealthy"): Promise<void> {
    await this.#db.query("UPDATE registries SET status = $2 WHERE id = $1 AND status <> $2", [id, status]);
  }

  async #isReplicated(id: number): Promise<boolean> {
    const { rowCount } = await this.#db.query(
      `SELECT 1 FROM replication_policies WHERE src_registry_id = $1
       UNION ALL SELECT 1 FROM replication_destinations WHERE registry_id = $1 LIMIT 1`,
      [id],
    );
    return rowCount !== 0;
  }

  #columns(draft: RegistryDraft): Record<string, unknown> {
    return {
      name: draft.name,
      type: draft.type,
      url: draft.url,
      mirrors: JSON.stringify(draft.mirrors),
      hosts: JSON.stringify(draft.hosts),
      credential_type: draft.credentialType,
      access_key: draft.accessKey,
      access_secret: draft.accessSecret === "" ? "" : this.#encryption.encrypt(draft.accessSecret, secretContext(draft.url)),
      ca_certificate: draft.caCertificate,
      insecure: draft.insecure,
      enabled: draft.enabled,
      priority: draft.priority,
      is_default: draft.isDefault,
      routes: JSON.stringify(draft.routes),
      prefix: draft.prefix,
      projects: JSON.stringify(draft.projects),
      description: draft.description,
      origin: draft.origin,
    };
  }

  #read(row: RegistryRow): Registry {
    return {
      id: row.id,
      name: row.name,
      type: row.type,
      url: row.url,
      mirrors: row.mirrors,
      hosts: row.hosts,
      credentialType: row.credential_type,
      accessKey: row.access_key,
      accessSecret: row.access_secret === "" ? "" : this.#encryption.decrypt(row.access_secret, secretContext(row.url)),
      caCertificate: row.ca_certificate,
      insecure: row.insecure,
      enabled: row.enabled,
      priority: row.priority,
      isDefault: row.is_default,
      routes: row.routes,
      prefix: row.prefix,
      projects: row.projects,
      description: row.description,
      status: row.status,
      origin: row.origin,
      createdAt: row.created_at,
      updatedAt: row.updated_at,
      version: row.version,
    };
  }
}

function secretContext(url: string): string {
  return `registry-secret:${new URL(url).origin}`;
}

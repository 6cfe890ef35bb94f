/** Rows of other registries. Secrets are sealed with the row's address, so that a changed address cannot carry a credential elsewhere. */
import type { Encryption } from "../auth/encryption.ts";
import { containsPattern } from "../catalog/like.ts";
import { SlipwayError } from "../core/errors.ts";
import { FOREIGN_KEY_VIOLATION, sqlState, UNIQUE_VIOLATION } from "../db/pool.ts";
import type { Queryable } from "../db/pool.ts";

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
  readonly description: string;
  readonly origin: RegistryOrigin;
}

export interface Registry extends RegistryDraft {
  readonly id: number;
  readonly status: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
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
  description: string;
  status: string;
  origin: RegistryOrigin;
  created_at: Date;
  updated_at: Date;
}

export interface RegistryFilter {
  readonly q?: string;
  readonly name?: string;
  readonly type?: string;
}

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
    const { rows } = await this.#db.query<RegistryRow>("SELECT * FROM registries WHERE id = $1", [id]);
    return rows[0] ? this.#read(rows[0]) : null;
  }

  async findByName(name: string): Promise<Registry | null> {
    const { rows } = await this.#db.query<RegistryRow>("SELECT * FROM registries WHERE name = $1", [name]);
    return rows[0] ? this.#read(rows[0]) : null;
  }

  /** All of them, in the order in which they are preferred; there are tens, not thousands. */
  async listAll(limit = 1000): Promise<Registry[]> {
    const { rows } = await this.#db.query<RegistryRow>("SELECT * FROM registries ORDER BY priority, id LIMIT $1", [limit]);
    return rows.map((row) => this.#read(row));
  }

  async list(filter: RegistryFilter, page: { limit: number; offset: number }): Promise<{ items: Registry[]; total: number }> {
    const values = [filter.q === undefined ? null : containsPattern(filter.q), filter.name ?? null, filter.type ?? null];
    const where = "($1::text IS NULL OR name LIKE $1) AND ($2::text IS NULL OR name = $2) AND ($3::text IS NULL OR type = $3)";
    const [rows, count] = await Promise.all([
      this.#db.query<RegistryRow>(`SELECT * FROM registries WHERE ${where} ORDER BY name LIMIT $4 OFFSET $5`, [
        ...values,
        page.limit,
        page.offset,
      ]),
      this.#db.query<{ total: number }>(`SELECT count(*) AS total FROM registries WHERE ${where}`, values),
    ]);
    return { items: rows.rows.map((row) => this.#read(row)), total: count.rows[0]?.total ?? 0 };
  }

  async save(draft: RegistryDraft): Promise<Registry> {
    const columns = this.#columns(draft);
    const names = Object.keys(columns);
    try {
      const { rows } = await this.#db.query<RegistryRow>(
        `INSERT INTO registries (${names.join(", ")}) VALUES (${names.map((_, index) => `$${index + 1}`).join(", ")}) RETURNING *`,
        Object.values(columns),
      );
      await this.#announcer.publish([REGISTRIES_SCOPE]);
      return this.#read(rows[0] as RegistryRow);
    } catch (error) {
      if (sqlState(error) === UNIQUE_VIOLATION)
        throw new SlipwayError("CONFLICT", { message: `the registry ${draft.name} already exists` });
      throw error;
    }
  }

  /** Replaces the whole row; NOT_FOUND when it is gone. */
  async update(id: number, draft: RegistryDraft): Promise<Registry> {
    const columns = this.#columns(draft);
    const sets = Object.keys(columns).map((name, index) => `${name} = $${index + 2}`);
    try {
      const { rows } = await this.#db.query<RegistryRow>(
        `UPDATE registries SET ${sets.join(", ")}, updated_at = now() WHERE id = $1 RETURNING *`,
        [id, ...Object.values(columns)],
      );
      if (!rows[0]) throw new SlipwayError("NOT_FOUND", { message: `registry ${id} not found` });
      await this.#announcer.publish([REGISTRIES_SCOPE]);
      return this.#read(rows[0]);
    } catch (error) {
      if (sqlState(error) === UNIQUE_VIOLATION)
        throw new SlipwayError("CONFLICT", { message: `the registry ${draft.name} already exists` });
      throw error;
    }
  }

  /** PRECONDITION_FAILED while a project still uses it. */
  async remove(id: number): Promise<boolean> {
    try {
      const { rowCount } = await this.#db.query("DELETE FROM registries WHERE id = $1", [id]);
      if (rowCount === 1) await this.#announcer.publish([REGISTRIES_SCOPE]);
      return rowCount === 1;
    } catch (error) {
      if (sqlState(error) !== FOREIGN_KEY_VIOLATION) throw error;
      throw new SlipwayError("PRECONDITION_FAILED", { message: `registry ${id} is used by a proxy project` });
    }
  }

  async saveStatus(id: number, status: "healthy" | "unhealthy"): Promise<void> {
    await this.#db.query("UPDATE registries SET status = $2 WHERE id = $1 AND status <> $2", [id, status]);
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
      description: row.description,
      status: row.status,
      origin: row.origin,
      createdAt: row.created_at,
      updatedAt: row.updated_at,
    };
  }
}

function secretContext(url: string): string {
  return `registry-secret:${new URL(url).origin}`;
}

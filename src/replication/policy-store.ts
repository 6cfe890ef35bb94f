/** Rows of replication policies with their destinations. */
import { ListSql } from "../auth/list-query.ts";
import type { Columns, Listed, ListQuery } from "../auth/list-query.ts";
import { SlipwayError } from "../core/errors.ts";
import { sqlState, UNIQUE_VIOLATION } from "../db/pool.ts";
import type { Database, Queryable } from "../db/pool.ts";
import { LOCAL_REGISTRY_ID } from "./plan/policy.ts";
import type { Overlap, Policy, PolicyFilter, PolicyTrigger } from "./plan/policy.ts";

export interface DestinationDraft {
  readonly registryId: number;
  /** Null: as the policy says. */
  readonly namespace: string | null;
  readonly replaceCount: number | null;
}

/** A policy whose fields have been checked. */
export interface PolicyDraft extends Omit<Policy, "id" | "creator" | "destinations" | "createdAt" | "updatedAt"> {
  readonly destinations: readonly DestinationDraft[];
}

/** The policy as it will be, from how it is; null when there is none. Pure: it may be called again. */
export type PolicyChange = (existing: Policy | null) => PolicyDraft;

interface DestinationRow {
  registryId: number | null;
  namespace: string | null;
  replaceCount: number | null;
}

interface PolicyRow {
  id: number;
  name: string;
  description: string;
  creator: string;
  src_registry_id: number | null;
  dest_namespace: string;
  dest_namespace_replace_count: number;
  trigger_type: PolicyTrigger["type"] | null;
  cron: string;
  timezone: string;
  filters: PolicyFilter[];
  deletion: boolean;
  override: boolean;
  enabled: boolean;
  speed_kb: number;
  copy_by_chunk: boolean;
  single_active_replication: boolean;
  overlap: Overlap;
  mirror: boolean;
  max_deletions: number;
  max_deletion_percent: number;
  created_at: Date;
  updated_at: Date;
  destinations: DestinationRow[] | null;
}

const SELECT = `SELECT p.*,
    (SELECT jsonb_agg(jsonb_build_object('registryId', d.registry_id, 'namespace', d.namespace, 'replaceCount', d.replace_count) ORDER BY d.position)
       FROM replication_destinations d WHERE d.policy_id = p.id) AS destinations
  FROM replication_policies p`;

const COLUMNS: Columns = {
  id: { sql: "p.id", type: "number" },
  name: { sql: "p.name", type: "text" },
  description: { sql: "p.description", type: "text" },
  creator: { sql: "p.creator", type: "text" },
  src_registry_id: { sql: "coalesce(p.src_registry_id, 0)", type: "number" },
  dest_registry_id: {
    sql: "(SELECT coalesce(d.registry_id, 0) FROM replication_destinations d WHERE d.policy_id = p.id AND d.position = 0)",
    type: "number",
  },
  dest_namespace: { sql: "p.dest_namespace", type: "text" },
  dest_namespace_replace_count: { sql: "p.dest_namespace_replace_count", type: "number" },
  override: { sql: "p.override", type: "boolean" },
  enabled: { sql: "p.enabled", type: "boolean" },
  // Clients look for words in the text that Harbor keeps.
  trigger: {
    sql: `CASE WHEN p.trigger_type IS NULL THEN '' ELSE '{"type":"' || p.trigger_type || '","trigger_settings":{"cron":"' || p.cron || '"}}' END`,
    type: "text",
  },
  filters: { sql: `replace(replace(p.filters::text, '": ', '":'), ', "', ',"')`, type: "text" },
  replicate_deletion: { sql: "p.deletion", type: "boolean" },
  creation_time: { sql: "p.created_at", type: "time" },
  update_time: { sql: "p.updated_at", type: "time" },
  speed_kb: { sql: "p.speed_kb", type: "number" },
  copy_by_chunk: { sql: "p.copy_by_chunk", type: "boolean" },
  single_active_replication: { sql: "p.single_active_replication", type: "boolean" },
};
export const POLICY_LIST_KEYS = Object.keys(COLUMNS);

export class PolicyStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async find(id: number): Promise<Policy | null> {
    return first(await this.#select(this.#database, "WHERE p.id = $1", [id]));
  }

  async findMany(ids: readonly number[]): Promise<Map<number, Policy>> {
    const policies = await this.#select(this.#database, "WHERE p.id = ANY ($1)", [ids]);
    return new Map(policies.map((policy) => [policy.id, policy]));
  }

  async list(query: ListQuery): Promise<Listed<Policy>> {
    const sql = new ListSql(COLUMNS).filter(query.filters);
    const where = sql.whereSql;
    const count = await this.#database.query<{ total: number }>(
      `SELECT count(*) AS total FROM replication_policies p ${where}`,
      sql.values,
    );
    const order = sql.orderSql(query.sort, query.sort.length > 0 ? "p.id" : "p.created_at DESC, p.id DESC");
    const page = sql.pageSql(query);
    return { rows: await this.#select(this.#database, `${where} ${order} ${page}`, sql.values), total: count.rows[0]?.total ?? 0 };
  }

  /** Those that changes of local content start. */
  async listEventPolicies(): Promise<Policy[]> {
    return await this.#select(
      this.#database,
      "WHERE p.trigger_type = 'event_based' AND p.enabled AND p.src_registry_id IS NULL ORDER BY p.id",
    );
  }

  /** Those that have a schedule, also the disabled ones, whose schedule is paused. */
  async listScheduled(): Promise<Policy[]> {
    return await this.#select(this.#database, "WHERE p.trigger_type = 'scheduled' ORDER BY p.id");
  }

  async create(draft: PolicyDraft, creator: string): Promise<Policy> {
    return await this.#translating(draft.name, async (tx) => {
      await requireRegistries(tx, draft);
      const columns = { ...columnsOf(draft), creator };
      const names = Object.keys(columns);
      const { rows } = await tx.query<{ id: number }>(
        `INSERT INTO replication_policies (${names.join(", ")}) VALUES (${names.map((_, index) => `$${index + 1}`).join(", ")}) RETURNING id`,
        Object.values(columns),
      );
      return await this.#withDestinations(tx, rows[0]?.id ?? 0, draft);
    });
  }

  /** Two changes that meet are made one after the other. NOT_FOUND when there is no such policy. */
  async update(id: number, change: PolicyChange): Promise<Policy> {
    let name = "";
    return await this.#translating(
      () => name,
      async (tx) => {
        await tx.query("SELECT 1 FROM replication_policies WHERE id = $1 FOR UPDATE", [id]);
        const existing = first(await this.#select(tx, "WHERE p.id = $1", [id]));
        const draft = change(existing);
        name = draft.name;
        await requireRegistries(tx, draft);
        if (existing === null) throw policyNotFound(id);
        const columns = columnsOf(draft);
        const sets = Object.keys(columns).map((column, index) => `${column} = $${index + 2}`);
        await tx.query(`UPDATE replication_policies SET ${sets.join(", ")}, updated_at = clock_timestamp() WHERE id = $1`, [
          id,
          ...Object.values(columns),
        ]);
        await tx.query("DELETE FROM replication_destinations WHERE policy_id = $1", [id]);
        return await this.#withDestinations(tx, id, draft);
      },
    );
  }

  /** PRECONDITION_FAILED while a run of it has not ended, NOT_FOUND when there is no such policy. */
  async remove(id: number): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const { rowCount } = await tx.query("SELECT 1 FROM replication_policies WHERE id = $1 FOR UPDATE", [id]);
      if (rowCount !== 1) throw policyNotFound(id);
      const open = await tx.query(
        `SELECT 1 FROM replication_runs r JOIN executions e ON e.id = r.execution_id WHERE r.policy_id = $1 AND e.ended_at IS NULL LIMIT 1`,
        [id],
      );
      if (open.rowCount !== 0) {
        throw new SlipwayError("PRECONDITION_FAILED", {
          message: "contains executions that aren't in final status, stop the execution first",
        });
      }
      await tx.query("DELETE FROM replication_policies WHERE id = $1", [id]);
    });
  }

  async #select(db: Queryable, rest: string, values: readonly unknown[] = []): Promise<Policy[]> {
    return (await db.query<PolicyRow>(`${SELECT} ${rest}`, values)).rows.map(toPolicy);
  }

  async #withDestinations(tx: Queryable, id: number, draft: PolicyDraft): Promise<Policy> {
    const { destinations } = draft;
    await tx.query(
      `INSERT INTO replication_destinations (policy_id, position, registry_id, namespace, replace_count)
       SELECT $1, d.position - 1, nullif(d.registry, 0), d.namespace, d.count
         FROM unnest($2::bigint[], $3::text[], $4::smallint[]) WITH ORDINALITY AS d (registry, namespace, count, position)`,
      [
        id,
        destinations.map(({ registryId }) => registryId),
        destinations.map(({ namespace }) => namespace),
        destinations.map(({ replaceCount }) => replaceCount),
      ],
    );
    const policy = first(await this.#select(tx, "WHERE p.id = $1", [id]));
    if (policy === null) throw policyNotFound(id);
    return policy;
  }

  async #translating<T>(name: string | (() => string), work: (tx: Queryable) => Promise<T>): Promise<T> {
    try {
      return await this.#database.transaction(work);
    } catch (error) {
      if (sqlState(error) !== UNIQUE_VIOLATION) throw error;
      const given = typeof name === "string" ? name : name();
      throw new SlipwayError("CONFLICT", { message: `replication policy ${given} already exists` });
    }
  }
}

export function policyNotFound(id: number): SlipwayError {
  return new SlipwayError("NOT_FOUND", { message: `replication policy ${id} not found` });
}

/** Locked, so that none is removed between here and the foreign key. */
async function requireRegistries(tx: Queryable, draft: PolicyDraft): Promise<void> {
  const wanted = [draft.sourceRegistryId, ...draft.destinations.map(({ registryId }) => registryId)].filter(
    (id) => id !== LOCAL_REGISTRY_ID,
  );
  const { rows } = await tx.query<{ id: number }>("SELECT id FROM registries WHERE id = ANY ($1) ORDER BY id FOR KEY SHARE", [wanted]);
  const known = new Set(rows.map(({ id }) => id));
  const missing = wanted.find((id) => !known.has(id));
  if (missing !== undefined) throw new SlipwayError("NOT_FOUND", { message: `registry ${missing} not found` });
}

function columnsOf(draft: PolicyDraft): Record<string, unknown> {
  return {
    name: draft.name,
    description: draft.description,
    src_registry_id: draft.sourceRegistryId === LOCAL_REGISTRY_ID ? null : draft.sourceRegistryId,
    dest_namespace: draft.destNamespace,
    dest_namespace_replace_count: draft.destNamespaceReplaceCount,
    trigger_type: draft.trigger?.type ?? null,
    cron: draft.trigger?.type === "scheduled" ? draft.trigger.cron : "",
    timezone: draft.timezone,
    filters: JSON.stringify(draft.filters),
    deletion: draft.deletion,
    override: draft.override,
    enabled: draft.enabled,
    speed_kb: draft.speedKb,
    copy_by_chunk: draft.copyByChunk,
    single_active_replication: draft.singleActive,
    overlap: draft.overlap,
    mirror: draft.mirror,
    max_deletions: draft.maxDeletions,
    max_deletion_percent: draft.maxDeletionPercent,
  };
}

function toPolicy(row: PolicyRow): Policy {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    creator: row.creator,
    sourceRegistryId: row.src_registry_id ?? LOCAL_REGISTRY_ID,
    destinations: (row.destinations ?? []).map(({ registryId, namespace, replaceCount }, position) => ({
      position,
      registryId: registryId ?? LOCAL_REGISTRY_ID,
      namespace: namespace ?? row.dest_namespace,
      replaceCount: replaceCount ?? row.dest_namespace_replace_count,
      ownNamespace: namespace,
      ownReplaceCount: replaceCount,
    })),
    destNamespace: row.dest_namespace,
    destNamespaceReplaceCount: row.dest_namespace_replace_count,
    trigger: toTrigger(row),
    timezone: row.timezone,
    filters: row.filters,
    deletion: row.deletion,
    override: row.override,
    enabled: row.enabled,
    speedKb: row.speed_kb,
    copyByChunk: row.copy_by_chunk,
    singleActive: row.single_active_replication,
    overlap: row.overlap,
    mirror: row.mirror,
    maxDeletions: row.max_deletions,
    maxDeletionPercent: row.max_deletion_percent,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

function toTrigger(row: PolicyRow): PolicyTrigger | null {
  switch (row.trigger_type) {
    case null:
      return null;
    case "scheduled":
      return { type: "scheduled", cron: row.cron, timezone: row.timezone };
    default:
      return { type: row.trigger_type };
  }
}

function first<T>(rows: readonly T[]): T | null {
  return rows[0] ?? null;
}

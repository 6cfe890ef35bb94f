/** Items in Postgres: planned together with their tasks, reported in batches, read by pages. */
import type { Database, Queryable } from "../db/pool.ts";
import type { ItemAction, ItemReason, ItemStatus, TaskAttrs, TaskDraft } from "./plan/item.ts";

export interface Item {
  readonly id: number;
  readonly executionId: number;
  readonly taskId: number;
  readonly action: ItemAction;
  readonly srcRepository: string;
  readonly tag: string | null;
  readonly digest: string | null;
  readonly destRepository: string;
  readonly status: ItemStatus;
  readonly reason: ItemReason;
  readonly message: string;
  readonly bytesCopied: number;
  readonly blobsCopied: number;
  readonly blobsMounted: number;
  readonly blobsSkipped: number;
  readonly attempts: number;
  readonly updatedAt: Date;
}

/** The state of an item after an attempt; figures are those of all attempts. */
export interface ItemReport {
  readonly id: number;
  readonly status: ItemStatus;
  readonly reason: ItemReason;
  readonly message: string;
  readonly digest: string | null;
  readonly bytesCopied: number;
  readonly blobsCopied: number;
  readonly blobsMounted: number;
  readonly blobsSkipped: number;
  readonly attempts: number;
}

export interface PlannedTask {
  readonly id: number;
  readonly key: string;
}

export interface WorkTask {
  readonly id: number;
  readonly key: string;
  readonly attrs: TaskAttrs;
}

const LONGEST_MESSAGE = 500;

export class ItemStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Tasks with their items, in one transaction; a task that is there already keeps what it has, so that a planning step may be repeated.
   * Nothing is added once planning is complete or the execution has ended. The ids come back in the order of the drafts that exist.
   */
  async plan(executionId: number, drafts: readonly TaskDraft[]): Promise<PlannedTask[]> {
    return await this.#database.transaction((tx) => planTasks(tx, executionId, drafts));
  }

  async tasks(taskIds: readonly number[]): Promise<WorkTask[]> {
    const { rows } = await this.#database.query<{ id: number; key: string; extra_attrs: TaskAttrs }>(
      "SELECT id, key, extra_attrs FROM tasks WHERE id = ANY ($1) ORDER BY id",
      [taskIds],
    );
    return rows.map((row) => ({ id: row.id, key: row.key, attrs: row.extra_attrs }));
  }

  /** What is still to be done of some tasks. */
  async openItems(taskIds: readonly number[]): Promise<Item[]> {
    const { rows } = await this.#database.query<ItemRow>(
      "SELECT * FROM replication_items WHERE task_id = ANY ($1) AND status = 'Pending' ORDER BY task_id, id",
      [taskIds],
    );
    return rows.map(toItem);
  }

  async report(reports: readonly ItemReport[]): Promise<void> {
    if (reports.length === 0) return;
    await this.#database.query(
      `UPDATE replication_items i
          SET status = r.status, reason = r.reason, message = left(r.message, ${LONGEST_MESSAGE}), digest = coalesce(r.digest, i.digest),
              bytes_copied = r."bytesCopied", blobs_copied = r."blobsCopied", blobs_mounted = r."blobsMounted",
              blobs_skipped = r."blobsSkipped", attempts = r.attempts, updated_at = now()
         FROM jsonb_to_recordset($1::jsonb) AS r (id bigint, status text, reason text, message text, digest text, "bytesCopied" bigint,
              "blobsCopied" integer, "blobsMounted" integer, "blobsSkipped" integer, attempts integer)
        WHERE i.id = r.id`,
      [JSON.stringify(reports)],
    );
  }

  /** How the items of tasks stand, by task. */
  async tally(taskIds: readonly number[]): Promise<Map<number, { open: number; failed: number; done: number }>> {
    const { rows } = await this.#database.query<{ task_id: number; open: number; failed: number; done: number }>(
      `SELECT task_id, count(*) FILTER (WHERE status = 'Pending') AS open, count(*) FILTER (WHERE status IN ('Error', 'Stopped')) AS failed,
              count(*) FILTER (WHERE status IN ('Success', 'Skipped')) AS done
         FROM replication_items WHERE task_id = ANY ($1) GROUP BY task_id`,
      [taskIds],
    );
    return new Map(rows.map(({ task_id: task, open, failed, done }) => [task, { open, failed, done }]));
  }

  /** Ends what is open, when its run was ended. */
  async stopOpen(executionId: number, message: string): Promise<void> {
    await this.#database.query(
      `UPDATE replication_items SET status = 'Stopped', reason = 'stopped', message = $2, updated_at = now()
        WHERE execution_id = $1 AND status = 'Pending'`,
      [executionId, message],
    );
  }

  async page(query: ItemQuery): Promise<{ items: Item[]; total: number }> {
    const where = `execution_id = $1 AND ($2::bigint IS NULL OR task_id = $2) AND ($3::text[] IS NULL OR status = ANY ($3))`;
    const values = [query.executionId, query.taskId ?? null, query.statuses ?? null];
    const total = await this.#database.query<{ count: number }>(`SELECT count(*) AS count FROM replication_items WHERE ${where}`, values);
    const { rows } = await this.#database.query<ItemRow>(`SELECT * FROM replication_items WHERE ${where} ORDER BY id LIMIT $4 OFFSET $5`, [
      ...values,
      query.limit,
      query.offset,
    ]);
    return { items: rows.map(toItem), total: total.rows[0]?.count ?? 0 };
  }

  /** Items that failed or were stopped, in order, after a given one: what a retry plans. */
  async unfinished(executionId: number, after: number, limit: number): Promise<(Item & { readonly task: TaskAttrs })[]> {
    const { rows } = await this.#database.query<ItemRow & { extra_attrs: TaskAttrs }>(
      `SELECT i.*, t.extra_attrs FROM replication_items i JOIN tasks t ON t.id = i.task_id
        WHERE i.execution_id = $1 AND i.id > $2 AND i.status IN ('Pending', 'Error', 'Stopped') ORDER BY i.id LIMIT $3`,
      [executionId, after, limit],
    );
    return rows.map((row) => ({ ...toItem(row), task: row.extra_attrs }));
  }
}

export interface ItemQuery {
  readonly executionId: number;
  readonly taskId?: number;
  readonly statuses?: readonly ItemStatus[];
  readonly limit: number;
  readonly offset: number;
}

interface ItemRow {
  id: number;
  execution_id: number;
  task_id: number;
  action: ItemAction;
  src_repository: string;
  tag: string | null;
  digest: string | null;
  dest_repository: string;
  status: ItemStatus;
  reason: ItemReason;
  message: string;
  bytes_copied: number;
  blobs_copied: number;
  blobs_mounted: number;
  blobs_skipped: number;
  attempts: number;
  updated_at: Date;
}

/** `ItemStore.plan` inside a transaction that has more to do. */
export async function planTasks(tx: Queryable, executionId: number, drafts: readonly TaskDraft[]): Promise<PlannedTask[]> {
  if (drafts.length === 0) return [];
  // A stop waits until these can be seen, or is seen here: otherwise they would stay open under an execution that is over.
  await tx.query("SELECT 1 FROM executions WHERE id = $1 FOR SHARE", [executionId]);
  const added = await addTasks(tx, executionId, drafts);
  await addItems(tx, executionId, { drafts, added });
  const known = await tx.query<PlannedTask>("SELECT id, key FROM tasks WHERE execution_id = $1 AND key = ANY ($2)", [
    executionId,
    drafts.map((draft) => draft.key),
  ]);
  const ids = new Map(known.rows.map((row) => [row.key, row.id]));
  return drafts.flatMap(({ key }) => {
    const id = ids.get(key);
    return id === undefined ? [] : [{ id, key }];
  });
}

async function addTasks(tx: Queryable, executionId: number, drafts: readonly TaskDraft[]): Promise<PlannedTask[]> {
  const { rows } = await tx.query<PlannedTask>(
    `INSERT INTO tasks (execution_id, key, extra_attrs, status, status_message, started_at, ended_at)
     SELECT e.id, t.key, t.attrs, coalesce(t.status, 'Pending'), coalesce(t.message, ''),
            CASE WHEN t.status IS NOT NULL THEN now() END, CASE WHEN t.status IS NOT NULL THEN now() END
       FROM executions e,
            ROWS FROM (jsonb_to_recordset($2::jsonb) AS (key text, attrs jsonb, status text, message text))
              WITH ORDINALITY AS t (key, attrs, status, message, position)
      WHERE e.id = $1 AND e.planned_at IS NULL AND e.ended_at IS NULL
      ORDER BY t.position
     ON CONFLICT (execution_id, key) DO NOTHING
     RETURNING id, key`,
    [executionId, JSON.stringify(drafts.map(({ key, attrs, outcome }) => ({ key, attrs, ...outcome })))],
  );
  return rows;
}

async function addItems(
  tx: Queryable,
  executionId: number,
  { drafts, added }: { drafts: readonly TaskDraft[]; added: readonly PlannedTask[] },
): Promise<void> {
  const ids = new Map(added.map((task) => [task.key, task.id]));
  const items = drafts.flatMap((draft) => {
    const task = ids.get(draft.key);
    if (task === undefined) return [];
    const { src_repository: source, dst_repository: target } = draft.attrs;
    return draft.items.map(({ settled, ...item }) => ({ task, source, target, ...item, ...settled }));
  });
  if (items.length === 0) return;
  await tx.query(
    `INSERT INTO replication_items (execution_id, task_id, action, src_repository, tag, digest, dest_repository, status, reason, message)
     SELECT $1, i.task, i.action, i.source, i.tag, i.digest, i.target, coalesce(i.status, 'Pending'), coalesce(i.reason, ''),
            left(coalesce(i.message, ''), ${LONGEST_MESSAGE})
       FROM ROWS FROM (jsonb_to_recordset($2::jsonb) AS (task bigint, action text, source text, tag text, digest text, target text,
                                                         status text, reason text, message text))
            WITH ORDINALITY AS i (task, action, source, tag, digest, target, status, reason, message, position)
      ORDER BY i.position`,
    [executionId, JSON.stringify(items)],
  );
}

function toItem(row: ItemRow): Item {
  return {
    id: row.id,
    executionId: row.execution_id,
    taskId: row.task_id,
    action: row.action,
    srcRepository: row.src_repository,
    tag: row.tag,
    digest: row.digest,
    destRepository: row.dest_repository,
    status: row.status,
    reason: row.reason,
    message: row.message,
    bytesCopied: row.bytes_copied,
    blobsCopied: row.blobs_copied,
    blobsMounted: row.blobs_mounted,
    blobsSkipped: row.blobs_skipped,
    attempts: row.attempts,
    updatedAt: row.updated_at,
  };
}

/**
 * Holds the records of one repository back in the outbox while its rows are rebuilt, so that whatever is removed meanwhile is seen there. A row of
 * the outbox that is not due keeps all later ones of its key; one that was taken along with older rows has let some through, and the
 * rebuild reads again.
 */
import { randomUUID } from "node:crypto";
import type { Database, Queryable } from "../db/pool.ts";
import { FENCE_PAYLOAD } from "./link-records.ts";
import { type NumberedRecord, itemKey } from "./plan/link-state.ts";

/** A rebuild that died lets the records go after this. */
const LEASE_MS = 60_000;
const PAGE = 1_000;

export class RebuildFence {
  readonly #db: Database;
  readonly #repository: string;
  readonly #id: number;
  readonly #claim: string;

  private constructor(db: Database, repository: string, row: { id: number; claim: string }) {
    this.#db = db;
    this.#repository = repository;
    this.#id = row.id;
    this.#claim = row.claim;
  }

  static async raise(db: Database, repository: string): Promise<RebuildFence> {
    const claim = randomUUID();
    const id = await db.transaction(async (tx) => {
      // Whoever removes something holds this lock until its records are visible: they are older than the fence, or behind it.
      await tx.query("SELECT 1 FROM repositories WHERE name = $1 FOR NO KEY UPDATE", [repository]);
      const made = await tx.query<{ id: number }>(
        `INSERT INTO outbox (kind, key, payload, claim, due_at) VALUES ('link-record', $1, $2, $3, now() + $4 * interval '1 ms') RETURNING id`,
        [repository, JSON.stringify(FENCE_PAYLOAD), claim, LEASE_MS],
      );
      return made.rows[0]?.id ?? 0;
    });
    return new RebuildFence(db, repository, { id, claim });
  }

  /** Records that storage may not have yet. To be read before those in storage: on their way they are in both. */
  async *pending(): AsyncGenerator<NumberedRecord> {
    for (let after = 0; ;) {
      const { rows } = await this.#db.query<{ id: number; payload: NumberedRecord }>(
        "SELECT id, payload FROM outbox WHERE kind = 'link-record' AND key = $1 AND id > $2 AND id <> $3 ORDER BY id LIMIT $4",
        [this.#repository, after, this.#id, PAGE],
      );
      for (const { id, payload } of rows) yield { ...payload, seq: id };
      const last = rows.at(-1);
      if (!last || rows.length < PAGE) return;
      after = last.id;
    }
  }

  /**
   * Inside a transaction that has locked the repository: keys of what was changed since the fence was raised, "all" when the repository itself was
   * removed; null when the fence is gone, and nobody can tell.
   */
  async changedSince(tx: Queryable): Promise<ReadonlySet<string> | "all" | null> {
    const held = await tx.query("UPDATE outbox SET due_at = now() + $3 * interval '1 ms' WHERE id = $1 AND claim = $2", [
      this.#id,
      this.#claim,
      LEASE_MS,
    ]);
    if (held.rowCount !== 1) return null;
    const { rows } = await tx.query<{ payload: NumberedRecord }>(
      "SELECT payload FROM outbox WHERE kind = 'link-record' AND key = $1 AND id > $2",
      [this.#repository, this.#id],
    );
    if (rows.some(({ payload }) => payload.target === "repository")) return "all";
    return new Set(rows.map(({ payload }) => itemKey(payload)));
  }

  async lower(): Promise<void> {
    await this.#db.query("DELETE FROM outbox WHERE id = $1 AND claim = $2", [this.#id, this.#claim]);
  }
}

/** The one row that says, for the whole deployment, whether marks of earlier designs are drained. */
import type { Queryable } from "../../db/pool.ts";

export type DrainPhase = "none" | "draining" | "drained";

export interface DrainState {
  readonly phase: DrainPhase;
  readonly passes: number;
  readonly marked: number;
  readonly malformed: number;
  readonly beganAt: Date | null;
  readonly endedAt: Date | null;
}

export class DrainStore {
  readonly #database: Queryable;

  constructor(database: Queryable) {
    this.#database = database;
  }

  async find(): Promise<DrainState> {
    const { rows } = await this.#database.query<DrainState>(
      `SELECT phase, passes, marked, malformed, began_at AS "beganAt", ended_at AS "endedAt" FROM old_mark_drain`,
    );
    return rows[0] ?? { phase: "none", passes: 0, marked: 0, malformed: 0, beganAt: null, endedAt: null };
  }

  async begin(): Promise<void> {
    await this.#database.query("UPDATE old_mark_drain SET phase = 'draining', began_at = now(), ended_at = NULL WHERE phase <> 'draining'");
  }

  /** After each page, so that what was counted survives who counted it. */
  async add({ marked, malformed }: { marked: number; malformed: number }): Promise<void> {
    await this.#database.query("UPDATE old_mark_drain SET marked = marked + $1, malformed = malformed + $2", [marked, malformed]);
  }

  async endPass(empty: boolean): Promise<void> {
    await this.#database.query(
      `UPDATE old_mark_drain SET passes = passes + 1, phase = CASE WHEN $1 THEN 'drained' ELSE phase END,
              ended_at = CASE WHEN $1 THEN now() ELSE ended_at END`,
      [empty],
    );
  }
}

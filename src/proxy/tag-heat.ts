/** How often clients pull a tag lately: counted without a statement per pull, and halved each day. Hot tags are kept current before anybody asks. */
import type { Queryable } from "../db/pool.ts";
import type { Logger } from "../telemetry/logger.ts";
import { BatchedCounts } from "./batched-counts.ts";

export interface HotTag {
  readonly repository: string;
  readonly tag: string;
}

/** Pulls within about a day. */
const HOT = 3;
const NOW = "t.heat * power(0.5, extract(epoch FROM now() - t.heat_at) / 86400)";

export class TagHeat {
  readonly #db: Queryable;
  readonly #counts: BatchedCounts;

  constructor(db: Queryable, logger: Logger) {
    this.#db = db;
    this.#counts = new BatchedCounts({ what: "heat of tags", logger, write: (batch) => this.#add(batch) });
  }

  /** Must cost next to nothing. */
  pulled(repository: string, tag: string): void {
    this.#counts.add(`${repository}:${tag}`);
  }

  /** Hottest first, of those that may be out of date. */
  async listOutdated(limit: number): Promise<HotTag[]> {
    const { rows } = await this.#db.query<HotTag>(
      `SELECT t.repository, t.tag FROM proxy_tags t
       WHERE t.heat > 1 AND t.digest IS NOT NULL AND t.fresh_until < now() AND ${NOW} >= $1 ORDER BY t.heat DESC LIMIT $2`,
      [HOT, limit],
    );
    return rows;
  }

  flush(): Promise<void> {
    return this.#counts.flush();
  }

  close(): Promise<void> {
    return this.#counts.close();
  }

  #add(batch: readonly (readonly [string, number])[]): Promise<unknown> {
    const names = batch.map(([name]) => name);
    const cut = names.map((name) => name.lastIndexOf(":"));
    return this.#db.query(
      `UPDATE proxy_tags t SET heat = ${NOW} + m.count, heat_at = now()
       FROM unnest($1::text[], $2::text[], $3::bigint[]) AS m (repository, tag, count) JOIN projects p ON p.name = split_part(m.repository, '/', 1)
       WHERE t.project_id = p.id AND t.repository = m.repository AND t.tag = m.tag`,
      [
        names.map((name, index) => name.slice(0, cut[index])),
        names.map((name, index) => name.slice((cut[index] ?? 0) + 1)),
        batch.map(([, count]) => count),
      ],
    );
  }
}

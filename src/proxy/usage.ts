/** When cached content was last used, and how often. A hit costs no statement. */
import type { Queryable } from "../db/pool.ts";
import type { Logger } from "../telemetry/logger.ts";
import { BatchedCounts } from "./batched-counts.ts";

export class CacheUsage {
  readonly #counts: BatchedCounts;

  constructor(db: Queryable, logger: Logger) {
    this.#counts = new BatchedCounts({
      what: "use of cached content",
      logger,
      write: (batch) =>
        db.query(
          `INSERT INTO cache_usage (digest, access_count)
           SELECT m.digest, m.count FROM unnest($1::text[], $2::bigint[]) AS m (digest, count) JOIN blobs b ON b.digest = m.digest ORDER BY m.digest
           ON CONFLICT (digest) DO UPDATE SET access_count = cache_usage.access_count + EXCLUDED.access_count, last_access_at = now()`,
          [batch.map(([digest]) => digest), batch.map(([, count]) => count)],
        ),
    });
  }

  get dropped(): number {
    return this.#counts.dropped;
  }

  touch(digest: string): void {
    this.#counts.add(digest);
  }

  flush(): Promise<void> {
    return this.#counts.flush();
  }

  close(): Promise<void> {
    return this.#counts.close();
  }
}

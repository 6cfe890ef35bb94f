/** When cached content was last used, and how often. Collected in memory and written in batches, so that a hit costs no statement. */
import type { Queryable } from "../db/pool.ts";
import type { Logger } from "../telemetry/logger.ts";

const FLUSH_MS = 10_000;
/** More different digests in one interval are counted at the next flush only if they come again. */
const MAX_PENDING = 50_000;
const BATCH = 1_000;

export class CacheUsage {
  readonly #db: Queryable;
  readonly #logger: Logger;
  readonly #timer: NodeJS.Timeout;
  #pending = new Map<string, number>();
  dropped = 0;

  constructor(db: Queryable, logger: Logger) {
    this.#db = db;
    this.#logger = logger;
    this.#timer = setInterval(() => void this.flush(), FLUSH_MS);
    this.#timer.unref();
  }

  touch(digest: string): void {
    const count = this.#pending.get(digest);
    if (count === undefined && this.#pending.size >= MAX_PENDING) this.dropped += 1;
    else this.#pending.set(digest, (count ?? 0) + 1);
  }

  async flush(): Promise<void> {
    const pending = [...this.#pending];
    this.#pending = new Map();
    try {
      for (let start = 0; start < pending.length; start += BATCH) {
        const batch = pending.slice(start, start + BATCH);
        await this.#db.query(
          `INSERT INTO cache_usage (digest, access_count)
           SELECT m.digest, m.count FROM unnest($1::text[], $2::bigint[]) AS m (digest, count) JOIN blobs b ON b.digest = m.digest ORDER BY m.digest
           ON CONFLICT (digest) DO UPDATE SET access_count = cache_usage.access_count + EXCLUDED.access_count, last_access_at = now()`,
          [batch.map(([digest]) => digest), batch.map(([, count]) => count)],
        );
      }
    } catch (error) {
      // Losing a few access times only makes eviction a little less sharp.
      this.#logger.debug({ error, digests: pending.length }, "use of cached content was not written");
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }
}

// A whole catalog with its caches and its own bus, as each process has one.
import { randomUUID } from "node:crypto";
import type { TestContext } from "node:test";
import { InvalidationBus } from "../../src/catalog/cache/invalidation-bus.ts";
import { type Catalog, createCatalog } from "../../src/catalog/open-catalog.ts";
import { systemClock } from "../../src/core/clock.ts";
import { Closer } from "../../src/core/dispose.ts";
import { Database } from "../../src/db/pool.ts";
import { Members } from "../../src/kv/members.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { createLogger } from "../../src/telemetry/logger.ts";
import type { Fixture } from "./support.ts";

export interface ReaderOptions {
  /** Another address of the same database. */
  readonly databaseUrl?: string;
  readonly staleOnDbErrorMs?: number;
}

export async function openReader(t: TestContext, fixture: Fixture, options: ReaderOptions = {}): Promise<Catalog> {
  const logger = createLogger({ level: "error", format: "json" });
  const closer = new Closer();
  t.after(() => closer.close());
  const database = new Database({ url: options.databaseUrl ?? fixture.databaseUrl, poolSize: 4, acquireTimeoutMs: 1_000 });
  closer.add("database", () => database.close());
  // The bus stays connected while the reader's own database is made to fail.
  const kv = await openKv({ redisUrl: null, database: fixture.database, prefix: "test:" });
  closer.add("kv", () => kv.close());
  const members = await Members.join(kv, { bootId: randomUUID(), host: "test", address: null, roles: ["proxy"] });
  closer.add("members", () => members.leave());
  const bus = await InvalidationBus.open({ kv, members, logger });
  closer.add("bus", () => bus.close());
  const catalog = createCatalog({
    database,
    store: fixture.context.store,
    bus,
    clock: systemClock,
    log: { warn: () => undefined },
    cache: { maxBytes: 64 * 1024 * 1024, staleOnDbErrorMs: options.staleOnDbErrorMs ?? 300_000 },
  });
  closer.add("catalog", () => catalog.close());
  return catalog;
}

/** The real channel of invalidations, for as many "processes" as a test wants. */
import { randomBytes } from "node:crypto";
import { InvalidationBus } from "../../src/catalog/cache/invalidation-bus.ts";
import type { Database } from "../../src/db/pool.ts";
import { Members } from "../../src/kv/members.ts";
import { PostgresKv } from "../../src/kv/postgres-kv.ts";
import { RedisKv } from "../../src/kv/redis-kv.ts";
import { silentLogger } from "../../src/telemetry/logger.ts";
import { testRedisUrl } from "./services.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

/** Without a database, over Redis. */
export async function openTestBuses(t: Cleanable, count: number, database: Database | null = null): Promise<InvalidationBus[]> {
  const prefix = `test:${randomBytes(6).toString("hex")}:`;
  const buses: InvalidationBus[] = [];
  for (let index = 0; index < count; index += 1) {
    const kv = database === null ? await RedisKv.open({ url: await testRedisUrl(), prefix }) : await PostgresKv.open({ database, prefix });
    const members = await Members.join(kv, { bootId: randomBytes(6).toString("hex"), host: "test", address: null, roles: [] });
    const bus = await InvalidationBus.open({ kv, members, logger: silentLogger });
    buses.push(bus);
    t.after(async () => {
      await bus.close();
      await members.leave();
      await kv.close();
    });
  }
  return buses;
}

export async function testBus(t: Cleanable): Promise<InvalidationBus> {
  const [bus] = await openTestBuses(t, 1);
  if (!bus) throw new Error("no bus");
  return bus;
}

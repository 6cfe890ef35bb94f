/** The relay is woken by the key-value service, and survives its absence and that of the database. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Outbox } from "../../src/catalog/outbox.ts";
import { OUTBOX_CHANNEL, OutboxRelay } from "../../src/catalog/outbox-relay.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { createHandledTable, eventually, noKv, quietLogger, recordingHandler } from "../support/maintenance.ts";
import { scope } from "../support/scope.ts";
import { missingRedis, testDatabase, testRedisUrl } from "../support/services.ts";

for (const driver of ["postgres", "redis"] as const) {
  test(`a message on the channel wakes an idle relay (${driver})`, { skip: driver === "redis" && missingRedis() }, async (t) => {
    const end = scope(t);
    const { database } = await testDatabase(end);
    const prefix = `test:${randomBytes(4).toString("hex")}:`;
    const kv = await openKv({ redisUrl: driver === "redis" ? await testRedisUrl() : null, database, prefix });
    end.after(() => kv.close());
    await createHandledTable(database);
    const outbox = new Outbox(database);
    // Without a message nothing would be seen for minutes.
    const idle = { baseMs: 600_000, capMs: 600_000 };
    const relay = new OutboxRelay({ outbox, kv, handlers: { event: recordingHandler(database, "relay") }, logger: quietLogger, idle });
    const stop = new AbortController();
    const running = relay.run(stop.signal, () => undefined);
    end.after(async () => {
      stop.abort();
      await running;
    });
    for (let number = 1; number <= 3; number += 1) {
      await outbox.append([{ kind: "event", key: "k", payload: { number } }]);
      await eventually(`row ${number} is handled`, async () => {
        // A connection that is being made refuses at first.
        await kv.publish(OUTBOX_CHANNEL, "").catch(() => undefined);
        return relay.stats().handled >= number;
      });
    }
    assert.equal((await database.query("SELECT 1 FROM outbox")).rowCount, 0);
  });
}

test("a relay goes on after the database was away, and holds no connection while it works", async (t) => {
  const end = scope(t);
  const { database } = await testDatabase(end);
  const outbox = new Outbox(database);
  await outbox.append([{ kind: "event", key: "k", payload: 1 }]);
  let away = 3;
  let held = -1;
  const relay = new OutboxRelay({
    outbox: {
      claim: async (options) => {
        if (away > 0) {
          away -= 1;
          throw new SlipwayError("DATABASE_UNAVAILABLE");
        }
        return outbox.claim(options);
      },
      complete: (claim, ids) => outbox.complete(claim, ids),
      fail: (claim, rows, error) => outbox.fail(claim, rows, error),
    },
    kv: noKv,
    handlers: {
      event: async () => {
        const { total, idle } = database.stats();
        held = total - idle;
      },
    },
    logger: quietLogger,
    idle: { baseMs: 10, capMs: 50 },
  });
  const stop = new AbortController();
  const running = relay.run(stop.signal, () => undefined);
  await eventually("the row is handled", async () => relay.stats().handled === 1);
  stop.abort();
  await running;
  assert.equal(held, 0);
});

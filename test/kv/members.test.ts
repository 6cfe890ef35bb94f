/** Live processes over both drivers: who joins is seen, who leaves is gone at once, who dies is gone after its time. */
import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { Kv } from "../../src/kv/kv.ts";
import { Members } from "../../src/kv/members.ts";
import { openKv } from "../../src/kv/open-kv.ts";
import { eventually, pause } from "../support/kv-conformance.ts";
import { testDatabase, testRedisUrl } from "../support/services.ts";

async function openDriver(t: TestContext, driver: string): Promise<Kv> {
  const { database } = await testDatabase(t);
  const redisUrl = driver === "redis" ? await testRedisUrl() : null;
  const kv = await openKv({ redisUrl, database, prefix: `test-${randomBytes(4).toString("hex")}:` });
  assert.equal(kv.driver, driver);
  t.after(() => kv.close());
  return kv;
}

const info = { host: "h", address: null, roles: ["proxy"] } as const;

for (const driver of ["redis", "postgres"]) {
  test(`${driver}: processes see each other with what they announce`, async (t) => {
    const kv = await openDriver(t, driver);
    const [one, two] = [
      await Members.join(kv, { ...info, bootId: randomUUID() }),
      await Members.join(kv, { ...info, bootId: randomUUID(), roles: ["api", "tuf"] }),
    ];
    assert.deepEqual(
      two
        .known()
        .map((member) => member.bootId)
        .toSorted(),
      [one.bootId, two.bootId].toSorted(),
    );
    await two.setAddress("http://127.0.0.1:1");
    const beat = await two.announceFeature("invalidation");
    assert.ok(beat.gapMs >= 0 && beat.gapMs < 60_000);
    const seen = (await one.list()).find((member) => member.bootId === two.bootId);
    assert.deepEqual(
      { roles: seen?.roles, address: seen?.address, features: seen?.features },
      { roles: ["api", "tuf"], address: "http://127.0.0.1:1", features: ["invalidation"] },
    );
    await two.leave();
    assert.deepEqual(
      (await one.list()).map((member) => member.bootId),
      [one.bootId],
    );
    await assert.rejects(two.beat(), (error) => isSlipwayError(error, "DRAINING"));
    assert.equal((await one.list()).length, 1, "a heartbeat after leave brought it back");
    await one.leave();
  });

  test(`${driver}: a process without heartbeats is dead after its time, one with them is not`, async (t) => {
    const kv = await openDriver(t, driver);
    const times = { heartbeatMs: 100, deadMs: 700 };
    const alive = await Members.join(kv, { ...info, bootId: randomUUID() }, times);
    await kv.group("members").put("dead", JSON.stringify({ ...info, bootId: "dead", features: [], joinedAt: 1 }), 700);
    await kv.group("members").put("strange", "{", 60_000);
    assert.equal((await alive.list()).length, 2);
    await pause(300);
    assert.equal((await alive.list()).length, 2);
    await eventually(() => alive.known().length === 1, "the dead one is gone");
    assert.equal(alive.known()[0]?.bootId, alive.bootId);
    await alive.leave();
    await kv.group("members").remove("strange");
  });
}

test("a process joins also while the service is away", async (t) => {
  const kv = await openDriver(t, "redis");
  const gone = await openDriver(t, "redis");
  await gone.close();
  const errors: unknown[] = [];
  const members = await Members.join(gone, { ...info, bootId: randomUUID() }, { heartbeatMs: 50, onError: (error) => errors.push(error) });
  assert.ok(errors.length > 0);
  assert.deepEqual(members.known(), []);
  assert.equal(members.lastBeatAt, Number.NEGATIVE_INFINITY);
  await members.leave();
  assert.deepEqual(await kv.group("members").list(), []);
});

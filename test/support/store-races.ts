/** Several processes at one store, at once: what must hold whoever is faster. */
import { assertSameBytes } from "./bytes.ts";
import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { type Check, chunksOf, collect, digestOf, hasCode, MIB, openSessions } from "./store-checks.ts";

export function raceTests(check: Check): void {
  check("many commits of one digest at once all succeed", async (store, open) => {
    const other = await open();
    const bytes = randomBytes(7 * MIB);
    const commit = { digest: digestOf(bytes), size: bytes.length };
    const ids = Array.from({ length: 6 }, () => randomUUID());
    for (const id of ids) {
      await store.createSession(id);
      await store.append(id, chunksOf(bytes), { offset: 0 });
    }
    await Promise.all(ids.map((id, index) => (index % 2 === 0 ? store : other).commitSession(id, commit)));
    assertSameBytes(await store.readAll(commit.digest, bytes.length), bytes);
    assert.deepEqual(await openSessions(store), []);
  });

  check("the same session committed twice at once is committed", async (store, open) => {
    const other = await open();
    const bytes = randomBytes(100_000);
    const commit = { digest: digestOf(bytes), size: bytes.length };
    for (let round = 0; round < 5; round += 1) {
      const id = randomUUID();
      await store.createSession(id);
      await store.append(id, chunksOf(bytes), { offset: 0 });
      const ends = await Promise.allSettled([store.commitSession(id, commit), other.commitSession(id, commit)]);
      for (const end of ends) if (end.status === "rejected") hasCode("CONFLICT")(end.reason);
      assert.ok(ends.some((end) => end.status === "fulfilled"));
      assertSameBytes(await store.readAll(commit.digest, bytes.length), bytes);
    }
  });

  check("of several appends to one offset at once at most one counts, and its bytes are whole", async (store, open) => {
    const stores = [store, await open(), await open()];
    for (let round = 0; round < 4; round += 1) {
      const id = randomUUID();
      await store.createSession(id);
      const candidates = stores.map((_, index) => randomBytes((round % 2 === 0 ? 200_000 : 6 * MIB) + index));
      const ends = await Promise.allSettled(
        stores.map(async (each, index) => await each.append(id, chunksOf(candidates[index] ?? Buffer.alloc(0)), { offset: 0 })),
      );
      const winners = candidates.filter((_, index) => ends[index]?.status === "fulfilled");
      for (const end of ends) if (end.status === "rejected") hasCode("CONFLICT")(end.reason);
      assert.ok(winners.length <= 1, "two appends at one offset both counted");
      const size = await store.sessionSize(id);
      if (winners[0]) {
        assert.equal(size, winners[0].length);
        assertSameBytes(await collect(await store.readSession(id)), winners[0]);
      } else {
        const rest = randomBytes(1000);
        assert.equal((await store.append(id, chunksOf(rest), { offset: size ?? -1 })).offset, (size ?? 0) + 1000);
      }
    }
  });

  check("an append to a session that is removed meanwhile ends as unknown and leaves nothing", async (store, open) => {
    const other = await open();
    const id = randomUUID();
    await store.createSession(id);
    async function* source(): AsyncGenerator<Uint8Array> {
      yield* chunksOf(randomBytes(6 * MIB));
      await other.abortSession(id);
      yield randomBytes(10);
    }
    await assert.rejects(store.append(id, source(), { offset: 0 }), hasCode("BLOB_UPLOAD_UNKNOWN", "CONFLICT"));
    assert.equal(await store.sessionSize(id), null);
    for (const left of await openSessions(store)) await store.abortSession(left);
    assert.deepEqual(await openSessions(store), []);
  });

  check("an upload whose writer hangs is taken over, and the late writer does no harm", async (store, open) => {
    const other = await open();
    const id = randomUUID();
    await store.createSession(id);
    const bytes = randomBytes(16 * MIB);
    let wake: () => void = () => undefined;
    const taken = new Promise<void>((resolve) => {
      wake = resolve;
    });
    async function* hanging(): AsyncGenerator<Uint8Array> {
      yield* chunksOf(bytes.subarray(0, 11 * MIB));
      await taken;
      yield Buffer.alloc(5 * MIB, 0xff);
    }
    const late = store.append(id, hanging(), { offset: 0 }).then(
      () => null,
      (error: unknown) => error,
    );
    let offset = 0;
    while (offset < 8 * MIB) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      offset = (await other.sessionSize(id)) ?? 0;
    }
    // What the writer was given before it hangs may still be on its way to the disk: what is there is a prefix whatever its length.
    for (let isTaken = false; !isTaken;) {
      const held = await collect(await other.readSession(id));
      assertSameBytes(held, bytes.subarray(0, held.length));
      isTaken = await other.append(id, chunksOf(bytes.subarray(held.length)), { offset: held.length }).then(
        () => true,
        (error: unknown) => {
          hasCode("CONFLICT")(error);
          return false;
        },
      );
    }
    wake();
    hasCode("CONFLICT")(await late);
    assertSameBytes(await collect(await other.readSession(id)), bytes);
    await other.commitSession(id, { digest: digestOf(bytes), size: bytes.length });
    assertSameBytes(await store.readAll(digestOf(bytes), bytes.length), bytes);
    assert.deepEqual(await openSessions(store), []);
  });
}

/** Processes that die in the middle of an upload, and how much memory one takes: the same demands on every driver. */
import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { test } from "node:test";
import { openBlobStore } from "../../src/storage/open-store.ts";
import { chunksOf, openSessions } from "./store-checks.ts";
import type { StoreFixture } from "./store-conformance.ts";
import { startStoreProcess, storeCommand } from "./store-process.ts";

const PATTERN = Buffer.alloc(64 * 1024, "slipway!");

export interface CrashExpectations {
  /** Of what a killed writer had sent, so many bytes at the end may be lost. */
  readonly mayLose: number;
  /** Megabytes by which the resident set may grow during one long upload, and during parallel ones. */
  readonly growthMb: { readonly one: number; readonly parallel: number };
}

export function storeCrashes(fixture: StoreFixture, expectations: CrashExpectations): void {
  const options = { skip: fixture.skip, timeout: 120_000 };

  test(`${fixture.name}: an upload whose process is killed goes on in another process, from what arrived`, options, async (t) => {
    const config = await fixture.storage(t);
    const store = await openBlobStore(config);
    t.after(() => store.close());
    const id = randomUUID();
    await store.createSession(id);
    const writer = startStoreProcess(t, storeCommand(config, ["append-forever", id]));
    let sent = 0;
    while (sent < 14 * 1024 * 1024) sent = Number((await writer.next())["sent"]);
    await writer.kill();

    assert.deepEqual(await openSessions(store), [id]);
    const offset = (await store.sessionSize(id)) ?? -1;
    assert.ok(offset >= sent - expectations.mayLose, `${sent} bytes sent, ${offset} kept`);
    const hash = createHash("sha256");
    let read = 0;
    for await (const chunk of await store.readSession(id)) {
      hash.update(chunk);
      read += chunk.length;
    }
    assert.equal(read, offset);
    // The pattern goes on where it stopped, so that the whole is the pattern repeated.
    const rest = Buffer.concat([PATTERN, PATTERN]).subarray(offset % 8, (offset % 8) + 100_000);
    const { offset: size } = await store.append(id, chunksOf(rest), { offset, onChunk: (chunk) => void hash.update(chunk) });
    const whole = Buffer.alloc(size, "slipway!");
    const digest = `sha256:${createHash("sha256").update(whole).digest("hex")}`;
    assert.equal(`sha256:${hash.digest("hex")}`, digest);
    await store.commitSession(id, { digest, size });
    assert.ok((await store.readAll(digest, size)).equals(whole));
    assert.deepEqual(await openSessions(store), []);
  });

  test(`${fixture.name}: what killed uploads leave is listed and can be removed`, options, async (t) => {
    const config = await fixture.storage(t);
    const store = await openBlobStore(config);
    t.after(() => store.close());
    const ids = [randomUUID(), randomUUID()];
    for (const id of ids) {
      await store.createSession(id);
      const writer = startStoreProcess(t, storeCommand(config, ["append-forever", id]));
      while (Number((await writer.next())["sent"]) < 7 * 1024 * 1024);
      await writer.kill();
    }
    assert.deepEqual(new Set(await openSessions(store)), new Set(ids));
    for (const id of ids) await store.abortSession(id);
    assert.deepEqual(await openSessions(store), []);
    for (const id of ids) assert.equal(await store.sessionSize(id), null);
  });

  test(`${fixture.name}: memory does not grow with the size of an upload, nor much with their number`, options, async (t) => {
    const config = await fixture.storage(t);
    for (const { megabytes, parallel, most } of [
      { megabytes: 256, parallel: 1, most: expectations.growthMb.one },
      { megabytes: 12, parallel: 24, most: expectations.growthMb.parallel },
    ]) {
      const child = startStoreProcess(t, storeCommand(config, ["stream", String(megabytes), String(parallel)]));
      const { grownMb, seconds } = await child.next();
      t.diagnostic(`${parallel} x ${megabytes} MB: resident set +${Number(grownMb).toFixed(1)} MB, ${Number(seconds).toFixed(1)} s`);
      assert.ok(Number(grownMb) < most, `the resident set grew by ${String(grownMb)} MB`);
    }
  });
}

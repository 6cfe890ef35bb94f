// The outbox keeps the order of a key and loses nothing, whoever dies; link records land in storage once.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { readLinkRecords, writeLinkRecords } from "../../src/catalog/link-records.ts";
import { Outbox, type OutboxDraft } from "../../src/catalog/outbox.ts";
import { PRINCIPAL, catalogFixture, pushImage } from "./support.ts";

const CLAIM = { kind: "event", limit: 100, leaseMs: 60_000 } as const;

function drafts(...keys: string[]): OutboxDraft[] {
  return keys.map((key, n) => ({ kind: "event", key, payload: { n } }));
}

async function collect<Value>(values: AsyncIterable<Value>): Promise<Value[]> {
  const all: Value[] = [];
  for await (const value of values) all.push(value);
  return all;
}

test("rows come out in order and are gone when they are complete", async (t) => {
  const { database } = await catalogFixture(t);
  const outbox = new Outbox(database);
  await outbox.append(drafts("a", "b", "a"));
  const { claim, rows } = await outbox.claim(CLAIM);
  assert.deepEqual(
    rows.map((row) => [row.key, (row.payload as { n: number }).n]),
    [
      ["a", 0],
      ["b", 1],
      ["a", 2],
    ],
  );
  assert.equal((await outbox.claim({ ...CLAIM, kind: "link-record" })).rows.length, 0);
  const ids = rows.map((row) => row.id);
  assert.equal(await outbox.complete("another", ids), 0);
  assert.equal(await outbox.complete(claim, ids), 3);
  assert.deepEqual(
    (await outbox.depth()).filter(({ kind }) => kind === CLAIM.kind),
    [],
  );
});

test("while a key is held, its later rows wait and other keys go on", async (t) => {
  const { database } = await catalogFixture(t);
  const outbox = new Outbox(database);
  await outbox.append(drafts("a"));
  const held = await outbox.claim(CLAIM);
  await outbox.append(drafts("a", "b"));
  const other = await outbox.claim(CLAIM);
  assert.deepEqual(
    other.rows.map((row) => row.key),
    ["b"],
  );
  await outbox.complete(held.claim, [held.rows[0]?.id ?? 0]);
  assert.deepEqual(
    (await outbox.claim(CLAIM)).rows.map((row) => row.key),
    ["a"],
  );
});

test("a batch that is full leaves the rest of the key for later, in order", async (t) => {
  const { database } = await catalogFixture(t);
  const outbox = new Outbox(database);
  await outbox.append(drafts("a", "a", "a"));
  const seen: number[] = [];
  for (let round = 0; round < 2; round += 1) {
    const { claim, rows } = await outbox.claim({ ...CLAIM, limit: 2 });
    seen.push(...rows.map((row) => (row.payload as { n: number }).n));
    await outbox.complete(
      claim,
      rows.map((row) => row.id),
    );
  }
  assert.deepEqual(seen, [0, 1, 2]);
});

test("rows of a holder that died come back when its lease ends, and it cannot remove them any more", async (t) => {
  const { database } = await catalogFixture(t);
  const outbox = new Outbox(database);
  await outbox.append(drafts("a"));
  const dead = await outbox.claim({ ...CLAIM, leaseMs: 100 });
  await delay(200);
  const next = await outbox.claim(CLAIM);
  assert.equal(next.rows[0]?.attempts, 2);
  assert.equal(await outbox.complete(dead.claim, [next.rows[0]?.id ?? 0]), 0);
});

test("failed rows wait with their key", async (t) => {
  const { database } = await catalogFixture(t);
  const outbox = new Outbox(database);
  await outbox.append(drafts("a"));
  const { claim, rows } = await outbox.claim(CLAIM);
  await outbox.fail(claim, rows, "no");
  await outbox.append(drafts("a"));
  assert.equal((await outbox.claim(CLAIM)).rows.length, 0);
  await database.query("UPDATE outbox SET due_at = now()");
  assert.equal((await outbox.claim(CLAIM)).rows.length, 2);
});

test("ten claimers at once share the keys, and none gets a row of another", async (t) => {
  const { database } = await catalogFixture(t);
  const outbox = new Outbox(database);
  await outbox.append(drafts(...Array.from({ length: 200 }, (_, index) => `key${index % 50}`)));
  const claims = await Promise.all(Array.from({ length: 10 }, () => outbox.claim({ ...CLAIM, limit: 40, keys: 10 })));
  const rows = claims.flatMap((claim) => claim.rows.map((row) => row.id));
  assert.equal(new Set(rows).size, rows.length);
  const keys = claims.map((claim) => new Set(claim.rows.map((row) => row.key)));
  assert.equal(
    keys.reduce((sum, set) => sum + set.size, 0),
    new Set(keys.flatMap((set) => [...set])).size,
  );
});

test("old news can be dropped", async (t) => {
  const { database } = await catalogFixture(t);
  const outbox = new Outbox(database);
  await outbox.append(drafts("a", "b"));
  assert.equal(await outbox.dropOlderThan("event", 60_000, 10), 0);
  await database.query("UPDATE outbox SET created_at = now() - interval '1 hour' WHERE key = 'a'");
  assert.equal(await outbox.dropOlderThan("event", 60_000, 10), 1);
});

test("link records of a repository can be read back from storage, each once and in order", async (t) => {
  const fixture = await catalogFixture(t);
  const image = await pushImage(fixture, "team/app", { tags: ["v1"] });
  await pushImage(fixture, "team/app/nested", { tags: ["v1"] });
  await fixture.writer.deleteTag("team/app", "v1", { principal: PRINCIPAL });
  const { rows } = await new Outbox(fixture.database).claim({ ...CLAIM, kind: "link-record" });
  await writeLinkRecords(rows, fixture.store);
  await writeLinkRecords(rows, fixture.store);
  // As after a batch that failed half-way and was tried in another cut.
  await writeLinkRecords(rows.slice(0, 2), fixture.store);
  const records = await collect(readLinkRecords("team/app", fixture.store));
  assert.deepEqual(
    records.map((record) => `${record.op} ${record.target} ${record.tag ?? record.digest}`),
    [`add blob ${image.config}`, `add blob ${image.layer}`, `add manifest ${image.digest}`, "add tag v1", "remove tag v1"],
  );
  assert.equal((await collect(readLinkRecords("team/app/nested", fixture.store))).length, 4);
  assert.equal((await collect(readLinkRecords("team/none", fixture.store))).length, 0);
});

test("a name with the longest component has its records too", async (t) => {
  const fixture = await catalogFixture(t);
  const name = `team/${"a".repeat(250)}`;
  await pushImage(fixture, name);
  const { rows } = await new Outbox(fixture.database).claim({ ...CLAIM, kind: "link-record" });
  await writeLinkRecords(rows, fixture.store);
  assert.equal((await collect(readLinkRecords(name, fixture.store))).length, 3);
});

test("numbers of a database that was restored from a backup go on behind those that were lost", async (t) => {
  const { database } = await catalogFixture(t);
  const outbox = new Outbox(database);
  await outbox.append(drafts("a"));
  const lost = (await outbox.claim(CLAIM)).rows[0]?.id ?? 0;
  await database.query("SELECT setval('outbox_id_seq', 1000)");
  await outbox.advance();
  await outbox.append(drafts("b"));
  const next = (await outbox.claim(CLAIM)).rows[0]?.id ?? 0;
  assert.ok(next > lost && next <= Number.MAX_SAFE_INTEGER, `${next} after ${lost}`);
  await outbox.advance();
  await outbox.append(drafts("c"));
  assert.ok(((await outbox.claim(CLAIM)).rows[0]?.id ?? 0) > next);
});

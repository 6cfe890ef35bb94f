/** From somebody who watches a run to its status and back: it is refreshed first, and its change wakes the watcher. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { Outbox } from "../../src/catalog/outbox.ts";
import { OUTBOX_CHANNEL, OutboxRelay } from "../../src/catalog/outbox-relay.ts";
import { systemClock } from "../../src/core/clock.ts";
import { RunFeed, runMessages } from "../../src/replication/run-feed.ts";
import { announceChangedRuns } from "../../src/replication/run-hooks.ts";
import { RunView } from "../../src/replication/run-view.ts";
import { eventually, quietLogger } from "../support/maintenance.ts";
import { ALL_SLOTS, openTestKv, seedExecutions, SLOTS, testRefresh } from "../support/refresh.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";

test("a watched run is refreshed before others, and its watcher hears of the change by the hook of its vendor", async (t) => {
  const end = scope(t);
  const { database } = await testDatabase(end);
  const kv = await openTestKv(end, "postgres", database);
  const onChanges = (): void => void kv.publish(OUTBOX_CHANNEL, "");
  const refresh = testRefresh({ kv, database, logger: quietLogger, onChanges });
  refresh.hooks.register("REPLICATION", announceChangedRuns(kv));
  const ids = await seedExecutions(database, SLOTS * 2 + 1);
  const others = ids.slice(0, -1);
  const watched = ids.at(-1) ?? 0;
  const slot = watched % SLOTS;
  await refresh.marker.markAll(others.map((id) => ({ id, vendor: "REPLICATION" })));

  // Nothing but a message makes it read again.
  const feed = new RunFeed({ view: new RunView(database), kv, clock: systemClock, marker: refresh.marker }, { minMs: 10, idleMs: 120_000 });
  end.after(() => feed.close());
  const seen: (string | undefined)[] = [];
  const stopWatching = feed.watch(watched, (found) => void seen.push("detail" in found ? found.detail?.execution.status : "error"));
  end.after(stopWatching);
  await eventually("it is marked", async () => refresh.marker.stats().queued === others.length + 1);
  const [first, ...rest] = await refresh.queue.claim([slot], 1, 60_000);
  assert.deepEqual([first?.id, rest.length], [watched, 0], "before those that waited longer");
  if (first) await refresh.queue.extend([first], 0);

  const stop = new AbortController();
  const relay = new OutboxRelay({
    outbox: new Outbox(database),
    kv,
    logger: quietLogger,
    handlers: { "execution-event": refresh.hooks.handler() },
  });
  const running = [
    relay.run(stop.signal, () => undefined),
    refresh.refresher.hold({ slots: ALL_SLOTS, shard: { id: 0, total: 1 }, sweeps: false }, stop.signal),
  ];
  end.after(async () => {
    stop.abort();
    await Promise.all(running);
  });
  await eventually("the watcher sees the end", async () => seen.at(-1) === "Success", 30_000);
  assert.equal(seen[0], "Running");
});

test("many changed runs are few messages", () => {
  const ids = Array.from({ length: 450 }, (_, index) => 9_000_000_000 + index);
  const messages = runMessages(ids);
  assert.equal(messages.length, 3);
  assert.deepEqual(messages.join(",").split(",").map(Number), ids);
  assert.ok(messages.every((message) => message.length < 7_900));
  assert.deepEqual(runMessages([]), []);
});

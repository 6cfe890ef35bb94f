/** The cache by itself: what is shared, kept, served late, dropped, and what happens while the database is away. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Generations } from "../../../src/catalog/cache/generations.ts";
import { ScopedCache } from "../../../src/catalog/cache/scoped-cache.ts";
import type { CacheGuard, ScopedCacheOptions } from "../../../src/catalog/cache/scoped-cache.ts";
import { isSlipwayError, SlipwayError } from "../../../src/core/errors.ts";
import { eventually, pause } from "../../support/kv-conformance.ts";

interface Setup {
  readonly cache: ScopedCache<string>;
  readonly guard: CacheGuard & { isTrusted: boolean };
}

function setup(options: Partial<ScopedCacheOptions<string>> = {}): Setup {
  const guard = { generations: new Generations(), isTrusted: true, trusted: () => guard.isTrusted };
  const cache = new ScopedCache<string>(
    {
      name: "test",
      maxBytes: 1_000_000,
      sizeOf: (value) => value.length,
      ttlMs: 60_000,
      staleMs: 60_000,
      negativeTtlMs: 60_000,
      loadTimeoutMs: 5_000,
      maxConcurrentLoads: 8,
      staleOnDbErrorMs: 60_000,
      ...options,
    },
    guard,
  );
  return { cache, guard };
}

function gate<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: Error) => void } {
  return Promise.withResolvers<T>();
}

const away = (): Promise<never> => Promise.reject(new SlipwayError("DATABASE_UNAVAILABLE"));
const isAway = (error: unknown): boolean => isSlipwayError(error, "DATABASE_UNAVAILABLE");

test("a thousand who ask at once share one load, then peek answers", async () => {
  const { cache } = setup();
  let calls = 0;
  const answers = await Promise.all(
    Array.from({ length: 1_000 }, () =>
      cache.load("k", "s", async () => {
        calls += 1;
        await pause(20);
        return "v";
      }),
    ),
  );
  assert.equal(calls, 1);
  assert.ok(answers.every((answer) => answer === "v"));
  assert.equal(cache.peek("k"), "v");
  assert.equal(cache.peek("other"), undefined);
  const { misses, coalesced, loads, hits, entries } = cache.stats();
  assert.deepEqual({ misses, coalesced, loads, hits, entries }, { misses: 1_000, coalesced: 999, loads: 1, hits: 1, entries: 1 });
});

test("an invalidation during a load: the result goes to who asked before, is not kept, and is not shared with who asks after", async () => {
  const { cache, guard } = setup();
  const [first, second] = [gate<string>(), gate<string>()];
  const early = cache.load("k", "s", () => first.promise);
  guard.generations.bump("s");
  const late = cache.load("k", "s", () => second.promise);
  first.resolve("old");
  assert.equal(await early, "old");
  assert.equal(cache.peek("k"), undefined, "the outdated value was kept");
  second.resolve("new");
  assert.equal(await late, "new");
  assert.equal(cache.peek("k"), "new");
  assert.equal(cache.stats().conflicts, 1);
});

test("the outdated load that ends last does not replace the newer value", async () => {
  const { cache, guard } = setup();
  const first = gate<string>();
  const early = cache.load("k", "s", () => first.promise);
  guard.generations.bump("s");
  assert.equal(await cache.load("k", "s", async () => "new"), "new");
  first.resolve("old");
  assert.equal(await early, "old");
  assert.equal(cache.peek("k"), "new");
});

test("an entry of several scopes ends with any of them, and with no other", async () => {
  const { cache, guard } = setup();
  for (const scope of ["a", "b"]) {
    await cache.load("k", ["a", "b"], async () => "v");
    guard.generations.bump("c");
    guard.generations.bump("never-seen");
    assert.equal(cache.peek("k"), "v");
    cache.invalidateScope(scope);
    assert.equal(cache.peek("k"), undefined);
  }
  await cache.load("k", ["a", "b"], async () => "v");
  guard.generations.bumpAll();
  assert.equal(cache.peek("k"), undefined);
});

test("a scope that is forgotten for want of room takes its entries along", () => {
  const generations = new Generations(2);
  const ticket = generations.ticket(["a", "b"]);
  assert.ok(generations.isCurrent(ticket));
  generations.ticket("c");
  assert.ok(!generations.isCurrent(ticket));
  assert.equal(generations.size, 2);
});

test("set keeps a value only when nothing was invalidated since its ticket", () => {
  const { cache, guard } = setup();
  const before = cache.ticket("s");
  assert.equal(cache.set("k", before, "v"), true);
  assert.equal(cache.peek("k"), "v");
  guard.generations.bump("s");
  assert.equal(cache.set("k", before, "old"), false);
  assert.equal(cache.peek("k"), undefined);
});

test("clear drops what is there and what is being loaded", async () => {
  const { cache } = setup();
  const slow = gate<string>();
  await cache.load("a", "s", async () => "v");
  const loading = cache.load("b", "s", () => slow.promise);
  cache.clear();
  slow.resolve("v");
  assert.equal(await loading, "v");
  assert.equal(cache.peek("a"), undefined);
  assert.equal(cache.peek("b"), undefined);
});

test("without trust nothing is peeked, and nobody gets a load that began before he asked", async () => {
  const { cache, guard } = setup();
  await cache.load("k", "s", async () => "v1");
  guard.isTrusted = false;
  assert.equal(cache.peek("k"), undefined);
  const slow = gate<string>();
  const running = cache.load("k", "s", () => slow.promise);
  let calls = 0;
  const later = Array.from({ length: 50 }, () =>
    cache.load("k", "s", async () => {
      calls += 1;
      return "after";
    }),
  );
  await pause(20);
  assert.equal(calls, 0, "more than one load of a key ran at once");
  slow.resolve("before");
  assert.equal(await running, "before");
  assert.ok((await Promise.all(later)).every((value) => value === "after"));
  assert.equal(calls, 1);
  guard.isTrusted = true;
  assert.equal(cache.peek("k"), "after");
});

test("what passed its TTL is served at once while one load runs behind, and ends after the stale time", async () => {
  const { cache } = setup({ ttlMs: 40, staleMs: 400 });
  await cache.load("k", "s", async () => "v1");
  await pause(80);
  assert.equal(cache.peek("k"), undefined);
  const slow = gate<string>();
  let calls = 0;
  const loader = (): Promise<string> => {
    calls += 1;
    return slow.promise;
  };
  const answers = await Promise.all(Array.from({ length: 20 }, () => cache.load("k", "s", loader)));
  assert.ok(answers.every((answer) => answer === "v1"));
  assert.equal(calls, 1);
  slow.resolve("v2");
  await eventually(async () => (await cache.load("k", "s", async () => "v2")) === "v2", "the new value is there");
  assert.equal(cache.stats().stale >= 20, true);
  await pause(600);
  assert.equal(await cache.load("k", "s", async () => "v3"), "v3");
});

test("that there is no such thing is remembered for its own time, and forgotten by an invalidation", async () => {
  const { cache, guard } = setup({ negativeTtlMs: 150 });
  let calls = 0;
  const loader = async (): Promise<null> => {
    calls += 1;
    return null;
  };
  assert.equal(await cache.load("k", "s", loader), null);
  assert.equal(await cache.load("k", "s", loader), null);
  assert.equal(cache.peek("k"), undefined);
  assert.equal(calls, 1);
  assert.equal(cache.stats().negative, 1);
  guard.generations.bump("s");
  assert.equal(await cache.load("k", "s", loader), null);
  assert.equal(calls, 2);
  await pause(200);
  assert.equal(await cache.load("k", "s", loader), null);
  assert.equal(calls, 3);
});

test("a loader that does not end fails its askers in time, gets the signal, and the next ask loads anew", async () => {
  const { cache } = setup({ loadTimeoutMs: 60 });
  let signal: AbortSignal | undefined;
  const started = performance.now();
  const stuck = cache.load("k", "s", (given) => {
    signal = given;
    return new Promise<string>(() => undefined);
  });
  await assert.rejects(stuck, isAway);
  assert.ok(performance.now() - started < 3_000);
  assert.equal(signal?.aborted, true);
  assert.equal(await cache.load("k", "s", async () => "v"), "v");
});

test("loads run only so many at once, the rest in turn, and beyond the queue they are refused", async () => {
  const { cache } = setup({ maxConcurrentLoads: 2 });
  let running = 0;
  let most = 0;
  const release = gate<void>();
  const loads = Array.from({ length: 200 }, (_, index) =>
    cache.load(`k${index}`, "s", async () => {
      running += 1;
      most = Math.max(most, running);
      await release.promise;
      running -= 1;
      return "v";
    }),
  );
  release.resolve();
  const results = await Promise.allSettled(loads);
  assert.equal(most, 2);
  assert.equal(results.filter((result) => result.status === "fulfilled").length, 2 + 2 * 64);
  assert.ok(results.every((result) => result.status === "fulfilled" || isSlipwayError(result.reason, "OVERLOADED")));
  assert.equal(await cache.load("after", "s", async () => "v"), "v");
});

test("a failed load is told to all who shared it and is not remembered", async () => {
  const { cache } = setup();
  const fail = (): Promise<never> => Promise.reject(new SlipwayError("STORAGE_UNAVAILABLE"));
  const results = await Promise.allSettled([cache.load("k", "s", fail), cache.load("k", "s", fail)]);
  assert.ok(results.every((result) => result.status === "rejected" && isSlipwayError(result.reason, "STORAGE_UNAVAILABLE")));
  assert.equal(await cache.load("k", "s", async () => "v"), "v");
});

test("while the database is away a known value holds, unless invalidated, absent or too old", async () => {
  const { cache, guard } = setup({ ttlMs: 20, staleMs: 0, staleOnDbErrorMs: 700 });
  await cache.load("known", "s", async () => "v");
  await cache.load("dropped", "other", async () => "v");
  await cache.load("absent", "s", async () => null);
  await pause(60);
  guard.generations.bump("other");
  assert.equal(await cache.load("known", "s", away), "v");
  guard.isTrusted = false;
  assert.equal(await cache.load("known", "s", away), "v");
  await assert.rejects(cache.load("dropped", "other", away), isAway);
  await assert.rejects(cache.load("unknown", "s", away), isAway);
  await assert.rejects(
    cache.load("known2", "s", () => Promise.reject(new SlipwayError("STORAGE_UNAVAILABLE"))),
    (error) => isSlipwayError(error, "STORAGE_UNAVAILABLE"),
  );
  assert.ok(cache.stats().staleOnError >= 2);
  await pause(900);
  await assert.rejects(cache.load("known", "s", away), isAway);
});

test("a database that hangs delays one asker at a time, not all", async () => {
  const { cache } = setup({ ttlMs: 1, staleMs: 0, loadTimeoutMs: 300 });
  for (let index = 0; index < 20; index += 1) await cache.load(`k${index}`, "s", async () => "v");
  await pause(10);
  const hang = (): Promise<string> => new Promise(() => undefined);
  assert.equal(await cache.load("k0", "s", hang), "v");
  const loadsBefore = cache.stats().loads;
  for (let index = 0; index < 20; index += 1) assert.equal(await cache.load(`k${index}`, "s", hang), "v");
  assert.ok(cache.stats().loads - loadsBefore <= 2, "every asker waited for the database");
  await pause(1_100);
  assert.equal(await cache.load("k3", "s", async () => "new"), "new", "nobody asked whether the database is back");
  assert.equal(await cache.load("k4", "s", async () => "new"), "new");
});

test("the cache stays within its bytes, and a value larger than all of it is not kept", async () => {
  const { cache } = setup({ maxBytes: 100_000, sizeOf: (value) => value.length });
  for (let index = 0; index < 500; index += 1) await cache.load(`k${index}`, "s", async () => "x".repeat(1_000));
  const { bytes, entries } = cache.stats();
  assert.ok(bytes <= 100_000 && entries > 50 && entries < 100, `${entries} entries, ${bytes} bytes`);
  assert.equal(cache.peek("k499")?.length, 1_000);
  assert.equal((await cache.load("huge", "s", async () => "x".repeat(200_000)))?.length, 200_000);
  assert.equal(cache.peek("huge"), undefined);
  assert.equal(cache.peek("k499")?.length, 1_000);
});

test("entries that were loaded together do not end together", async () => {
  const { cache } = setup({ ttlMs: 400, staleMs: 0 });
  for (let index = 0; index < 200; index += 1) cache.set(`k${index}`, cache.ticket("s"), "v");
  const ends = new Set<number>();
  let before = 200;
  await eventually(() => {
    let alive = 0;
    for (let index = 0; index < 200; index += 1) if (cache.peek(`k${index}`) !== undefined) alive += 1;
    if (alive < before) ends.add(alive);
    before = alive;
    return alive === 0;
  }, "all ended");
  assert.ok(ends.size > 1, "all ended at one moment");
});

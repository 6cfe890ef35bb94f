/**
 * The bus between real processes over real Redis and real Postgres: once a publish has resolved, no process shows what it was about, be it
 * busy, joining, stopped, cut off or dead.
 */
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { Redis } from "ioredis";
import { BROADCAST, inboxOf } from "../../../src/catalog/cache/bus-messages.ts";
import { SlipwayError } from "../../../src/core/errors.ts";
import type { Kv } from "../../../src/kv/kv.ts";
import { eventually, pause, recorder } from "../../support/kv-conformance.ts";
import { testDatabase, testRedisUrl } from "../../support/services.ts";
import { openNode } from "./bus-process.ts";
import type { Node, ProcessSettings, Request, Seen } from "./bus-process.ts";

/** The limit, and what a loaded machine adds to timers. */
const PATIENCE_MS = 1_500;

class Peer {
  readonly child: ChildProcess;
  #id = 0;

  constructor(child: ChildProcess) {
    this.child = child;
  }

  static async start(t: TestContext, settings: ProcessSettings): Promise<Peer> {
    const child = fork(new URL("bus-process.ts", import.meta.url), [JSON.stringify(settings)], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    t.after(() => void child.kill("SIGKILL"));
    await once(child, "message");
    return new Peer(child);
  }

  ask<T>(request: Request): Promise<T> {
    this.#id += 1;
    const id = this.#id;
    return new Promise((resolve, reject) => {
      const onMessage = (message: unknown): void => {
        const reply = message as { id: number; result?: T; error?: string };
        if (reply.id !== id) return;
        this.child.off("message", onMessage);
        if (reply.error === undefined) resolve(reply.result as T);
        else reject(new Error(reply.error));
      };
      this.child.on("message", onMessage);
      this.child.send({ id, request });
    });
  }

  async trusted(): Promise<boolean> {
    return (await this.ask<{ trusted: boolean }>({ op: "stats" })).trusted;
  }

  /** Waits until it answers from memory. */
  async warm(): Promise<void> {
    await eventually(async () => {
      await this.ask({ op: "load" });
      return (await this.ask({ op: "peek" })) !== null;
    }, "it caches");
  }
}

interface World {
  readonly settings: ProcessSettings;
  readonly node: Node;
  /** Cuts all connections of this test that listen. */
  cut(): Promise<void>;
}

async function world(t: TestContext, driver: string, times: { heartbeatMs: number; deadMs: number }): Promise<World> {
  const { database, url } = await testDatabase(t);
  await database.query("CREATE TABLE truth (value integer NOT NULL)");
  await database.query("INSERT INTO truth VALUES (0)");
  const redisUrl = driver === "redis" ? await testRedisUrl() : null;
  const settings = { databaseUrl: url, redisUrl, prefix: `test-${randomBytes(5).toString("hex")}:`, ...times };
  const node = await openNode(settings);
  t.after(() => node.close());
  return {
    settings,
    node,
    cut: async () => {
      if (redisUrl === null) {
        await database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", [settings.prefix]);
        return;
      }
      const admin = new Redis(redisUrl, { protocol: 2 });
      // The server is shared: only connections of this test.
      const clients = String(await admin.client("LIST")).split("\n");
      const ids = clients
        .filter((line) => line.includes(`name=${settings.prefix}-subscriber `))
        .map((line) => /^id=(\d+)/.exec(line)?.[1] ?? "");
      assert.equal(ids.length, 2);
      for (const id of ids) await admin.client("KILL", "ID", id);
      admin.disconnect();
    },
  };
}

const CALM = { heartbeatMs: 2_000, deadMs: 6_000 };
const QUICK = { heartbeatMs: 200, deadMs: 1_000 };

export function busConformance(driver: "redis" | "postgres"): void {
  test(`${driver}: alone, a publish waits for nobody`, async (t) => {
    const { node } = await world(t, driver, CALM);
    await eventually(() => node.bus.trusted(), "trusted");
    await node.load();
    assert.equal(node.cache.peek("truth"), 0);
    const times: number[] = [];
    for (let index = 0; index < 200; index += 1) {
      const started = performance.now();
      const done = node.bus.publish(["truth", `other-${index}`]);
      assert.equal(node.cache.peek("truth"), undefined, "it was not dropped at once");
      await done;
      times.push(performance.now() - started);
    }
    const median = times.toSorted((a, b) => a - b)[100] ?? Infinity;
    assert.ok(median < 2, `median ${median} ms`);
    assert.equal(node.bus.stats().unacknowledged, 0);
  });

  test(`${driver}: after a publish no busy process shows the old value, whoever publishes`, async (t) => {
    const { node, settings } = await world(t, driver, CALM);
    const peers = await Promise.all([Peer.start(t, settings), Peer.start(t, settings)]);
    for (const peer of peers) {
      await eventually(() => peer.trusted(), "the peer has joined");
      await peer.ask({ op: "hammer" });
    }
    const written: number[] = [Date.now()];
    for (let value = 1; value <= 60; value += 1) {
      const writer = peers[value % 3];
      if (writer) await writer.ask({ op: "write", value });
      else await node.write(value);
      written[value] = Date.now();
      for (const peer of peers) {
        const shown = await peer.ask<number | null>({ op: "peek" });
        assert.ok(shown === null || shown === value, `${shown} was shown after ${value} was written`);
      }
      if (value % 10 === 0) await pause(100);
    }
    for (const peer of peers) {
      const seen = await peer.ask<Seen>({ op: "seen" });
      for (const [value, at] of Object.entries(seen.last)) {
        const replaced = written[Number(value) + 1];
        assert.ok(replaced === undefined || at <= replaced, `${value} was shown ${at - (replaced ?? 0)} ms after its end`);
      }
      assert.ok(seen.hits > 100, "the peer did not use its cache");
    }
    t.diagnostic(`unacknowledged: ${node.bus.stats().unacknowledged}`);
  });

  test(`${driver}: a stopped process holds a publisher up for half a second at most, and shows nothing old when continued`, async (t) => {
    const { node, settings } = await world(t, driver, CALM);
    const peer = await Peer.start(t, settings);
    await eventually(() => peer.trusted(), "the peer has joined");
    await peer.ask({ op: "hammer" });
    await peer.warm();
    for (const [value, waitMs] of [
      [1, 0],
      [2, 700],
    ] as const) {
      peer.child.kill("SIGSTOP");
      await pause(30);
      const started = performance.now();
      await node.write(value);
      const published = Date.now();
      const took = performance.now() - started;
      assert.ok(took > 400 && took < PATIENCE_MS, `the publisher waited ${took} ms`);
      await pause(waitMs);
      peer.child.kill("SIGCONT");
      await eventually(async () => (await peer.ask({ op: "peek" })) === value, "it caches the new value");
      const seen = await peer.ask<Seen>({ op: "seen" });
      const last = seen.last[String(value - 1)] ?? 0;
      assert.ok(last <= published, `the old value was shown ${last - published} ms after the publish`);
    }
    assert.ok(node.bus.stats().unacknowledged >= 2);
  });

  test(`${driver}: a killed process holds publishers up until its heartbeat has expired, and no longer`, async (t) => {
    const { node, settings } = await world(t, driver, QUICK);
    const peer = await Peer.start(t, settings);
    await eventually(() => peer.trusted(), "the peer has joined");
    await eventually(() => node.bus.stats().peers === 1, "the peer is known");
    const exited = once(peer.child, "exit");
    peer.child.kill("SIGKILL");
    await exited;
    const started = performance.now();
    await node.write(1);
    const took = performance.now() - started;
    assert.ok(took > 400 && took < PATIENCE_MS, `the publisher waited ${took} ms`);
    await eventually(() => node.bus.stats().peers === 0, "its heartbeat has expired");
    await eventually(() => node.bus.trusted(), "trusted, alone again");
    const times: number[] = [];
    for (let turn = 0; turn < 5; turn += 1) {
      const again = performance.now();
      await node.write(2 + turn);
      times.push(performance.now() - again);
    }
    assert.ok(Math.min(...times) < 300, `publishers still wait: ${times.join()}`);
  });

  test(`${driver}: a process stopped beyond its heartbeat joins again before it trusts its cache`, async (t) => {
    const { node, settings } = await world(t, driver, QUICK);
    const peer = await Peer.start(t, settings);
    await eventually(() => peer.trusted(), "the peer has joined");
    await peer.ask({ op: "hammer" });
    await peer.warm();
    const joinsBefore = (await peer.ask<{ joins: number }>({ op: "stats" })).joins;
    peer.child.kill("SIGSTOP");
    await eventually(() => node.bus.stats().peers === 0, "it is struck off");
    await eventually(() => node.bus.trusted(), "trusted, alone again");
    await node.write(1);
    const published = Date.now();
    peer.child.kill("SIGCONT");
    await eventually(async () => (await peer.ask({ op: "peek" })) === 1, "it caches the new value");
    const seen = await peer.ask<Seen>({ op: "seen" });
    assert.ok((seen.last["0"] ?? 0) <= published, "the old value was shown");
    assert.ok((await peer.ask<{ joins: number }>({ op: "stats" })).joins > joinsBefore);
    assert.equal(node.bus.stats().peers, 1);
  });

  test(`${driver}: processes that join while others publish never show an old value`, async (t) => {
    const { node, settings } = await world(t, driver, CALM);
    const written: number[] = [Date.now()];
    let stop = false;
    const writing = (async () => {
      for (let value = 1; !stop; value += 1) {
        await node.write(value);
        written[value] = Date.now();
        await pause(3);
      }
    })();
    const peers: Peer[] = [];
    for (let turn = 0; turn < 3; turn += 1) {
      const peer = await Peer.start(t, settings);
      await peer.ask({ op: "hammer" });
      peers.push(peer);
      await eventually(() => peer.trusted(), "the peer has joined");
      await pause(150);
      if (turn === 1) await peers[0]?.ask({ op: "leave" });
    }
    stop = true;
    await writing;
    for (const peer of peers.slice(1)) {
      const seen = await peer.ask<Seen>({ op: "seen" });
      assert.ok(seen.hits > 0, "the peer did not use its cache");
      for (const [value, at] of Object.entries(seen.last)) {
        const replaced = written[Number(value) + 1];
        assert.ok(replaced === undefined || at <= replaced, `${value} was shown ${at - (replaced ?? 0)} ms after its end`);
      }
    }
    assert.equal(node.bus.stats().peers, 2, "who left is still waited for");
  });

  test(`${driver}: a lost channel ends trust at once, and everything cached is dropped before it returns`, async (t) => {
    const { node, settings, cut } = await world(t, driver, CALM);
    const peer = await Peer.start(t, settings);
    await eventually(() => peer.trusted(), "the peer has joined");
    await eventually(() => node.bus.trusted(), "trusted");
    await node.load();
    assert.equal(node.cache.peek("truth"), 0);
    let resets = 0;
    let trustedAtLoss: boolean | undefined;
    node.bus.onReset(() => {
      resets += 1;
      trustedAtLoss = node.bus.trusted();
    });
    await cut();
    await eventually(() => resets > 0, "everything is dropped");
    assert.equal(trustedAtLoss, false, "trust came back before the drop");
    assert.ok(node.bus.stats().channelLosses > 0);
    await eventually(() => node.bus.trusted(), "trust returns");
    assert.equal(node.cache.peek("truth"), undefined);
    await eventually(() => peer.trusted(), "the peer's trust returns");
    await peer.warm();
    await node.write(1);
    const shown = await peer.ask<number | null>({ op: "peek" });
    assert.ok(shown === null || shown === 1);
  });

  test(`${driver}: a process trusts its cache only when all others know it`, async (t) => {
    const { node, settings } = await world(t, driver, CALM);
    const ghost = { bootId: "ghost", host: "h", address: null, roles: [], features: ["invalidation"], joinedAt: 1 };
    const group = node.kv.group("members");
    await group.put("ghost", JSON.stringify(ghost), 60_000);
    const inbox = recorder();
    await node.kv.subscribe(inboxOf("ghost"), inbox);
    await eventually(() => inbox.events.includes("ready"), "the ghost listens");
    const joiner = await openNode(settings);
    t.after(() => joiner.close());
    await joiner.load();
    await pause(600);
    assert.equal(joiner.bus.trusted(), false, "one in the list did not know it");
    assert.equal(joiner.cache.peek("truth"), undefined);
    await joiner.kv.publish(inboxOf(joiner.members.bootId), JSON.stringify({ t: "known", from: "ghost", n: 0 }));
    await pause(100);
    assert.equal(joiner.bus.trusted(), false, "an answer to another hello counted");
    for (let n = 1; n <= 3; n += 1) {
      await joiner.kv.publish(inboxOf(joiner.members.bootId), JSON.stringify({ t: "known", from: "ghost", n }));
    }
    await eventually(() => joiner.bus.trusted(), "all know it");
    assert.equal(joiner.cache.peek("truth"), undefined, "something from before the join was kept");
    // The other way: a hello is answered, and from then on its sender is waited for until it says goodbye.
    await node.kv.publish(BROADCAST, JSON.stringify({ t: "hello", from: "ghost", n: 77 }));
    await eventually(() => inbox.events.some((event) => event.includes('"known"') && event.includes("77")), "the hello is answered");
    await group.remove("ghost");
    await node.kv.publish(BROADCAST, JSON.stringify({ t: "bye", from: "ghost" }));
    await eventually(() => node.bus.stats().peers === 1, "the ghost has gone");
  });

  test(`${driver}: what could not be sent is sent when the channel is back`, async (t) => {
    const { node, settings } = await world(t, driver, CALM);
    let broken = false;
    const writer = await openNode(settings, (kv) => failingPublish(kv, () => broken));
    t.after(() => writer.close());
    await eventually(() => writer.bus.trusted() && node.bus.trusted(), "both have joined");
    await node.load();
    assert.equal(node.cache.peek("truth"), 0);
    broken = true;
    const started = performance.now();
    await writer.write(1);
    assert.ok(performance.now() - started < PATIENCE_MS);
    await pause(400);
    assert.equal(writer.bus.trusted(), false, "who cannot send cannot prove that it hears");
    broken = false;
    await eventually(() => node.cache.peek("truth") === undefined && node.bus.trusted(), "the other drops it late");
    assert.equal(await node.load(), 1);
    await eventually(() => writer.bus.trusted(), "trust returns");
  });
}

function failingPublish(kv: Kv, isBroken: () => boolean): Kv {
  const publish: Kv["publish"] = (channel, message) =>
    isBroken() ? Promise.reject(new SlipwayError("KV_UNAVAILABLE")) : kv.publish(channel, message);
  return new Proxy(kv, {
    get: (target, key) => {
      if (key === "publish") return publish;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

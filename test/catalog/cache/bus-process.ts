/** A process of its own with bus and cache over a row in Postgres; test processes start it and ask it over IPC. */
import { randomUUID } from "node:crypto";
import { InvalidationBus } from "../../../src/catalog/cache/invalidation-bus.ts";
import { ScopedCache } from "../../../src/catalog/cache/scoped-cache.ts";
import { Database } from "../../../src/db/pool.ts";
import type { Kv } from "../../../src/kv/kv.ts";
import { Members } from "../../../src/kv/members.ts";
import { openKv } from "../../../src/kv/open-kv.ts";
import { silentLogger } from "../../../src/telemetry/logger.ts";

export interface ProcessSettings {
  readonly databaseUrl: string;
  readonly redisUrl: string | null;
  readonly prefix: string;
  readonly heartbeatMs: number;
  readonly deadMs: number;
}

export type Request =
  | { readonly op: "load" }
  | { readonly op: "peek" }
  | { readonly op: "stats" }
  /** Looks all the time, loads what is missing, and remembers until when each value was last looked up. */
  | { readonly op: "hammer" }
  | { readonly op: "seen" }
  | { readonly op: "write"; readonly value: number }
  | { readonly op: "leave" };

export interface Seen {
  /** By value: the last moment (wall clock, ms) at which a look began that gave it. */
  readonly last: Record<string, number>;
  readonly looks: number;
  readonly hits: number;
}

export async function openNode(settings: ProcessSettings, wrap: (kv: Kv) => Kv = (kv) => kv) {
  const database = new Database({ url: settings.databaseUrl, poolSize: 3 });
  const own = await openKv({ redisUrl: settings.redisUrl, database, prefix: settings.prefix, connectionName: settings.prefix });
  const kv = wrap(own);
  const info = { bootId: randomUUID(), host: "test", address: null, roles: ["proxy"] };
  const members = await Members.join(kv, info, { heartbeatMs: settings.heartbeatMs, deadMs: settings.deadMs });
  const bus = await InvalidationBus.open({ kv, members, logger: silentLogger, openWaitMs: 200 });
  const cache = new ScopedCache<number>(
    {
      name: "truth",
      maxBytes: 1_000_000,
      sizeOf: () => 8,
      ttlMs: 600_000,
      staleMs: 600_000,
      negativeTtlMs: 1_000,
      loadTimeoutMs: 5_000,
      maxConcurrentLoads: 4,
      staleOnDbErrorMs: 0,
    },
    bus,
  );
  const load = (): Promise<number | null> =>
    cache.load("truth", "truth", async () => {
      const { rows } = await database.query<{ value: number }>("SELECT value FROM truth");
      return rows[0]?.value ?? null;
    });
  const write = async (value: number): Promise<void> => {
    await database.query("UPDATE truth SET value = $1", [value]);
    await bus.publish(["truth"]);
  };
  const close = async (): Promise<void> => {
    await bus.close();
    await members.leave();
    await kv.close();
    await database.close();
  };
  return { database, kv, members, bus, cache, load, write, close };
}

export type Node = Awaited<ReturnType<typeof openNode>>;

function hammer(node: Node, seen: { last: Record<string, number>; looks: number; hits: number }): void {
  let loading = false;
  const turn = (): void => {
    for (let look = 0; look < 20; look += 1) {
      const now = Date.now();
      const value = node.cache.peek("truth");
      seen.looks += 1;
      if (value !== undefined) {
        seen.hits += 1;
        seen.last[String(value)] = now;
      } else if (!loading) {
        loading = true;
        void node
          .load()
          .then((loaded) => {
            if (loaded !== null) seen.last[String(loaded)] = Math.max(now, seen.last[String(loaded)] ?? 0);
          })
          .catch(() => undefined)
          .finally(() => {
            loading = false;
          });
      }
    }
    setTimeout(turn, 1);
  };
  turn();
}

async function serve(settings: ProcessSettings): Promise<void> {
  const node = await openNode(settings);
  const seen = { last: {} as Record<string, number>, looks: 0, hits: 0 };
  const answer = async (request: Request): Promise<unknown> => {
    switch (request.op) {
      case "load":
        return await node.load();
      case "peek":
        return node.cache.peek("truth") ?? null;
      case "stats":
        return { ...node.bus.stats(), bootId: node.members.bootId };
      case "hammer":
        hammer(node, seen);
        return null;
      case "seen":
        return { ...seen, last: { ...seen.last } };
      case "write":
        await node.write(request.value);
        return Date.now();
      case "leave":
        await node.close();
        return null;
    }
  };
  process.on("message", ({ id, request }: { id: number; request: Request }) => {
    void answer(request).then(
      (result) => process.send?.({ id, result }),
      (error: unknown) => process.send?.({ id, error: String(error) }),
    );
  });
  process.on("disconnect", () => process.exit(0));
  process.send?.({ id: 0 });
}

if (process.send) await serve(JSON.parse(process.argv[2] ?? "") as ProcessSettings);

/**
 * A process of its own that uses a blob store, for what cannot be shown inside the test's process: being killed, running out of space,
 * and how much memory a transfer takes. Arguments: command, configuration as JSON, then what the command needs.
 */
import { createHash, randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { isSlipwayError } from "../../src/core/errors.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import { openBlobStore } from "../../src/storage/open-store.ts";
import type { StorageConfig } from "../../src/storage/storage-config.ts";

const CHUNK = 64 * 1024;

function say(message: object): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

/** The same chunk object again and again, so that the source itself costs no memory; its first bytes count up. */
async function* counted(chunks: number): AsyncGenerator<Uint8Array> {
  const chunk = randomBytes(CHUNK);
  for (let index = 0; index < chunks; index += 1) {
    chunk.writeUInt32BE(index, 0);
    yield chunk;
    if (index % 16 === 0) await delay(0);
  }
}

/** Appends without end and tells how far it is; somebody will kill us. */
async function appendForever(store: BlobStore, id: string): Promise<void> {
  let sent = 0;
  async function* source(): AsyncGenerator<Uint8Array> {
    for (;;) {
      yield Buffer.alloc(CHUNK, "slipway!");
      sent += CHUNK;
      if (sent % (CHUNK * 16) === 0) say({ sent });
      await delay(1);
    }
  }
  await store.append(id, source(), { offset: 0 });
}

async function stream(store: BlobStore, megabytes: number, parallel: number): Promise<void> {
  await push(store, "warm-up", 12);
  globalThis.gc?.();
  const before = process.memoryUsage.rss();
  let peak = before;
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, 20);
  const started = performance.now();
  await Promise.all(Array.from({ length: parallel }, (_, index) => push(store, `stream-${index}`, megabytes)));
  clearInterval(timer);
  say({ grownMb: (peak - before) / 1024 / 1024, seconds: (performance.now() - started) / 1000 });
}

async function push(store: BlobStore, id: string, megabytes: number): Promise<void> {
  const hash = createHash("sha256");
  await store.createSession(id);
  const { offset } = await store.append(id, counted(megabytes * 16), { offset: 0, onChunk: (chunk) => void hash.update(chunk) });
  await store.commitSession(id, { digest: `sha256:${hash.digest("hex")}`, size: offset });
}

/** Fills the disk, then shows that what was there stays and that space given back is used again. */
async function fill(store: BlobStore): Promise<void> {
  const kept = Buffer.alloc(100_000, 7);
  const digest = `sha256:${createHash("sha256").update(kept).digest("hex")}`;
  await store.put(digest, kept);
  await store.createSession("big");
  const appendCode = await codeOf(store.append("big", counted(16 * 64), { offset: 0 }));
  const size = await store.sessionSize("big");
  const putCode = await codeOf(store.put(`sha256:${"0".repeat(64)}`, randomBytes(1_000_000)));
  const keptIsWhole = (await store.readAll(digest, kept.length)).equals(kept);
  await store.abortSession("big");
  await store.createSession("small");
  const after = await store.append("small", counted(16), { offset: 0 });
  say({ appendCode, putCode, size, keptIsWhole, offsetAfter: after.offset, listed: await store.list(null, 10), digest });
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => "none",
    (error: unknown) => (isSlipwayError(error) ? error.code : String(error)),
  );
}

const [command, config, ...rest] = process.argv.slice(2);
const parsed: StorageConfig = JSON.parse(config ?? "{}");
const opened = await openBlobStore(parsed);
if (command === "append-forever") await appendForever(opened, rest[0] ?? "");
else if (command === "stream") await stream(opened, Number(rest[0]), Number(rest[1] ?? 1));
else if (command === "fill") await fill(opened);
else throw new Error(`unknown command ${command}`);
await opened.close();

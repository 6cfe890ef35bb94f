/**
 * How fast the local disk takes a blob (append, sha256, commit), against `dd conv=fsync` and `openssl dgst -sha256` of the same bytes.
 *
 *   SLIPWAY_BENCH_MB=1024 SLIPWAY_BENCH_ROUNDS=5 SLIPWAY_BENCH_DIR=/on/the/disk node test/bench/storage-push.ts
 *
 * Rounds are interleaved; figures are medians. The ratio is push / max(dd, openssl) of the medians, and of each round.
 */
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import { openBlobStore } from "../../src/storage/open-store.ts";
import { median } from "./http-load.ts";

const MIB = 1024 * 1024;
const megabytes = Number(process.env["SLIPWAY_BENCH_MB"] ?? 256);
const rounds = Number(process.env["SLIPWAY_BENCH_ROUNDS"] ?? 5);
/** What a socket hands over at a time. */
const CHUNK = 64 * 1024;
const run = promisify(execFile);

async function* fileChunks(path: string): AsyncGenerator<Uint8Array> {
  const handle = await open(path, "r");
  const block = Buffer.allocUnsafeSlow(MIB);
  try {
    for (;;) {
      const { bytesRead } = await handle.read(block, 0, block.length);
      if (bytesRead === 0) return;
      for (let from = 0; from < bytesRead; from += CHUNK) yield block.subarray(from, Math.min(from + CHUNK, bytesRead));
    }
  } finally {
    await handle.close();
  }
}

async function push(store: BlobStore, path: string): Promise<void> {
  const hash = createHash("sha256");
  await store.createSession("bench");
  const { offset } = await store.append("bench", fileChunks(path), { offset: 0, onChunk: (chunk) => void hash.update(chunk) });
  const digest = `sha256:${hash.digest("hex")}`;
  await store.commitSession("bench", { digest, size: offset });
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  // What the previous one left to the disk must not be paid for by this one.
  await run("sync");
  const started = performance.now();
  await work();
  return performance.now() - started;
}

const folder = await mkdtemp(join(process.env["SLIPWAY_BENCH_DIR"] ?? tmpdir(), "slipway-bench-"));
try {
  const source = join(folder, "source");
  const copy = join(folder, "copy");
  const handle = await open(source, "w");
  for (let index = 0; index < megabytes; index += 1) await handle.write(randomBytes(MIB));
  await handle.close();
  await writeFile(copy, "");
  const times = { push: [] as number[], dd: [] as number[], openssl: [] as number[] };
  const ratios: number[] = [];
  let peak = 0;
  // The first round warms up and does not count.
  for (let round = 0; round <= rounds; round += 1) {
    const root = join(folder, "storage");
    const store = await openBlobStore({ driver: "fs", root });
    const dd = await timed(() => run("dd", [`if=${source}`, `of=${copy}`, "bs=1M", "conv=fsync"]));
    const pushed = await timed(() => push(store, source));
    const openssl = await timed(() => run("openssl", ["dgst", "-sha256", source]));
    peak = Math.max(peak, process.memoryUsage.rss());
    await store.close();
    await rm(root, { recursive: true });
    await rm(copy);
    if (round === 0) continue;
    times.push.push(pushed);
    times.dd.push(dd);
    times.openssl.push(openssl);
    ratios.push(pushed / Math.max(dd, openssl));
  }
  const [pushMs, ddMs, opensslMs] = [median(times.push), median(times.dd), median(times.openssl)];
  console.log(`${megabytes} MB, ${rounds} rounds, medians`);
  console.log(`push (append + sha256 + commit)  ${pushMs.toFixed(0)} ms`);
  console.log(`dd conv=fsync                    ${ddMs.toFixed(0)} ms`);
  console.log(`openssl dgst -sha256             ${opensslMs.toFixed(0)} ms`);
  console.log(`ratio push / max(dd, openssl)    ${(pushMs / Math.max(ddMs, opensslMs)).toFixed(2)}`);
  console.log(`median of the rounds' ratios     ${median(ratios).toFixed(2)} (${ratios.map((ratio) => ratio.toFixed(2)).join(", ")})`);
  console.log(`resident set after               ${(peak / MIB).toFixed(0)} MB`);
} finally {
  await rm(folder, { recursive: true, force: true });
}

/**
 * Pushing blobs through HTTP. Time of one blob against the slower of `dd conv=fsync` and `openssl dgst -sha256` of the same bytes, interleaved, medians; then the
 * resident set of the `proxy` process for one very large push and for many at once.
 * `node test/bench/http-push.ts [MB of one blob] [rounds] [GB of the large push]`, with SLIPWAY_TEST_DATABASE_URL set. Full size: 1024 5 5.
 */
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { open, readFile, rm } from "node:fs/promises";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { startSlipway, sharedServices } from "../support/slipway.ts";
import { mustRun } from "../support/tools.ts";
import { median } from "./http-load.ts";

const MB = Number(process.argv[2] ?? 256);
const ROUNDS = Number(process.argv[3] ?? 5);
const LARGE_GB = Number(process.argv[4] ?? 1);
const PARALLEL = 50;
const PARALLEL_MB = Math.min(100, MB);

const cleanups: (() => Promise<void> | void)[] = [];
const t = { after: (cleanup: () => Promise<void> | void): void => void cleanups.unshift(cleanup) };

const slipway = await startSlipway(t, {
  env: { ...(await sharedServices(t)), SLIPWAY_REGISTRY_AUTH: "open", SLIPWAY_LOG_LEVEL: "error" },
  args: ["--role", "proxy"],
});
const file = join(slipway.dataDir, "input.bin");
t.after(() => rm(file, { force: true }));
const agent = new Agent({ keepAlive: true });
const block = randomBytes(1024 * 1024);

async function writeInput(salt: number): Promise<string> {
  const out = await open(file, "w");
  const hash = createHash("sha256");
  for (let index = 0; index < MB; index += 1) {
    block.writeUInt32LE(index, 0);
    block.writeUInt32LE(salt, 4);
    hash.update(block);
    await out.write(block);
  }
  await out.close();
  return `sha256:${hash.digest("hex")}`;
}

interface Answer {
  readonly status: number;
  readonly location: string;
}

function send(
  method: string,
  path: string,
  options: { length?: number; body?: NodeJS.ReadableStream | AsyncIterable<Buffer> } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(`${slipway.url}${path}`, { method, agent, headers: { "content-length": options.length ?? 0 } }, (answer) => {
      answer.resume();
      answer.once("end", () => resolve({ status: answer.statusCode ?? 0, location: answer.headers.location ?? "" }));
    });
    outgoing.once("error", reject);
    if (!options.body) outgoing.end();
    else void pump(options.body, outgoing).catch(reject);
  });
}

async function pump(body: AsyncIterable<unknown> | NodeJS.ReadableStream, outgoing: ReturnType<typeof request>): Promise<void> {
  for await (const chunk of body as AsyncIterable<Buffer>) if (!outgoing.write(chunk)) await once(outgoing, "drain");
  outgoing.end();
}

async function push(
  repository: string,
  digest: string,
  source: { length: number; body: AsyncIterable<Buffer> | NodeJS.ReadableStream },
): Promise<void> {
  const started = await send("POST", `/v2/library/${repository}/blobs/uploads/`);
  const patched = await send("PATCH", started.location, source);
  if (patched.status !== 202) throw new Error(`PATCH ${patched.status}`);
  const joint = patched.location.includes("?") ? "&" : "?";
  const done = await send("PUT", `${patched.location}${joint}digest=${digest}`);
  if (done.status !== 201) throw new Error(`PUT ${done.status}`);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** The client is a process of its own, as it is in life: curl. */
async function curlPush(digest: string): Promise<void> {
  const started = await send("POST", "/v2/library/curl/blobs/uploads/");
  const child = spawn("curl", [
    "-sf",
    "-o",
    "/dev/null",
    "-X",
    "PUT",
    "-H",
    "Expect:",
    "-H",
    "Content-Type: application/octet-stream",
    "-T",
    file,
    `${slipway.url}${started.location}?digest=${digest}`,
  ]);
  const [code] = (await once(child, "exit")) as [number];
  if (code !== 0) throw new Error(`curl ended with ${code}`);
}

async function rss(): Promise<{ now: number; peak: number }> {
  const status = await readFile(`/proc/${slipway.child.pid}/status`, "utf8");
  const kb = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / 1024;
  return { now: kb("VmRSS"), peak: kb("VmHWM") };
}

function generatedDigest(megabytes: number, salt: number): { digest: string; chunks: () => AsyncGenerator<Buffer> } {
  const seed = createHash("sha512").update(`seed ${salt}`).digest();
  const base = Buffer.alloc(1024 * 1024, seed);
  const hash = createHash("sha256");
  for (let index = 0; index < megabytes; index += 1) {
    base.writeUInt32LE(index, 0);
    hash.update(base);
  }
  return {
    digest: `sha256:${hash.digest("hex")}`,
    async *chunks() {
      const chunk = Buffer.alloc(1024 * 1024, seed);
      for (let index = 0; index < megabytes; index += 1) {
        chunk.writeUInt32LE(index, 0);
        yield Buffer.from(chunk);
      }
    },
  };
}

try {
  await push("warm", generatedDigest(4, 1).digest, { length: 4 * 1024 * 1024, body: generatedDigest(4, 1).chunks() });
  const ours: number[] = [];
  const dd: number[] = [];
  const openssl: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const digest = await writeInput(round);
    for await (const chunk of createReadStream(file)) void chunk;
    openssl.push(await timed(() => mustRun("openssl", ["dgst", "-sha256", file], { timeoutMs: 300_000 })));
    dd.push(
      await timed(() => mustRun("dd", [`if=${file}`, `of=${file}.copy`, "bs=1M", "conv=fsync", "status=none"], { timeoutMs: 300_000 })),
    );
    await rm(`${file}.copy`);
    ours.push(await timed(() => curlPush(digest)));
  }
  const reference = Math.max(median(dd), median(openssl));
  console.log(
    `push of ${MB} MB: ${median(ours).toFixed(0)} ms; dd ${median(dd).toFixed(0)} ms, openssl ${median(openssl).toFixed(0)} ms; ratio ${(median(ours) / reference).toFixed(2)} (bar 1.5)`,
  );

  const before = await rss();
  const large = generatedDigest(LARGE_GB * 1024, 7);
  await push("large", large.digest, { length: LARGE_GB * 1024 * 1024 * 1024, body: large.chunks() });
  const afterLarge = await rss();
  console.log(
    `one push of ${LARGE_GB} GB: resident ${before.now.toFixed(0)} -> peak ${afterLarge.peak.toFixed(0)} MB, grown by ${(afterLarge.peak - before.now).toFixed(0)} MB (bar 100)`,
  );
  const many = Array.from({ length: PARALLEL }, (_, index) => generatedDigest(PARALLEL_MB, 100 + index));
  await Promise.all(many.map((one, index) => push(`many${index}`, one.digest, { length: PARALLEL_MB * 1024 * 1024, body: one.chunks() })));
  const afterMany = await rss();
  console.log(
    `${PARALLEL} pushes of ${PARALLEL_MB} MB at once: peak ${afterMany.peak.toFixed(0)} MB, grown by ${(afterMany.peak - before.now).toFixed(0)} MB (bar 100)`,
  );
} finally {
  agent.destroy();
  for (const cleanup of cleanups) await cleanup();
}

/**
 * Many large cold blobs at once, each read by a client at 1 MB/s: the resident set of the serving process while they are fetched and read, and how fast the fetching is.
 * `node test/bench/proxy-memory.ts [blobs] [MB of a blob] [MB/s of the upstream, 0 unlimited]`, with SLIPWAY_TEST_DATABASE_URL set. Full size: 20 1000; needs that much disk.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import {
  bench,
  cpuOf,
  memoryOf,
  mostGets,
  placeSparseBlob,
  portOf,
  PROJECT,
  pushImage,
  requestsText,
  startCache,
  startGate,
  startUpstream,
} from "./proxy-setting.ts";

const BLOBS = Number(process.argv[2] ?? 20);
const BLOB_BYTES = Number(process.argv[3] ?? 1000) * 1_000_000;
const RATE = Number(process.argv[4] ?? 0) * 1_000_000;
const AFTER_MS = 5_000;
const GIVE_UP_MS = 900_000;

/** Readers of 1 MB/s, in a process of their own; says each second what they have. */
const SLOW_READERS = `
const { connect } = require("node:net");
const [port, ...paths] = process.argv.slice(1);
let total = 0;
let ended = 0;
for (const path of paths) {
  const socket = connect(Number(port), "127.0.0.1");
  const started = Date.now();
  let mine = 0;
  socket.write("GET " + path + " HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n");
  socket.on("error", () => undefined);
  socket.on("close", () => { ended += 1; });
  socket.on("data", (chunk) => {
    mine += chunk.length;
    total += chunk.length;
    const ahead = mine / 1000 - (Date.now() - started);
    if (ahead < 50) return;
    socket.pause();
    setTimeout(() => socket.resume(), ahead);
  });
}
setInterval(() => process.send({ total, ended }), 500);`;

await bench(async (t) => {
  const upstream = await startUpstream(t);
  const gate = await startGate(t, upstream);
  await pushImage(upstream, "large/blobs", { layers: 1, layerBytes: 1_000 });
  const digests: string[] = [];
  for (let index = 0; index < BLOBS; index += 1) {
    digests.push(
      await placeSparseBlob(upstream, "large/blobs", { salt: `blob ${index} of ${process.pid} at ${Date.now()}`, bytes: BLOB_BYTES }),
    );
  }
  const cache = await startCache(t, gate.url);
  const { pid } = cache.child;
  await (await fetch(`${cache.url}/v2/${PROJECT}/large/blobs/manifests/v1`)).arrayBuffer();
  await gate.set({ bytesPerSecond: RATE });
  await delay(1_000);
  await gate.take();
  const idle = memoryOf(pid).now;
  const cpuBefore = cpuOf(pid);
  const paths = digests.map((digest) => `/v2/${PROJECT}/large/blobs/blobs/${digest}`);
  const readers = spawn(process.execPath, ["-e", SLOW_READERS, String(portOf(cache)), ...paths], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  t.after(async () => {
    readers.kill();
    if (readers.exitCode === null && readers.signalCode === null) await once(readers, "exit");
  });
  let read = { total: 0, ended: 0 };
  readers.on("message", (message) => {
    read = message as typeof read;
  });

  const started = performance.now();
  const wanted = BLOBS * BLOB_BYTES;
  let fetched = 0;
  let requests: Record<string, number> = {};
  let most = 0;
  let doneAt = 0;
  const samples: number[] = [];
  while (performance.now() - started < GIVE_UP_MS) {
    await delay(100);
    samples.push(memoryOf(pid).now);
    const counts = await gate.take();
    fetched += counts.bytesDown;
    most = Math.max(most, mostGets(counts));
    for (const [kind, count] of Object.entries(counts.requests)) requests = { ...requests, [kind]: (requests[kind] ?? 0) + count };
    if (doneAt === 0 && fetched >= wanted) doneAt = performance.now();
    if (doneAt > 0 && performance.now() - doneAt > AFTER_MS) break;
  }
  const seconds = (doneAt - started) / 1000;
  const sorted = samples.toSorted((a, b) => a - b);
  console.log(
    `${BLOBS} cold blobs of ${BLOB_BYTES / 1e6} MB, each read at 1 MB/s${RATE > 0 ? `, upstream limited to ${RATE / 1e6} MB/s` : ""}`,
  );
  console.log(
    `  resident set: idle ${idle.toFixed(0)} MB, median ${(sorted[Math.floor(sorted.length / 2)] ?? 0).toFixed(0)} MB, highest ${memoryOf(pid).peak.toFixed(0)} MB (bar 300)`,
  );
  console.log(
    `  fetched ${(fetched / 1e9).toFixed(2)} GB in ${seconds.toFixed(1)} s: ${(wanted / 1e6 / seconds).toFixed(0)} MB/s, ${((cpuOf(pid) - cpuBefore) / (wanted / 1e9)).toFixed(2)} CPU s/GB`,
  );
  console.log(`  the clients had ${(read.total / 1e6).toFixed(0)} MB by then; ${read.ended} connections were lost or complete`);
  console.log(`  upstream saw ${requestsText({ requests, blobs: {}, bytesDown: 0 })}`);
});

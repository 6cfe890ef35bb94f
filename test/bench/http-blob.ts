/**
 * Large answers: a 200 MB blob to 8 curls against nginx with sendfile, CPU seconds per GB beside it; then 100 readers of 1 MB/s, the
 * resident set, and how long another request waits meanwhile. `node test/bench/http-blob.ts [rounds]`, with SLIPWAY_TEST_DATABASE_URL set.
 */
import { fork, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { OciClient, randomContent } from "../support/oci-client.ts";
import { ADMIN, registryBacking } from "../support/registry-server.ts";
import { freePort } from "../support/slipway.ts";
import { STARTED_AS, STARTED_WITH, cpuSeconds, median } from "./http-load.ts";
import type { ProcessOptions } from "./http-process.ts";

const ROUNDS = Number(process.argv[2] ?? 7);
const BLOB_BYTES = 200_000_000;
const CLIENTS = 8;
const FETCHES = 2;
const SLOW_READERS = 100;
const SLOW_SECONDS = 10;
const NAME = "bench/large";

const cleanups: (() => Promise<void> | void)[] = [];
const t = { after: (cleanup: () => Promise<void> | void): void => void cleanups.push(cleanup) };
const backing = await registryBacking(t);

interface RegistryProcess {
  readonly pid: number;
  readonly port: number;
  stop(): Promise<void>;
}

async function startRegistryProcess(): Promise<RegistryProcess> {
  const options: ProcessOptions = { kind: "registry", ...backing, auth: "open", logLevel: "error" };
  const child = fork(new URL("./http-process.ts", import.meta.url), {
    env: { ...STARTED_AS, ...process.env, SLIPWAY_BENCH_PROCESS: JSON.stringify(options) },
    execArgv: [...STARTED_WITH],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  const [message] = (await once(child, "message")) as [{ port: number }];
  const stop = async (): Promise<void> => {
    child.disconnect();
    await once(child, "exit");
  };
  return { pid: child.pid ?? 0, port: message.port, stop };
}

/** One worker with sendfile over a folder of its own; null without nginx. */
async function startNginx(content: Buffer): Promise<{ pid: number; port: number } | null> {
  if (spawnSync("nginx", ["-v"]).error) return null;
  const folder = join(backing.dataDir, "nginx");
  mkdirSync(join(folder, "www"), { recursive: true });
  writeFileSync(join(folder, "www", "blob"), content);
  const port = await freePort();
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/${name};`).join(" ");
  const user = process.getuid?.() === 0 ? "user root;" : "";
  const conf = `${user} worker_processes 1; daemon off; pid ${folder}/pid; error_log ${folder}/error.log;
events { worker_connections 512; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_timeout 75; ${temporary}
  server { listen 127.0.0.1:${port}; root ${folder}/www; } }`;
  writeFileSync(join(folder, "nginx.conf"), conf);
  const child = spawn("nginx", ["-c", join(folder, "nginx.conf"), "-e", join(folder, "error.log")], { stdio: "ignore" });
  t.after(async () => {
    child.kill();
    await once(child, "exit");
  });
  for (let turn = 0; turn < 100; turn += 1) {
    const answer = await fetch(`http://127.0.0.1:${port}/blob`, { method: "HEAD" }).catch(() => null);
    if (answer?.ok) return { pid: workerOf(child.pid ?? 0), port };
    await delay(20);
  }
  throw new Error("nginx did not start");
}

function workerOf(parent: number): number {
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, "utf8");
      if (Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === parent) return Number(entry);
    } catch {
      // Gone between the listing and the look.
    }
  }
  throw new Error("nginx has no worker");
}

const cpuOf = (pid: number): number => cpuSeconds(readFileSync(`/proc/${pid}/stat`, "utf8"));

function memoryOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
}

async function fetchAll(url: string): Promise<number> {
  const started = performance.now();
  const targets = Array.from({ length: FETCHES }, () => ["-o", "/dev/null", url]).flat();
  const curls = Array.from({ length: CLIENTS }, () => spawn("curl", ["-sf", ...targets], { stdio: "ignore" }));
  const codes = await Promise.all(curls.map(async (curl) => (await once(curl, "exit"))[0] as number));
  if (codes.some((code) => code !== 0)) throw new Error(`curl ended with ${codes.join(", ")}`);
  return (performance.now() - started) / 1000;
}

/** Readers of 1 MB/s, in a process of their own. */
const SLOW_READER = `
const { connect } = require("node:net");
const [port, path, readers] = [Number(process.argv[1]), process.argv[2], Number(process.argv[3])];
for (let index = 0; index < readers; index += 1) {
  const socket = connect(port, "127.0.0.1");
  const started = Date.now();
  let total = 0;
  socket.write("GET " + path + " HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n");
  socket.on("error", () => undefined);
  socket.on("data", (chunk) => {
    total += chunk.length;
    const ahead = total / 1000 - (Date.now() - started);
    if (ahead < 50) return;
    socket.pause();
    setTimeout(() => socket.resume(), ahead);
  });
}`;

async function probe(url: string, seconds: number): Promise<number[]> {
  const waits: number[] = [];
  for (const end = performance.now() + seconds * 1000; performance.now() < end;) {
    const started = performance.now();
    await (await fetch(url)).arrayBuffer();
    waits.push(performance.now() - started);
    await delay(5);
  }
  return waits.toSorted((a, b) => a - b);
}

// Pushed through another process: what a push leaves behind in memory is not what is measured here.
const pusher = await startRegistryProcess();
const client = new OciClient(`http://127.0.0.1:${pusher.port}`, { authorization: ADMIN });
const blob = randomContent(BLOB_BYTES);
await client.pushBlob(NAME, blob);
await client.pushImage(NAME, "v1");
await pusher.stop();
const registry = await startRegistryProcess();
t.after(() => registry.stop());
const base = `http://127.0.0.1:${registry.port}`;
const path = `/v2/${NAME}/blobs/${blob.digest}`;
const nginx = await startNginx(blob.bytes);
console.log(`idle: resident set ${memoryOf(registry.pid).toFixed(0)} MB`);

const subjects = [
  { label: "slipway", pid: registry.pid, url: `${base}${path}` },
  ...(nginx ? [{ label: "nginx sendfile", pid: nginx.pid, url: `http://127.0.0.1:${nginx.port}/blob` }] : []),
];
const gigabytes = (BLOB_BYTES * CLIENTS * FETCHES) / 1e9;
const results = new Map<string, { rate: number; cpu: number }[]>(subjects.map(({ label }) => [label, []]));
for (let round = 0; round < ROUNDS; round += 1) {
  for (const { label, pid, url } of subjects) {
    const before = cpuOf(pid);
    const seconds = await fetchAll(url);
    results.get(label)?.push({ rate: gigabytes / seconds, cpu: (cpuOf(pid) - before) / gigabytes });
  }
}
console.log(`\n${BLOB_BYTES / 1e6} MB, ${CLIENTS} clients, ${FETCHES} fetches each, medians of ${ROUNDS} rounds`);
const ours = median((results.get("slipway") ?? []).map(({ rate }) => rate));
for (const [label, rounds] of results) {
  const rate = median(rounds.map((round) => round.rate));
  console.log(
    `  ${label.padEnd(16)} ${rate.toFixed(2)} GB/s  ${median(rounds.map((round) => round.cpu)).toFixed(2)} CPU s/GB  slipway is ${(ours / rate).toFixed(2)} of it`,
  );
}
if (nginx === null) console.log("  nginx is not on the PATH: nothing to compare with");
console.log(`  resident set ${memoryOf(registry.pid).toFixed(0)} MB`);

const readers = spawn(process.execPath, ["-e", SLOW_READER, String(registry.port), path, String(SLOW_READERS)], { stdio: "ignore" });
let highest = 0;
const sampler = setInterval(() => {
  highest = Math.max(highest, memoryOf(registry.pid));
}, 100);
const [hot, cold] = await Promise.all([
  probe(`${base}/v2/${NAME}/manifests/v1`, SLOW_SECONDS),
  probe(`${base}/v2/${NAME}/tags/list`, SLOW_SECONDS),
]);
clearInterval(sampler);
readers.kill();
await once(readers, "exit");
console.log(`\n${SLOW_READERS} readers of 1 MB/s, ${SLOW_SECONDS} s: highest resident set ${highest.toFixed(0)} MB`);
for (const [label, waits] of [
  ["manifest from memory", hot],
  ["tag list from the database", cold],
] as const) {
  const at = (share: number): string => (waits[Math.floor((waits.length - 1) * share)] ?? Number.NaN).toFixed(1);
  console.log(`  ${label.padEnd(28)} ${waits.length} requests, median ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`);
}
for (const cleanup of cleanups.toReversed()) await cleanup();

/** What the proxy benches share: a real registry as the upstream, the gate in front of it, the program as its cache, clients, images. */
import { fork, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { contentOf, imageDocument, OciClient, OCI_IMAGE } from "../support/oci-client.ts";
import type { Content } from "../support/oci-client.ts";
import { freePort, sharedServices, startSlipway } from "../support/slipway.ts";
import type { RunningSlipway, SlipwayOptions } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { findTool } from "../support/tools.ts";
import { cpuSeconds, STARTED_AS, STARTED_WITH } from "./http-load.ts";
import type { GateCounts, GateFaults } from "./proxy-gate.ts";
import type { PullRequest, PullResult } from "./proxy-puller.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

/** Clean-up of a bench, in reverse order. */
export function benchScope(): Cleanable & { close(): Promise<void> } {
  const steps: (() => Promise<void> | void)[] = [];
  const close = async (): Promise<void> => {
    for (let step = steps.pop(); step; step = steps.pop()) await step();
  };
  return { after: (step) => void steps.push(step), close };
}

/** Runs it and cleans up, also after a failure, Ctrl-C and the end of a time limit. */
export async function bench(work: (t: Cleanable) => Promise<void>): Promise<void> {
  const scope = benchScope();
  // A reader of the figures that goes early must not take the clean-up with it.
  process.stdout.on("error", () => undefined);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void scope.close().finally(() => process.exit(130)));
  try {
    await work(scope);
  } finally {
    await scope.close();
  }
}

export interface Upstream {
  /** Of the registry itself. */
  readonly url: string;
  readonly port: number;
  readonly pid: number | undefined;
  /** Where the registry keeps its files. */
  readonly folder: string;
}

/** Debian's docker-registry, on a folder of its own. */
export async function startUpstream(t: Cleanable): Promise<Upstream> {
  const program = findTool("docker-registry");
  if (program === null) throw new Error("MISSING TOOL: docker-registry is not installed (Debian's package docker-registry)");
  const folder = await tempDir(t, "slipway-bench-upstream-");
  const port = await freePort();
  const config = join(folder, "config.yml");
  const storage = `storage:\n  filesystem:\n    rootdirectory: ${folder}/data\n    maxthreads: 200\n  cache:\n    blobdescriptor: inmemory\n`;
  await writeFile(
    config,
    `version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n${storage}http:\n  addr: 127.0.0.1:${port}\n`,
  );
  const child = spawn(program, ["serve", config], { stdio: "ignore", env: { ...process.env, OTEL_TRACES_EXPORTER: "none" } });
  t.after(() => ended(child));
  const url = `http://127.0.0.1:${port}`;
  for (let turn = 0; turn < 200; turn += 1) {
    const answer = await fetch(`${url}/v2/`).catch(() => null);
    if (answer?.ok) return { url, port, pid: child.pid, folder: join(folder, "data") };
    await delay(50);
  }
  throw new Error("docker-registry did not start");
}

/** Of a program that is not asked to tidy up. */
export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}

export interface Gate {
  readonly port: number;
  readonly pid: number | undefined;
  readonly url: string;
  set(faults: Partial<GateFaults>): Promise<void>;
  /** What passed since the last call. */
  take(): Promise<GateCounts>;
}

export async function startGate(t: Cleanable, target: Upstream): Promise<Gate> {
  const child = fork(new URL("./proxy-gate.ts", import.meta.url), {
    env: { ...process.env, SLIPWAY_BENCH_TARGET: String(target.port) },
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  t.after(() => ended(child));
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  const ask = caller<{ counts?: GateCounts }>(child);
  return {
    port,
    pid: child.pid,
    url: `http://127.0.0.1:${port}`,
    set: async (faults) => void (await ask({ faults })),
    take: async () => (await ask({ take: true })).counts as GateCounts,
  };
}

export interface Bare {
  readonly port: number;
  readonly pid: number | undefined;
}

/** The floor to measure against: passes on, hashes and writes, nothing else. */
export async function startBare(t: Cleanable, gate: Gate): Promise<Bare> {
  const child = fork(new URL("./proxy-bare.ts", import.meta.url), {
    execArgv: STARTED_WITH,
    env: { ...process.env, ...STARTED_AS, SLIPWAY_BENCH_TARGET: String(gate.port) },
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  t.after(() => {
    const gone = once(child, "exit");
    child.disconnect();
    return gone.then(() => undefined);
  });
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  return { port, pid: child.pid };
}

const SETTLE_BLOCK = Buffer.alloc(1024 * 1024, 1);
const REPORTED_AFTER_MS = 2_500;

/**
 * Takes so much memory and gives it back at once. On a virtual machine that returns what is free to its host, the first touch of a page takes 18 us (5 s for a GB), which
 * would be counted for whoever writes files and not for the direct pull. The kernel returns pages two seconds after they became free: what is due from before is waited for,
 * or it takes these away in the middle of a pull.
 */
export async function settleMemory(bytes: number): Promise<void> {
  await delay(REPORTED_AFTER_MS);
  const path = join(tmpdir(), `slipway-bench-memory-${process.pid}`);
  const fd = openSync(path, "w");
  for (let position = 0; position < bytes; position += SETTLE_BLOCK.length) writeSync(fd, SETTLE_BLOCK, 0, SETTLE_BLOCK.length, position);
  closeSync(fd);
  await rm(path);
}

/** Requests and answers over the channel of a forked process, told apart by a number. */
function caller<Result>(child: ChildProcess): (message: object) => Promise<Result> {
  let last = 0;
  const waiting = new Map<number, { resolve: (answer: Result) => void; reject: (error: Error) => void }>();
  child.on("message", (answer: Result & { id: number }) => waiting.get(answer.id)?.resolve(answer));
  child.once("exit", (code) => {
    for (const { reject } of waiting.values()) reject(new Error(`a helper process ended with ${code}`));
  });
  return (message) =>
    new Promise((resolve, reject) => {
      const id = ++last;
      const done = (answer: Result): void => {
        waiting.delete(id);
        resolve(answer);
      };
      waiting.set(id, { resolve: done, reject });
      child.send({ id, ...message });
    });
}

export type Puller = (request: Omit<PullRequest, "id">) => Promise<PullResult>;

export async function startPuller(t: Cleanable): Promise<Puller> {
  const child = fork(new URL("./proxy-puller.ts", import.meta.url), { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  t.after(() => ended(child));
  await once(child, "message");
  const ask = caller<{ result: PullResult }>(child);
  return async (request) => (await ask(request)).result;
}

/** The name of the proxy project, and of the upstream, in every bench. */
export const PROJECT = "bench";

/** The program over the upstream, started with the flags of the bootstrap; its settings may be given again for a restart. */
export async function startCache(
  t: Cleanable,
  upstreamUrl: string,
  options: SlipwayOptions & { readonly services?: Readonly<Record<string, string>> } = {},
): Promise<RunningSlipway> {
  const folder = await tempDir(t, "slipway-bench-config-");
  const file = join(folder, "slipway.toml");
  await writeFile(file, `[[upstreams]]\nname = "${PROJECT}"\nurl = "${upstreamUrl}"\ntype = "docker-registry"\npublic = true\n`);
  const flags = [...STARTED_WITH, ...(process.env["SLIPWAY_BENCH_NODE_FLAGS"]?.split(" ") ?? [])];
  return startSlipway(t, {
    ...options,
    args: options.args ?? ["--role", "proxy"],
    env: {
      ...STARTED_AS,
      ...(options.services ?? (await sharedServices(t))),
      NODE_OPTIONS: flags.join(" "),
      SLIPWAY_CONFIG: file,
      SLIPWAY_REGISTRY_AUTH: "open",
      SLIPWAY_LOG_LEVEL: process.env["SLIPWAY_BENCH_LOG_LEVEL"] ?? "error",
      ...options.env,
    },
  });
}

export const portOf = (server: { readonly url: string }): number => Number(new URL(server.url).port);

export interface PushedImage {
  readonly name: string;
  readonly manifest: Content;
  /** Config and layers. */
  readonly blobs: number;
  readonly bytes: number;
}

/** An image of random layers, straight to the upstream. */
export async function pushImage(
  upstream: Upstream,
  name: string,
  { layers, layerBytes }: { layers: number; layerBytes: number },
): Promise<PushedImage> {
  const client = new OciClient(upstream.url);
  const config = contentOf(JSON.stringify({ architecture: "amd64", os: "linux", name, at: performance.now() }));
  await pushBlob(client, name, config);
  const descriptors: object[] = [];
  const bytes = Buffer.allocUnsafe(layerBytes);
  for (let index = 0; index < layers; index += 1) {
    const layer = contentOf(randomFillSync(bytes));
    await pushBlob(client, name, layer);
    descriptors.push({ mediaType: "application/vnd.oci.image.layer.v1.tar", digest: layer.digest, size: layerBytes });
  }
  const manifest = contentOf(JSON.stringify(imageDocument(config, null, { layers: descriptors })));
  const answer = await client.putManifest(name, "v1", manifest.bytes, { "content-type": OCI_IMAGE });
  if (answer.status !== 201) throw new Error(`manifest was not pushed: ${answer.status} ${await answer.text()}`);
  return { name, manifest, blobs: layers + 1, bytes: config.bytes.length + layers * layerBytes };
}

/** In two requests: docker-registry knows no single one. */
async function pushBlob(client: OciClient, name: string, content: Content): Promise<void> {
  const answer = await client.finish(await client.location(name), content.digest, content.bytes);
  if (answer.status !== 201) throw new Error(`blob was not pushed: ${answer.status} ${await answer.text()}`);
}

/** Puts a large blob into the upstream's folder as a file that is nearly all hole: no disk is needed for it there. */
export async function placeSparseBlob(upstream: Upstream, name: string, options: { salt: string; bytes: number }): Promise<string> {
  const hash = createHash("sha256");
  const head = Buffer.from(options.salt);
  const zeros = Buffer.alloc(1024 * 1024);
  hash.update(head);
  for (let left = options.bytes - head.length; left > 0; left -= zeros.length)
    hash.update(left < zeros.length ? zeros.subarray(0, left) : zeros);
  const hex = hash.digest("hex");
  const root = join(upstream.folder, "docker", "registry", "v2");
  const folder = join(root, "blobs", "sha256", hex.slice(0, 2), hex);
  const links = join(root, "repositories", name, "_layers", "sha256", hex);
  await Promise.all([mkdir(folder, { recursive: true }), mkdir(links, { recursive: true })]);
  const { open } = await import("node:fs/promises");
  const file = await open(join(folder, "data"), "w");
  await file.write(head);
  await file.truncate(options.bytes);
  await file.close();
  await writeFile(join(links, "link"), `sha256:${hex}`);
  return `sha256:${hex}`;
}

export const requestsText = (counts: GateCounts): string =>
  Object.entries(counts.requests)
    .toSorted(([a], [b]) => a.localeCompare(b))
    .map(([kind, count]) => `${count} ${kind}`)
    .join(", ") || "none";

export const totalRequests = (counts: GateCounts): number => Object.values(counts.requests).reduce((sum, count) => sum + count, 0);

export const mostGets = (counts: GateCounts): number => Math.max(0, ...Object.values(counts.blobs));

export const cpuOf = (pid: number | undefined): number => cpuSeconds(readFileSync(`/proc/${pid}/stat`, "utf8"));

export function memoryOf(pid: number | undefined): { readonly now: number; readonly peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const megabytes = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / 1024;
  return { now: megabytes("VmRSS"), peak: megabytes("VmHWM") };
}

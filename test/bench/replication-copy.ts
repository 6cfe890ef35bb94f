/**
 * A full copy and a run that finds nothing to do, registry to registry, beside regsync, crane, skopeo and oras where they are installed (on the PATH or in the folder
 * that SLIPWAY_BENCH_PEERS names): wall time and requests by kind. Source and target are docker-registry behind gates that count and delay; each tool gets a fresh target.
 * `node test/bench/replication-copy.ts [rounds] [delay ms] [repositories] [MB of a large layer] [peers, with commas]`. Full size: 4 0 20 100, and 3 20 5 100.
 */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir } from "../support/temp.ts";
import { mustRun } from "../support/tools.ts";
import { median } from "./http-load.ts";
import { bench, benchScope, cpuOf, requestsText, settleMemory, startGate, startUpstream, totalRequests } from "./proxy-setting.ts";
import type { GateCounts } from "./proxy-gate.ts";
import type { Gate, Upstream } from "./proxy-setting.ts";
import { fillRegistry, findPeer, missingTags, startReplication } from "./replication-setting.ts";
import type { Filled, ReplicationApi } from "./replication-setting.ts";

const ROUNDS = Number(process.argv[2] ?? 2);
const DELAY_MS = Number(process.argv[3] ?? 0);
const REPOSITORIES = Number(process.argv[4] ?? 20);
const LARGE_MB = Number(process.argv[5] ?? 100);
const PEERS = (process.argv[6] ?? "crane,regsync,skopeo").split(",");

interface Sides {
  readonly source: Gate;
  readonly target: Gate;
  readonly filled: Filled;
  readonly folder: string;
}

interface Tool {
  readonly name: string;
  /** Seconds of one run; the second run of the same sides finds nothing to do. */
  prepare(sides: Sides): Promise<() => Promise<number>>;
  /** CPU seconds so far, where the tool is a process that stays. */
  cpu?(): number;
}

interface Sample {
  readonly full: number;
  readonly nothing: number;
}

const host = (gate: Gate): string => `127.0.0.1:${gate.port}`;
const repositoriesOf = (filled: Filled): string[] => [...new Set([...filled.tags.keys()].map((name) => name.split(":")[0] ?? ""))];

function timed(work: () => Promise<unknown>): () => Promise<number> {
  return async () => {
    const started = performance.now();
    await work();
    return (performance.now() - started) / 1000;
  };
}

function peers(): Tool[] {
  const tools: Tool[] = [];
  const add = (program: string, name: string, prepare: (path: string, sides: Sides) => Promise<() => Promise<unknown>>): void => {
    if (!PEERS.includes(program)) return;
    const path = findPeer(program);
    if (path === null) console.log(`${name}: not installed`);
    else tools.push({ name, prepare: async (sides) => timed(await prepare(path, sides)) });
  };
  add("crane", "crane copy -a -j 8, one run per repository", async (path, { source, target, filled }) => async () => {
    for (const name of repositoriesOf(filled))
      await mustRun(path, ["copy", "--insecure", "-a", "-j", "8", `${host(source)}/${name}`, `${host(target)}/${name}`], LONG);
  });
  add("regsync", "regsync, parallel 8", async (path, { source, target, filled, folder }) => {
    const creds = [source, target].map((gate) => `  - registry: ${host(gate)}\n    tls: disabled\n    reqConcurrent: 8\n`).join("");
    const sync = repositoriesOf(filled).map(
      (name) => `  - source: ${host(source)}/${name}\n    target: ${host(target)}/${name}\n    type: repository\n`,
    );
    const file = join(folder, "regsync.yml");
    await writeFile(file, `version: 1\ncreds:\n${creds}defaults:\n  parallel: 8\nsync:\n${sync.join("")}`);
    return () => mustRun(path, ["once", "-c", file], LONG);
  });
  add("skopeo", "skopeo sync, one run per repository", async (path, { source, target, filled }) => async () => {
    for (const name of repositoriesOf(filled)) {
      const project = name.split("/")[0] ?? "";
      const flags = ["--src", "docker", "--dest", "docker", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"];
      await mustRun(path, ["sync", ...flags, `${host(source)}/${name}`, `${host(target)}/${project}`], LONG);
    }
  });
  return tools;
}

const LONG = { timeoutMs: 300_000 };

function ours(api: ReplicationApi): Tool {
  let runs = 0;
  return {
    name: "slipway",
    cpu: () => cpuOf(api.running.child.pid),
    async prepare({ source, target }) {
      runs += 1;
      const from = await api.registry(`source-${runs}`, source.url);
      const to = await api.registry(`target-${runs}`, target.url);
      const policy = await api.policy(`bench-${runs}`, from, to);
      return async () => {
        const { seconds, execution } = await api.run(policy);
        if (execution.status !== "Succeed") throw new Error(`the execution ended as ${execution.status}: ${execution.status_text}`);
        return seconds;
      };
    },
  };
}

await bench(async (t) => {
  const registry = await startUpstream(t);
  const largeBytes = LARGE_MB * 1_000_000;
  const filled = await fillRegistry(registry, { repositories: REPOSITORIES, tags: 10, layers: 4, layerBytes: 1_000_000, largeBytes });
  console.log(`${filled.tags.size} tags, ${filled.blobs} blobs, ${(filled.bytes / 1e9).toFixed(2)} GB, ${DELAY_MS} ms a request`);
  const source = await startGate(t, registry);
  await source.set({ delayMs: DELAY_MS });
  const api = await startReplication(t);
  const tools = [ours(api), ...peers()];
  const samples = new Map<string, Sample[]>(tools.map((tool) => [tool.name, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const tool of tools) {
      try {
        samples.get(tool.name)?.push(await sample(tool, { registry, source, filled, isFirst: round === 0 }));
      } catch (error) {
        // A peer that cannot do it is left out; ours must.
        if (tool === tools[0]) throw error;
        console.log(`${tool.name}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }
  report(samples);
});

async function sample(tool: Tool, options: { registry: Upstream; source: Gate; filled: Filled; isFirst: boolean }): Promise<Sample> {
  const { source, filled, isFirst } = options;
  const scope = benchScope();
  try {
    const registry: Upstream = await startUpstream(scope);
    const target = await startGate(scope, registry);
    await target.set({ delayMs: DELAY_MS });
    const run = await tool.prepare({ source, target, filled, folder: await tempDir(scope, "slipway-bench-copy-") });
    await Promise.all([source.take(), target.take()]);
    await settleMemory(1.5 * filled.bytes);
    const meters = [tool.cpu ?? childrenCpu, sumOf(options.registry, registry), sumOf(source, target), machineCpu];
    const before = meters.map((meter) => meter());
    const full = await run();
    const [own, registries, gates, machine] = meters.map((meter, index) => (meter() - (before[index] ?? 0)).toFixed(1));
    const cpu = `, ${own} s of CPU (registries ${registries}, gates ${gates}, the whole machine ${machine} of ${(full * availableParallelism()).toFixed(1)})`;
    const copied = await Promise.all([source.take(), target.take()] as const);
    const wrong = await missingTags(registry, filled.tags);
    if (wrong.length > 0) throw new Error(`${tool.name}: ${wrong.length} tags are missing or wrong, such as ${wrong[0]}`);
    const nothing = await run();
    const looked = await Promise.all([source.take(), target.take()] as const);
    console.log(`${tool.name}: full ${full.toFixed(2)} s${cpu}, no-op ${nothing.toFixed(2)} s`);
    if (isFirst) {
      const sum = (counts: readonly GateCounts[]): number => counts.reduce((total, each) => total + totalRequests(each), 0);
      console.log(`\n${tool.name}: full ${sum(copied)} requests, no-op ${sum(looked)}`);
      console.log(`  full: source ${requestsText(copied[0])}; target ${requestsText(copied[1])}`);
      console.log(`  no-op: source ${requestsText(looked[0])}; target ${requestsText(looked[1])}`);
    }
    return { full, nothing };
  } finally {
    await scope.close();
  }
}

function sumOf(...processes: readonly { readonly pid: number | undefined }[]): () => number {
  return () => processes.reduce((sum, { pid }) => sum + cpuOf(pid), 0);
}

/** Of everything, databases and the kernel's own work among it. */
function machineCpu(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = (readFileSync("/proc/stat", "utf8").split("\n")[0] ?? "")
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) / 100;
}

/** Of programs that were run and have ended. */
function childrenCpu(): number {
  const fields = readFileSync("/proc/self/stat", "utf8").split(") ").at(-1)?.split(" ") ?? [];
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

function report(samples: ReadonlyMap<string, readonly Sample[]>): void {
  const rows = [...samples]
    .filter(([, list]) => list.length > 0)
    .map(([name, list]) => ({
      name,
      full: median(list.map((each) => each.full)),
      nothing: median(list.map((each) => each.nothing)),
      all: list.map((each) => each.full.toFixed(1)).join(" "),
    }));
  const best = Math.min(...rows.slice(1).map((row) => row.full));
  console.log(`\n| tool | full copy, s | all | no-op, s | full against the best peer |\n|---|---|---|---|---|`);
  for (const { name, full, nothing, all } of rows) {
    const ratio = Number.isFinite(best) ? (full / best).toFixed(2) : "no peer here";
    console.log(`| ${name} | ${full.toFixed(2)} | ${all} | ${nothing.toFixed(2)} | ${ratio} |`);
  }
}

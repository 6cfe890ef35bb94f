/**
 * Two workers against one, where the other side is slow (a delay on every request) and each worker may have few requests in flight: the pace of the copy.
 * `node test/bench/replication-scale.ts [rounds] [delay ms] [requests in flight per worker] [repositories]`. Full size: 3 200 8 20.
 */
import { sharedServices } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { median } from "./http-load.ts";
import { bench, benchScope, startGate, startUpstream } from "./proxy-setting.ts";
import type { Gate } from "./proxy-setting.ts";
import { fillRegistry, missingTags, startReplication } from "./replication-setting.ts";
import type { Filled, ReplicationApi } from "./replication-setting.ts";

const ROUNDS = Number(process.argv[2] ?? 1);
const DELAY_MS = Number(process.argv[3] ?? 200);
const IN_FLIGHT = process.argv[4] ?? "8";
const REPOSITORIES = Number(process.argv[5] ?? 10);

interface Setting {
  readonly api: ReplicationApi;
  readonly source: Gate;
  readonly filled: Filled;
}

let runs = 0;

/** One full copy to a fresh registry by the workers that run. */
async function measure({ api, source, filled }: Setting): Promise<number> {
  const scope = benchScope();
  try {
    const registry = await startUpstream(scope);
    const target = await startGate(scope, registry);
    await target.set({ delayMs: DELAY_MS });
    runs += 1;
    const from = await api.registry(`source-${runs}`, source.url);
    const policy = await api.policy(`scale-${runs}`, from, await api.registry(`target-${runs}`, target.url));
    const { seconds, execution } = await api.run(policy);
    const wrong = await missingTags(registry, filled.tags);
    if (execution.status !== "Succeed" || wrong.length > 0) throw new Error(`ended as ${execution.status}, ${wrong.length} tags wrong`);
    return seconds;
  } finally {
    await scope.close();
  }
}

await bench(async (t) => {
  const registry = await startUpstream(t);
  const filled = await fillRegistry(registry, { repositories: REPOSITORIES, tags: 10, layers: 4, layerBytes: 20_000, largeBytes: 0 });
  const source = await startGate(t, registry);
  await source.set({ delayMs: DELAY_MS });
  console.log(
    `${filled.tags.size} tags, ${filled.blobs} blobs, ${DELAY_MS} ms a request, ${IN_FLIGHT} requests in flight per worker and host`,
  );
  const services = await sharedServices(t);
  const api = await startReplication(t, { env: services, args: ["--role", "api", "--role", "refresh", "--role", "maintenance"] });
  const env = { ...services, SLIPWAY_REPLICATION_MAX_REQUESTS_PER_HOST: IN_FLIGHT };
  const startWorker = (dataDir: string) => startReplication(t, { env, dataDir, args: ["--role", "replication"] });
  await startWorker(await tempDir(t, "slipway-bench-scale-"));
  const second = await tempDir(t, "slipway-bench-scale-");
  const one: number[] = [];
  const two: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    one.push(await measure({ api, source, filled }));
    console.log(`round ${round + 1}: one worker ${one.at(-1)?.toFixed(1)} s`);
    const worker = await startWorker(second);
    two.push(await measure({ api, source, filled }));
    console.log(`round ${round + 1}: two workers ${two.at(-1)?.toFixed(1)} s`);
    await worker.running.stop();
  }
  console.log(`two workers have ${(median(one) / median(two)).toFixed(2)} times the pace of one`);
});

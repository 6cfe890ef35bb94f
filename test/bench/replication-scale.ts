/**
 * Two workers against one, where the other side is slow (a delay on every request) and each worker may have few requests in flight: the pace of the copy.
 * `node test/bench/replication-scale.ts [rounds] [delay ms] [requests in flight per worker] [repositories]`, with SLIPWAY_TEST_DATABASE_URL set. Full size: 3 200 8 20.
 */
import { sharedServices } from "../support/slipway.ts";
import { median } from "./http-load.ts";
import { bench, benchScope, startGate, startUpstream } from "./proxy-setting.ts";
import type { Gate } from "./proxy-setting.ts";
import { fillRegistry, missingTags, startReplication } from "./replication-setting.ts";
import type { Filled } from "./replication-setting.ts";

const ROUNDS = Number(process.argv[2] ?? 1);
const DELAY_MS = Number(process.argv[3] ?? 200);
const IN_FLIGHT = process.argv[4] ?? "8";
const REPOSITORIES = Number(process.argv[5] ?? 10);

async function secondsWith(workers: number, source: Gate, filled: Filled): Promise<number> {
  const scope = benchScope();
  try {
    const services = await sharedServices(scope);
    const registry = await startUpstream(scope);
    const target = await startGate(scope, registry);
    await target.set({ delayMs: DELAY_MS });
    const api = await startReplication(scope, { env: services, args: ["--role", "api", "--role", "refresh", "--role", "maintenance"] });
    const env = { ...services, SLIPWAY_REPLICATION_MAX_REQUESTS_PER_HOST: IN_FLIGHT };
    for (let worker = 0; worker < workers; worker += 1) await startReplication(scope, { env, args: ["--role", "replication"] });
    const policy = await api.policy("scale", await api.registry("source", source.url), await api.registry("target", target.url));
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
  const one: number[] = [];
  const two: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    one.push(await secondsWith(1, source, filled));
    two.push(await secondsWith(2, source, filled));
    console.log(`round ${round + 1}: one worker ${one.at(-1)?.toFixed(1)} s, two workers ${two.at(-1)?.toFixed(1)} s`);
  }
  console.log(`two workers have ${(median(one) / median(two)).toFixed(2)} times the pace of one`);
});

/**
 * Many tags, planned and found unchanged: seconds, requests, the worker's resident set, its pace, and the size of the run's history. All tags name one small image, so that the registry
 * is filled quickly; nothing in planning knows that.
 * `node test/bench/replication-plan.ts [tags]`, with SLIPWAY_TEST_DATABASE_URL set. Full size: 100000.
 */
import { join } from "node:path";
import { mkdir, writeFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { testTemporalAddress } from "../support/services.ts";
import { sharedServices } from "../support/slipway.ts";
import { mustRun } from "../support/tools.ts";
import { bench, memoryOf, pushImage, requestsText, startGate, startUpstream, totalRequests } from "./proxy-setting.ts";
import type { Upstream } from "./proxy-setting.ts";
import { startReplication } from "./replication-setting.ts";

const TAGS = Number(process.argv[2] ?? 10_000);

/** Tags as docker-registry keeps them, without a request for each. */
async function placeTags(registry: Upstream, name: string, digest: string): Promise<void> {
  const tags = join(registry.folder, "docker/registry/v2/repositories", name, "_manifests/tags");
  for (let first = 0; first < TAGS; first += 500) {
    const names = Array.from({ length: Math.min(500, TAGS - first) }, (_, index) => `t${String(first + index).padStart(6, "0")}`);
    await Promise.all(
      names.map(async (tag) => {
        const folder = join(tags, tag, "current");
        await mkdir(folder, { recursive: true });
        await writeFile(join(folder, "link"), digest);
      }),
    );
  }
}

await bench(async (t) => {
  const [source, target] = [await startUpstream(t), await startUpstream(t)];
  const gates = [await startGate(t, source), await startGate(t, target)] as const;
  const { manifest } = await pushImage(source, "bench/many", { layers: 1, layerBytes: 1_000 });
  await placeTags(source, "bench/many", manifest.digest);
  await mustRun("cp", ["-a", `${source.folder}/.`, target.folder], { timeoutMs: 300_000 });
  const services = await sharedServices(t);
  const api = await startReplication(t, { env: services, args: ["--role", "api", "--role", "refresh", "--role", "maintenance"] });
  const worker = await startReplication(t, { env: services, args: ["--role", "replication"] });
  const policy = await api.policy("many", await api.registry("source", gates[0].url), await api.registry("target", gates[1].url), {
    filters: [{ type: "name", value: "bench/many" }],
  });
  for (const what of ["first run (the target is unknown)", "second run (the target is known)"]) {
    await Promise.all(gates.map((gate) => gate.take()));
    const started = performance.now();
    const execution = await api.start(policy);
    let done = false;
    const ending = api.finished(execution, 200).finally(() => {
      done = true;
    });
    const pace: number[] = [];
    let seen = 0;
    while (!done) {
      await delay(2_000);
      const [there, here] = await Promise.all([gates[0].take(), gates[1].take()]);
      seen += totalRequests(there) + totalRequests(here);
      pace.push((there.requests["HEAD manifest"] ?? 0) / 2);
      if (process.env["SLIPWAY_BENCH_VERBOSE"]) console.log(requestsText(there), "|", requestsText(here));
    }
    const end = await ending;
    const seconds = (performance.now() - started) / 1000;
    const { now, peak } = memoryOf(worker.running.child.pid);
    const history = await historyLength(services["TEMPORAL_NAMESPACE"] ?? "default");
    console.log(
      `${what}: ${end.status} in ${seconds.toFixed(1)} s, ${seen} requests, pace ${pace.map((each) => each.toFixed(0)).join(" ")} tags/s, ` +
        `resident ${now.toFixed(0)} MB (peak ${peak.toFixed(0)}), longest history ${history} events`,
    );
  }
});

/** The longest history of all runs of the policy so far; a long run is a chain of them. */
async function historyLength(namespace: string): Promise<number> {
  const { Connection, Client } = await import("@temporalio/client");
  const connection = await Connection.connect({ address: await testTemporalAddress() });
  try {
    const client = new Client({ connection, namespace });
    let longest = 0;
    for await (const { workflowId, historyLength: length } of client.workflow.list())
      if (workflowId.startsWith("replication/")) longest = Math.max(longest, length);
    return longest;
  } finally {
    await connection.close();
  }
}

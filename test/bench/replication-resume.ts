/**
 * kill -9 of the only replication worker in the middle of a large blob: how much of it crosses once more after the restart, and whether the run ends right, once.
 * `node test/bench/replication-resume.ts [MB of the blob] [share at which to kill] [rounds]`, with SLIPWAY_TEST_DATABASE_URL set. Full size: 1000 0.6 3.
 */
import { setTimeout as delay } from "node:timers/promises";
import { sharedServices } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { bench, pushImage, startGate, startUpstream } from "./proxy-setting.ts";
import { missingTags, startReplication } from "./replication-setting.ts";

const BYTES = Number(process.argv[2] ?? 300) * 1_000_000;
const SHARE = Number(process.argv[3] ?? 0.6);
const ROUNDS = Number(process.argv[4] ?? 1);

await bench(async (t) => {
  const registry = await startUpstream(t);
  const source = await startGate(t, registry);
  const services = await sharedServices(t);
  const api = await startReplication(t, { env: services, args: ["--role", "api", "--role", "refresh", "--role", "maintenance"] });
  // The restarted worker has the disk of the one that was killed.
  const dataDir = await tempDir(t, "slipway-bench-resume-");
  const startWorker = () => startReplication(t, { env: services, dataDir, args: ["--role", "replication"] });
  let worker = await startWorker();
  for (let round = 0; round < ROUNDS; round += 1) {
    const { name, manifest } = await pushImage(registry, `bench/resume${round}`, { layers: 1, layerBytes: BYTES });
    const target = await startUpstream(t);
    const gate = await startGate(t, target);
    const policy = await api.policy(
      `resume-${round}`,
      await api.registry(`source-${round}`, source.url),
      await api.registry(`target-${round}`, gate.url),
      { filters: [{ type: "name", value: name }] },
    );
    await source.set({ bytesPerSecond: BYTES / 8 });
    await source.take();
    const execution = await api.start(policy);
    let before = 0;
    while (before < BYTES * SHARE) {
      await delay(20);
      before += (await source.take()).bytesDown;
    }
    await worker.running.stop("SIGKILL");
    before += (await source.take()).bytesDown;
    const killedAt = performance.now();
    worker = await startWorker();
    const end = await api.finished(execution, 100);
    const after = (await source.take()).bytesDown;
    const wrong = await missingTags(target, new Map([[`${name}:v1`, manifest.digest]]));
    const twice = before + after - BYTES;
    console.log(
      `killed at ${((before / BYTES) * 100).toFixed(0)} %: ended as ${end.status} ${((performance.now() - killedAt) / 1000).toFixed(1)} s after the kill, ` +
        `${wrong.length === 0 ? "every digest right" : "WRONG"}; crossed twice: ${(twice / 1e6).toFixed(1)} MB, ${((twice / BYTES) * 100).toFixed(1)} % of the blob`,
    );
    await source.set({ bytesPerSecond: 0 });
  }
});

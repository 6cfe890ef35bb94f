/** Several worker processes, and one that is killed. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { assertSameBytes } from "../../support/bytes.ts";
import { startDockerRegistry } from "../../support/docker-registry.ts";
import { startFakeRegistry } from "../../support/fake-registry.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { eventually } from "../../support/maintenance.ts";
import { startStoreProcess } from "../../support/store-process.ts";
import { tempDir } from "../../support/temp.ts";
import { missingTool } from "../../support/tools.ts";
import { POLICY_ID, SOURCE_ID, startCopier } from "./setting.ts";
import type { CopierSetting } from "./setting.ts";

const CHILD = fileURLToPath(new URL("copy-child.ts", import.meta.url));
const CHUNK = 500_000;
const TUNING = { chunkBytes: CHUNK, divideBytes: 2_000_000, rangeBytes: 250_000, parallel: 2 };

interface Order {
  readonly databaseUrl: string;
  readonly folder: string;
  readonly setting: CopierSetting;
  readonly executionId: number;
  readonly tasks: readonly number[];
}

function startChild(t: TestContext, order: Order) {
  return startStoreProcess(t, [process.execPath, CHILD, JSON.stringify({ round: 1, ...order })]);
}

async function killAt(t: TestContext, options: { target: { url: string }; otherMachine?: boolean }) {
  const size = 20_000_000;
  const source = await startFakeRegistry(t);
  const layer = randomBytes(size);
  source.putImage("team/huge", "v1", [layer]);
  const slow = await startFaultProxy(t, source);
  const registries = { [SOURCE_ID]: { url: slow.url }, 2: { url: options.target.url } };
  const tuning = { ...TUNING, spoolBytes: 1_000_000 };
  const test = await startCopier(t, { registries, options: { tuning } });
  const executionId = await test.run();
  const tasks = await test.plan(executionId, { repository: "team/huge", tags: ["v1"], targets: [2] });
  const order = { databaseUrl: test.databaseUrl, folder: test.folder, setting: { registries, options: { tuning } }, executionId, tasks };
  slow.set({ bytesPerSecond: 8_000_000 });
  const child = startChild(t, order);
  await child.next();
  await eventually("60 % of the blob", () => Promise.resolve(slow.counts.bytesDown > size * 0.6));
  await child.kill();
  const before = slow.counts.bytesDown;
  slow.set({ bytesPerSecond: 0 });
  const second = startChild(t, { ...order, ...(options.otherMachine ? { folder: await tempDir(t, "copy-staging-") } : {}) });
  await second.next();
  const { outcome } = (await second.next()) as { outcome: unknown };
  assert.deepEqual(outcome, { again: [], succeeded: 1, failed: 0 });
  return { twice: (slow.counts.bytesDown - size) / size, before: before / size, layer, test, executionId };
}

test("after kill -9 in the middle of a blob another machine goes on at the confirmed offset", async (t) => {
  const target = await startFakeRegistry(t);
  const { twice, layer } = await killAt(t, { target, otherMachine: true });
  assert.ok(twice < 0.05, `${(twice * 100).toFixed(1)} % of the blob crossed again`);
  const [digest] = [...target.repository("team/huge").blobs].find(([, bytes]) => bytes.length === layer.length) ?? [];
  assertSameBytes(target.repository("team/huge").blobs.get(digest ?? "") ?? Buffer.alloc(0), layer);
  assert.equal(target.calls.filter((call) => call.method === "PUT" && call.url.includes(encodeURIComponent(digest ?? "none"))).length, 1);
});

test(
  "where the registry lost the session with the process, the source is not read again",
  { skip: missingTool("docker-registry") },
  async (t) => {
    const target = await startDockerRegistry(t);
    const { twice } = await killAt(t, { target });
    assert.ok(twice < 0.05, `${(twice * 100).toFixed(1)} % of the blob crossed again`);
  },
);

test("two processes bring what their repositories share once", async (t) => {
  const source = await startFakeRegistry(t);
  const target = await startFakeRegistry(t);
  const layers = Array.from({ length: 12 }, () => randomBytes(20_000));
  const registries = { [SOURCE_ID]: { url: source.url }, 2: { url: target.url } };
  const test = await startCopier(t, { registries });
  const executionId = await test.run();
  const batches: number[][] = [];
  for (let index = 0; index < 4; index += 1) {
    source.putImage(`team/app${index}`, "v1", layers);
    batches.push(await test.plan(executionId, { repository: `team/app${index}`, tags: ["v1"], targets: [2] }));
  }
  const order = { databaseUrl: test.databaseUrl, folder: test.folder, setting: { registries }, executionId };
  const children = [batches.slice(0, 2).flat(), batches.slice(2).flat()].map((tasks) => startChild(t, { ...order, tasks }));
  for (const child of children) {
    await child.next();
    assert.deepEqual((await child.next())["outcome"], { again: [], succeeded: 2, failed: 0 });
  }
  const reads = source.calls.filter((call) => call.kind === "blob-get").map((call) => call.url.split("/").at(-1));
  assert.equal(reads.length, new Set(reads).size, "each digest is read once");
  for (let index = 0; index < 4; index += 1) assert.equal(target.repository(`team/app${index}`).blobs.size, 13);
  const mounted = (await test.itemsOf(executionId)).reduce((sum, item) => sum + item.blobsMounted, 0);
  assert.equal(mounted, 36);
});

async function slowly(t: TestContext, { size, speedKb }: { readonly size: number; readonly speedKb: number }) {
  const [source, target] = [await startFakeRegistry(t), await startFakeRegistry(t)];
  const registries = { [SOURCE_ID]: { url: source.url }, 2: { url: target.url } };
  const test = await startCopier(t, { registries });
  await test.database.query(
    "INSERT INTO replication_policies (id, name, trigger_type, speed_kb) OVERRIDING SYSTEM VALUE VALUES ($1, 'slow', 'manual', $2)",
    [POLICY_ID, speedKb],
  );
  const executionId = await test.run();
  const children = [];
  for (let index = 0; index < 2; index += 1) {
    source.putImage(`team/app${index}`, "v1", [randomBytes(size)]);
    const tasks = await test.plan(executionId, { repository: `team/app${index}`, tags: ["v1"], targets: [2] });
    children.push(
      startChild(t, {
        databaseUrl: test.databaseUrl,
        folder: test.folder,
        setting: { registries, policy: { speedKb } },
        executionId,
        tasks,
      }),
    );
  }
  // The first one may be well under way before the second has come up.
  const started = children.map((child) => child.next());
  await Promise.race(started);
  const begun = Date.now();
  await Promise.all(started);
  const ended = Promise.all(children.map((child) => child.next())).then(() => (Date.now() - begun) / 1000);
  return { test, executionId, ended };
}

test("the speed of a policy is one ceiling over all workers", async (t) => {
  // Budgets go by the second of the clock: of a shorter copy, the two seconds that it does not fill count for too much.
  const [size, speedKb] = [6_000_000, 8_000];
  const { ended } = await slowly(t, { size, speedKb });
  const pace = (2 * size) / (await ended);
  assert.ok(pace < speedKb * 128 * 1.2, `${Math.round(pace)} bytes a second, allowed ${speedKb * 128}`);
});

test("a run under way takes over a new speed of its policy, and then one of its own", async (t) => {
  const { test, executionId, ended } = await slowly(t, { size: 2_000_000, speedKb: 400 });
  const copied = async (): Promise<number> => (await test.figures(executionId)).bytesCopied;
  await eventually("the first bytes go, slowly", async () => (await copied()) > 0);
  // At 51,200 bytes a second the rest would take more than a minute.
  await test.database.query("UPDATE replication_policies SET speed_kb = 8000 WHERE id = $1", [POLICY_ID]);
  await eventually("the policy's new speed is felt", async () => (await copied()) > 1_000_000, 15_000);
  await test.runs.setSpeed(executionId, 0);
  assert.ok((await ended) < 30);
});

/** Workers while Temporal comes, goes and comes back. */
import { after, test } from "node:test";
import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { Worker } from "@temporalio/worker";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { workerMetrics } from "../../workers/runtime.ts";
import type { WorkerRole } from "../../workers/worker-group.ts";
import { startWorkerGroup } from "../../workers/worker-group.ts";
import { eventually, testLogger } from "../support/maintenance.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";

class Gate {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  port = 0;

  constructor(target: string) {
    const [host = "", port = ""] = target.split(":");
    this.#server = createServer((client) => {
      const upstream = connect(Number(port), host);
      for (const socket of [client, upstream]) {
        this.#sockets.add(socket);
        socket.on("error", () => undefined);
        socket.on("close", () => this.#sockets.delete(socket));
      }
      client.pipe(upstream).pipe(client);
    });
  }

  open(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.listen(this.port, "127.0.0.1", () => {
        this.port = (this.#server.address() as AddressInfo).port;
        resolve();
      });
    });
  }

  shut(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      for (const socket of this.#sockets) socket.destroy();
    });
  }
}

const workers: Worker[] = [];
const role: WorkerRole = {
  name: "trial",
  async create({ connection, namespace, bundlePath }) {
    const options = { connection, namespace, taskQueue: "trial", workflowBundle: { codePath: bundlePath }, maxCachedWorkflows: 2 };
    const worker = await Worker.create({ ...options, activities: { hello: async () => "hello" } });
    workers.push(worker);
    return worker;
  },
};

after(() => assert.ok(workers.every((worker) => worker.getState() === "STOPPED")));

test("a group lives without Temporal, says what is missing, and works once it is there, and again after an outage", async (t) => {
  const { address, namespace } = await testNamespace(t);
  const gate = new Gate(address);
  await gate.open();
  await gate.shut();
  const temporal = new TemporalConnection({ address: `127.0.0.1:${gate.port}`, namespace });
  t.after(() => temporal.close());
  const group = startWorkerGroup({ roles: [role], temporal, dataDir: await tempDir(t), logger: testLogger });
  t.after(() => group.close());

  const away = await eventually("trouble is told", async () => {
    const state = await group.ready();
    return state.missing.some((line) => line.startsWith("temporal:")) && state;
  });
  assert.equal(away.ready, false);
  assert.ok(away.missing.some((line) => line.startsWith("worker trial:")));

  await gate.open();
  t.after(() => gate.shut());
  const isReady = async (): Promise<boolean> => (await group.ready()).ready;
  await eventually("ready once Temporal is there", isReady, 30_000);

  await gate.shut();
  await eventually("the outage shows", async () => !(await isReady()), 15_000);
  await gate.open();
  await eventually("ready again", isReady, 30_000);

  const text = await eventually("metrics of the worker", async () => {
    const metrics = await workerMetrics();
    return metrics.includes("temporal_num_pollers") && metrics;
  });
  assert.match(text, /# TYPE temporal_\w+ (counter|gauge|histogram)/);
});

test("a worker that fails is made again", async (t) => {
  const { temporal } = await testNamespace(t);
  let attempts = 0;
  const flaky: WorkerRole = {
    name: "flaky",
    async create(context) {
      attempts += 1;
      if (attempts < 3) throw new Error("no luck yet");
      return role.create(context);
    },
  };
  const group = startWorkerGroup({ roles: [flaky], temporal, dataDir: await tempDir(t), logger: testLogger });
  t.after(() => group.close());
  await eventually("ready after two failures", async () => (await group.ready()).ready, 20_000);
  assert.equal(attempts, 3);
});

test("closing a group that never reached Temporal does not wait", async (t) => {
  const temporal = new TemporalConnection({ address: "127.0.0.1:9", namespace: "default" });
  t.after(() => temporal.close());
  const group = startWorkerGroup({ roles: [role], temporal, dataDir: await tempDir(t), logger: testLogger });
  await group.ready();
  const before = performance.now();
  await group.close();
  assert.ok(performance.now() - before < 5_000);
});

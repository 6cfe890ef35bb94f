/** What every role answers about itself, as docs/openapi.yaml describes it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import express from "express";
import { createOpsRouter } from "../../../api/ops/ops.ts";
import { Health } from "../../../src/telemetry/health.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";
import { loadOpenApi, routesOf } from "../../support/openapi.ts";

test("every route of health and metrics is described, and answers as described, well or not", async (t) => {
  const document = await loadOpenApi();
  let trouble: string | undefined;
  let health = new Health();
  const router = createOpsRouter({
    health: { report: () => health.report() } as unknown as Health,
    metrics: new Metrics(),
    version: "1.2.3",
  });
  const described = document.operations().filter((operation) => /^GET \/(health|metrics)/.test(operation));
  assert.deepEqual(routesOf(router, "").toSorted(), described);

  const server = express().use(router).listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  for (const [state, ready] of [
    [undefined, 200],
    ["refused", 503],
  ] as const) {
    trouble = state;
    health = new Health();
    health.add({ name: "database", required: true, check: () => Promise.resolve(trouble) });
    for (const [path, status] of [
      ["/health/live", 200],
      ["/health/ready", ready],
      ["/health", 200],
    ] as const) {
      const answer = await fetch(url + path);
      assert.equal(answer.status, status, path);
      assert.equal(answer.headers.get("cache-control"), "no-store");
      assert.deepEqual(document.checkResponse(`GET ${path}`, status, await answer.json()), []);
    }
  }
  assert.match(await (await fetch(`${url}/metrics`)).text(), /^slipway_process_resident_memory_bytes [1-9]/m);
});

/** An upstream that takes connections and never answers: the worst kind of trouble, since every call costs its whole deadline. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { ask, createProxyProject, eventually } from "../support/proxy-server.ts";
import type { Answer } from "../support/proxy-server.ts";
import { startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";

test("it holds nobody: cached tags come at once or after two seconds, and everything at once when it is known", async (context) => {
  const t = scope(context);
  const upstream = await startFakeRegistry(t);
  const faults = await startFaultProxy(t, { port: upstream.port });
  const { url, app } = await startRegistry(t);
  await createProxyProject(app, { name: "hub", url: faults.url });
  const tag = (name: string): Promise<Answer> => ask(`${url}/v2/hub/app/manifests/${name}`);
  const grow = async (seconds: number): Promise<void> => {
    await app.proxy.manifests.settled();
    await app.database.query(
      "UPDATE proxy_tags SET checked_at = now() - $1 * interval '1 s', fresh_until = now() - interval '1 s', last_status = 200",
      [seconds],
    );
    app.proxy.manifests.forget("hub/app", "1");
  };
  const digest = upstream.putImage("app", "1");
  await tag("1");
  faults.set({ hang: true });
  // A connection from before would still be answered.
  faults.dropConnections();
  await grow(90);
  const stale = await tag("1");
  assert.deepEqual([stale.cache, stale.digest], ["STALE", digest]);
  assert.ok(stale.ms < 1_000);
  await grow(3_600);
  const waited = await tag("1");
  assert.deepEqual([waited.status, waited.cache], [200, "STALE"]);
  assert.ok(waited.ms < 5_000, `${waited.ms} ms`);
  const [uncached] = await Promise.all([tag("2"), tag("3")]);
  assert.ok([503, 504].includes(uncached.status), String(uncached.status));
  assert.ok(Number(uncached.retryAfter) > 0);
  const known = await tag("4");
  assert.deepEqual([known.status, Number(known.retryAfter) > 0], [503, true]);
  assert.ok(known.ms < 1_000, `${known.ms} ms`);
  await grow(3_600);
  const after = await tag("1");
  assert.ok(after.cache === "STALE" && after.ms < 1_000, `${after.ms} ms`);
  faults.heal();
  faults.dropConnections();
  await eventually("it is asked again once it answers", async () => (await tag("2")).status === 404, 12_000);
});

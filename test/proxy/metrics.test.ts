/** What operators see of pull-through: every number that an alert or a dashboard needs, moved by what really happens. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { startFakeRegistry } from "../support/fake-registry.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { buildImage } from "../support/image.ts";
import { ask, createProxyProject, eventually, serveImage } from "../support/proxy-server.ts";
import { startRegistry } from "../support/registry-server.ts";

test("bytes, hits, coalesced requests, upstream calls, limits, breaker, stale serves and times are counted", async (t) => {
  const server = await startRegistry(t);
  const { app, url } = server;
  const upstream = await startFakeRegistry(t);
  const network = await startFaultProxy(t, { port: upstream.port });
  const host = new URL(network.url).host;
  await createProxyProject(app, { name: "hub", url: network.url, metadata: { proxy_prefetch: "false" } });
  const metric = async (series: string): Promise<number> => {
    const text = await (await fetch(`${url}/metrics`)).text();
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
    assert.ok(line !== undefined, `${series} is missing`);
    return Number(line.slice(series.length + 1));
  };
  const manifest = (tag: string): ReturnType<typeof ask> => ask(`${url}/v2/hub/app/manifests/${tag}`);

  const image = serveImage(upstream, "app", "1", buildImage({ layers: 1, layerBytes: 50_000 }));
  upstream.on({ method: "GET", path: /manifests\/1/, times: 1 }, (_request, response) => {
    const limits = { "ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600" };
    response.writeHead(200, { "content-type": image.manifest.mediaType, ...limits }).end(image.manifestBytes);
  });
  for (let pulls = 0; pulls < 3; pulls += 1) await manifest("1");
  const large = randomBytes(4_000_000);
  const digest = upstream.putBlob("app", large);
  network.set({ bytesPerSecond: 8_000_000 });
  const pulls = await Promise.all(Array.from({ length: 3 }, () => ask(`${url}/v2/hub/app/blobs/${digest}`)));
  network.heal();
  assert.ok(pulls.every(({ bytes }) => bytes.equals(large)));
  await eventually("the fill is over", () => app.proxy.fills.active === 0);
  await ask(`${url}/v2/hub/app/blobs/${digest}`);

  assert.equal(await metric(`slipway_upstream_calls_total{host="${host}",kind="manifest-get",status="200"}`), 1);
  assert.equal(await metric(`slipway_upstream_calls_total{host="${host}",kind="blob-get",status="200"}`), 1);
  assert.equal(await metric('slipway_proxy_requests_total{route="manifest",cache="HIT"}'), 2);
  assert.equal(await metric('slipway_proxy_requests_total{route="manifest",cache="MISS"}'), 1);
  assert.equal(await metric('slipway_proxy_requests_total{route="blob",cache="HIT"}'), 1);
  assert.equal(await metric('slipway_proxy_served_bytes_total{route="blob",cache="HIT"}'), large.length);
  assert.equal(await metric('slipway_proxy_served_bytes_total{route="blob",cache="MISS"}'), 3 * large.length);
  assert.equal(await metric('slipway_proxy_upstream_bytes_total{reason="fill"}'), large.length);
  assert.equal(await metric('slipway_proxy_coalesced_total{owner="self"}'), 2);
  assert.equal(await metric('slipway_proxy_fills_total{outcome="completed"}'), 1);
  assert.ok((await metric("slipway_proxy_fill_seconds_total")) > 0.2);
  assert.equal(await metric('slipway_proxy_first_byte_seconds_count{route="blob",cache="MISS"}'), 3);
  assert.equal(await metric('slipway_proxy_first_byte_seconds_count{route="manifest",cache="HIT"}'), 2);
  assert.equal(await metric(`slipway_upstream_ratelimit_remaining{host="${host}"}`), 76);
  assert.equal(await metric(`slipway_upstream_ratelimit_limit{host="${host}"}`), 100);
  assert.equal(await metric(`slipway_upstream_breaker_open{host="${host}"}`), 0);

  await app.proxy.manifests.settled();
  await app.database.query(
    "UPDATE proxy_tags SET checked_at = checked_at - interval '1 hour', fresh_until = fresh_until - interval '1 hour'",
  );
  app.proxy.manifests.forget("hub/app", "1");
  network.set({ refuse: true });
  network.dropConnections();
  assert.equal((await manifest("1")).cache, "STALE");
  await eventually("the breaker is open", async () => {
    await manifest("unknown");
    return (await metric(`slipway_upstream_breaker_open{host="${host}"}`)) === 1;
  });
  assert.ok((await metric('slipway_proxy_requests_total{route="manifest",cache="STALE"}')) >= 1);
  assert.ok((await metric(`slipway_upstream_calls_total{host="${host}",kind="manifest-head",status="none"}`)) >= 1);
});

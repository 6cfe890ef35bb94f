import assert from "node:assert/strict";
import { test } from "node:test";
import { SlipwayError } from "../../src/core/errors.ts";
import { AccessLog } from "../../src/telemetry/access-log.ts";
import { nestedFamilies } from "../../src/telemetry/app-metrics.ts";
import { Health } from "../../src/telemetry/health.ts";
import type { RootLogger } from "../../src/telemetry/logger.ts";
import { Metrics, PlainHistogram, renderFamilies } from "../../src/telemetry/metrics.ts";
import { redact, registerSecret } from "../../src/telemetry/redact.ts";

test("registered secrets and credentials in URLs never leave in a log text", () => {
  registerSecret("s3cr3t-value");
  assert.equal(redact("token s3cr3t-value end"), "token [redacted] end");
  assert.equal(redact("postgres://user:hunter22@db/slipway"), "postgres://[redacted]@db/slipway");
});

test("a failed request is told by code and causes when it is a known failure, with its stack when nobody foresaw it", () => {
  const lines: [string, Record<string, unknown>][] = [];
  const note =
    (level: string) =>
    (fields: object): void =>
      void lines.push([level, fields as Record<string, unknown>]);
  const logger = { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error"), writeLine: () => undefined };
  const log = new AccessLog(logger as unknown as RootLogger, { enabled: true });
  const record = { requestId: "1", method: "GET", route: "manifest", status: 502, bytesSent: 0, bytesReceived: 0, durationMs: 1 };
  const cause = new Error("connect ECONNREFUSED", { cause: new Error("no route") });
  log.onResponse({ ...record, error: new SlipwayError("UPSTREAM_UNREACHABLE", { cause, detail: { host: "hub" } }) });
  log.onResponse({ ...record, error: new SlipwayError("UPSTREAM_REFUSED") });
  const bug = new TypeError("x is not a function");
  log.onResponse({ ...record, error: bug });
  const failure = {
    message: "the upstream registry could not be reached",
    detail: { host: "hub" },
    causes: ["connect ECONNREFUSED", "no route"],
  };
  assert.deepEqual(
    lines.map(([level]) => level),
    ["warn", "error", "error"],
  );
  assert.deepEqual(lines[0]?.[1]["failure"], { code: "UPSTREAM_UNREACHABLE", ...failure });
  assert.equal(lines[2]?.[1]["error"], bug);
});

test("a required part that fails makes the process not ready and is named; an optional one only shows", async () => {
  const health = new Health();
  health.add({ name: "database", required: true, check: () => Promise.reject(new Error("refused")) });
  health.add({ name: "temporal", required: false, check: () => Promise.resolve("not connected") });
  const report = await health.report();
  assert.equal(report.ready, false);
  assert.deepEqual(
    report.components.map(({ name, status, error }) => [name, status, error]),
    [
      ["database", "unhealthy", "refused"],
      ["temporal", "unhealthy", "not connected"],
    ],
  );
});

test("a process that is stopping is not ready whatever its parts say", async () => {
  const health = new Health();
  health.add({ name: "database", required: true, check: () => Promise.resolve() });
  assert.equal((await health.report()).ready, true);
  health.stop();
  assert.equal((await health.report()).ready, false);
});

test("a check that hangs is reported unhealthy after its deadline", async () => {
  const health = new Health();
  health.add({ name: "stuck", required: true, check: () => new Promise<void>(() => {}) });
  const keepAlive = setTimeout(() => {}, 10_000);
  const report = await health.report();
  clearTimeout(keepAlive);
  assert.match(report.components[0]?.error ?? "", /no answer/);
});

test("metrics from plain numbers come out in Prometheus text, with cumulative buckets", async () => {
  const metrics = new Metrics();
  const histogram = new PlainHistogram([0.1, 1]);
  for (const value of [0.05, 0.5, 5]) histogram.observe(value);
  metrics.addSource(() => [
    { name: "slipway_test_total", help: "Test.", type: "counter", samples: [{ value: 3, labels: { kind: 'a"b' } }] },
    {
      name: "slipway_test_seconds",
      help: "Test.",
      type: "histogram",
      bounds: histogram.bounds,
      histograms: [{ counts: histogram.counts, sum: histogram.sum }],
    },
  ]);
  const text = await metrics.render();
  assert.match(text, /slipway_test_total\{kind="a\\"b"\} 3/);
  assert.match(text, /slipway_test_seconds_bucket\{le="0.1"\} 1/);
  assert.match(text, /slipway_test_seconds_bucket\{le="\+Inf"\} 3/);
  assert.match(text, /slipway_test_seconds_count 3/);
});

test("numbers of the parts become counters and gauges, with the parts of one kind as a label", () => {
  const stats = {
    trusted: true,
    cache: { tags: { hits: 3, entries: 1 }, manifests: { hits: 4, entries: 2 } },
    writer: { rehashedBytes: 9 },
  };
  const lines = renderFamilies(nestedFamilies("slipway_x", stats)).split("\n");
  assert.deepEqual(
    lines.filter((line) => line !== "" && !line.startsWith("# HELP")),
    [
      "# TYPE slipway_x_trusted gauge",
      "slipway_x_trusted 1",
      "# TYPE slipway_x_cache_hits_total counter",
      'slipway_x_cache_hits_total{cache="tags"} 3',
      'slipway_x_cache_hits_total{cache="manifests"} 4',
      "# TYPE slipway_x_cache_entries gauge",
      'slipway_x_cache_entries{cache="tags"} 1',
      'slipway_x_cache_entries{cache="manifests"} 2',
      "# TYPE slipway_x_writer_rehashed_bytes_total counter",
      "slipway_x_writer_rehashed_bytes_total 9",
    ],
  );
});

/**
 * What clients get while the upstream is away: connections refused, no answer at all, 429 and 503 with Retry-After. Each condition meets a program of its own, with an
 * image that was pulled before and whose tag is no longer fresh, under three settings: served at once and checked behind (the default), older than max_stale, and
 * checked before every answer. `node test/bench/proxy-outage.ts [requests of each kind]`, with SLIPWAY_TEST_DATABASE_URL set.
 */
import { setTimeout as delay } from "node:timers/promises";
import { bench, PROJECT, pushImage, requestsText, startCache, startGate, startUpstream } from "./proxy-setting.ts";
import type { Gate, Upstream } from "./proxy-setting.ts";

const REQUESTS = Number(process.argv[2] ?? 6);
const GIVE_UP_MS = 20_000;
const BETWEEN_MS = 300;

const CALM = { refuse: false, hang: false, status: 0 } as const;
const CONDITIONS = [
  { label: "refused", faults: { refuse: true }, peer: "distribution 200 in 2 ms; uncached 404" },
  { label: "hanging", faults: { hang: true }, peer: "none answers within 20 s" },
  { label: "429, Retry-After 7", faults: { status: 429 }, peer: "distribution 200 in 2-3 ms; uncached 404 without Retry-After" },
  { label: "503, Retry-After 7", faults: { status: 503 }, peer: "distribution 200 in 2 ms; uncached 404" },
] as const;
const SETTINGS = [
  { label: "stale tag, checked behind", env: { SLIPWAY_PROXY_TAG_TTL_SECONDS: "1" } },
  { label: "older than max_stale", env: { SLIPWAY_PROXY_TAG_TTL_SECONDS: "1", SLIPWAY_PROXY_MAX_STALE_SECONDS: "0" } },
  { label: "always-check", env: { SLIPWAY_PROXY_MODE: "always-check" } },
] as const;

async function ask(url: string): Promise<string> {
  const started = performance.now();
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(GIVE_UP_MS) });
    await answer.arrayBuffer();
    const ms = performance.now() - started;
    const cache = answer.status === 200 ? ` ${answer.headers.get("x-cache")}` : "";
    const after = answer.headers.get("retry-after");
    return `${answer.status}${cache}${after === null ? "" : ` (Retry-After ${after})`} ${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
  } catch {
    return `none in ${GIVE_UP_MS / 1000} s`;
  }
}

async function series(url: (index: number) => string): Promise<string> {
  const answers: string[] = [];
  for (let index = 0; index < REQUESTS; index += 1) {
    answers.push(await ask(url(index)));
    await delay(BETWEEN_MS);
  }
  return answers.join(" | ");
}

interface Setting {
  readonly upstream: Upstream;
  readonly gate: Gate;
  readonly env: Readonly<Record<string, string>>;
  readonly faults: (typeof CONDITIONS)[number]["faults"];
  readonly name: string;
  readonly layer: string;
}

async function condition(t: Parameters<typeof startCache>[0], { gate, env, faults, name, layer }: Setting): Promise<void> {
  const cache = await startCache(t, gate.url, { env });
  const base = `${cache.url}/v2/${PROJECT}/${name}`;
  const tag = `${base}/manifests/v1`;
  const before = await fetch(tag);
  const digest = before.headers.get("docker-content-digest") ?? "";
  await before.arrayBuffer();
  await (await fetch(`${base}/blobs/${layer}`)).arrayBuffer();
  for (let index = 0; index < 20; index += 1) await (await fetch(`${base}/manifests/${digest}`)).arrayBuffer();
  await delay(2_000);
  await gate.set(faults);
  await gate.take();
  console.log(`    cached tag    ${await series(() => tag)}`);
  console.log(`    uncached tag  ${await series((index) => `${base}/manifests/other${index}`)}`);
  console.log(`    cached again  ${await series(() => tag)}`);
  console.log(`    by digest     ${await ask(`${base}/manifests/${digest}`)}; blob ${await ask(`${base}/blobs/${layer}`)}`);
  console.log(`    upstream saw  ${requestsText(await gate.take())}`);
  await gate.set(CALM);
  const healed = performance.now();
  let answer = "";
  for (let turn = 0; turn < 100 && !answer.startsWith("404"); turn += 1) {
    await delay(200);
    answer = await ask(`${base}/manifests/never${turn}`);
  }
  console.log(`    after its return an unknown tag is 404 again in ${((performance.now() - healed) / 1000).toFixed(1)} s`);
  await cache.stop();
}

await bench(async (t) => {
  const upstream = await startUpstream(t);
  const gate = await startGate(t, upstream);
  const { name, manifest } = await pushImage(upstream, "away/image", { layers: 1, layerBytes: 100_000 });
  const [layer] = (JSON.parse(manifest.bytes.toString()) as { layers: { digest: string }[] }).layers;
  for (const { label, faults, peer } of CONDITIONS) {
    console.log(`\n${label} (best peer: ${peer})`);
    for (const setting of SETTINGS) {
      console.log(`  ${setting.label}`);
      await condition(t, { upstream, gate, env: setting.env, faults, name, layer: layer?.digest ?? "" });
    }
  }
});

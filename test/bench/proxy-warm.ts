/**
 * Manifests of a proxy project, authenticated and warm, against a bare node:http server that sends the same bytes and headers from memory. One process each,
 * interleaved rounds, medians. Then what upstream is asked inside and outside of the freshness window.
 * `node test/bench/proxy-warm.ts [rounds] [seconds]`, with SLIPWAY_TEST_DATABASE_URL set. Full size: 7 2.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { hasWrk, load, median, STARTED_AS, STARTED_WITH } from "./http-load.ts";
import type { LoadResult } from "./http-load.ts";
import type { BareAnswer, ProcessOptions } from "./http-process.ts";
import { bench, cpuOf, portOf, PROJECT, pushImage, requestsText, startCache, startGate, startUpstream } from "./proxy-setting.ts";
import type { RunningSlipway } from "../support/slipway.ts";

const ROUNDS = Number(process.argv[2] ?? 7);
const SECONDS = Number(process.argv[3] ?? 2);
const CONNECTIONS = 64;
const NAME = `${PROJECT}/warm/image`;
const TTL_SECONDS = 2;
const ASKED = 200;

interface Server {
  readonly label: string;
  readonly pid: number | undefined;
  readonly port: number;
}

async function startBare(t: Parameters<typeof startCache>[0], answers: Readonly<Record<string, BareAnswer>>): Promise<Server> {
  const options: ProcessOptions = { kind: "bare", answers };
  const child = fork(new URL("./http-process.ts", import.meta.url), {
    env: { ...STARTED_AS, ...process.env, SLIPWAY_BENCH_PROCESS: JSON.stringify(options) },
    execArgv: [...STARTED_WITH],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  t.after(async () => {
    child.disconnect();
    await once(child, "exit");
  });
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  return { label: "bare node:http", pid: child.pid, port };
}

async function authorization(cache: RunningSlipway): Promise<Record<string, string>> {
  const login = `Basic ${Buffer.from(`admin:${cache.password}`).toString("base64")}`;
  const answer = await fetch(`${cache.url}/service/token?service=slipway&scope=repository:${NAME}:pull`, {
    headers: { authorization: login },
  });
  return { Authorization: `Bearer ${((await answer.json()) as { token: string }).token}` };
}

async function bareAnswer(url: string, headers: Readonly<Record<string, string>>): Promise<BareAnswer> {
  const answer = await fetch(url, { headers });
  if (answer.status !== 200) throw new Error(`${url}: ${answer.status}`);
  const hop = new Set(["date", "connection", "keep-alive", "x-request-id"]);
  const body = Buffer.from(await answer.arrayBuffer());
  return { headers: [...answer.headers].filter(([name]) => !hop.has(name)).flat(), body: body.toString("base64") };
}

async function compare(
  what: string,
  path: string,
  { servers, headers }: { servers: readonly Server[]; headers: Record<string, string> },
): Promise<string> {
  const results = new Map<Server, (LoadResult & { cpu: number })[]>(servers.map((server) => [server, []]));
  for (const { port } of servers) await load({ port, path, headers, connections: CONNECTIONS, seconds: 1 });
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const server of servers) {
      const before = cpuOf(server.pid);
      const result = await load({ port: server.port, path, headers, connections: CONNECTIONS, seconds: SECONDS });
      results.get(server)?.push({ ...result, cpu: ((cpuOf(server.pid) - before) / (result.rate * SECONDS)) * 1e6 });
    }
  }
  const lines = [`\n${what}`];
  let base = 0;
  for (const [{ label }, rounds] of results) {
    const of = (field: "rate" | "p50" | "p99" | "cpu"): number => median(rounds.map((round) => round[field]));
    base ||= of("rate");
    const errors = rounds.reduce((sum, round) => sum + round.errors, 0);
    lines.push(
      `  ${label.padEnd(16)} ${of("rate").toFixed(0).padStart(7)} req/s  ratio ${(of("rate") / base).toFixed(2)} (bar 0.70; best peer zot-sync 0.24 by tag, 0.31 by digest)  p50 ${of("p50").toFixed(2)} ms  p99 ${of("p99").toFixed(2)} ms  ${of("cpu").toFixed(0)} µs CPU${errors > 0 ? `  ERRORS ${errors}` : ""}`,
    );
  }
  return lines.join("\n");
}

await bench(async (t) => {
  const upstream = await startUpstream(t);
  const gate = await startGate(t, upstream);
  const image = await pushImage(upstream, "warm/image", { layers: 8, layerBytes: 1_000 });
  const env = { SLIPWAY_REGISTRY_AUTH: "required" };
  const cache = await startCache(t, gate.url, { env: { ...env, SLIPWAY_PROXY_TAG_TTL_SECONDS: "3600" } });
  const headers = await authorization(cache);
  const paths = { "manifest by tag": `/v2/${NAME}/manifests/v1`, "manifest by digest": `/v2/${NAME}/manifests/${image.manifest.digest}` };
  const answers: Record<string, BareAnswer> = {};
  for (const path of Object.values(paths)) {
    for (let turn = 0; turn < 3; turn += 1) answers[path] = await bareAnswer(`${cache.url}${path}`, headers);
  }
  const servers: Server[] = [await startBare(t, answers), { label: "slipway, proxy", pid: cache.child.pid, port: portOf(cache) }];
  await delay(1_000);
  console.log(`cold: ${requestsText(await gate.take())}`);
  console.log(
    `${hasWrk ? "wrk" : "built-in generator"}, ${CONNECTIONS} connections, ${ROUNDS} rounds of ${SECONDS} s, medians; manifest ${image.manifest.bytes.length} bytes`,
  );
  for (const [what, path] of Object.entries(paths)) console.log(await compare(what, path, { servers, headers }));
  console.log(`\nupstream requests inside the window, all rounds: ${requestsText(await gate.take())} (bar none)`);
  await cache.stop();

  const short = await startCache(t, gate.url, { env: { ...env, SLIPWAY_PROXY_TAG_TTL_SECONDS: String(TTL_SECONDS) } });
  const known = await authorization(short);
  const tag = `${short.url}${paths["manifest by tag"]}`;
  const many = async (): Promise<void> => {
    const all = await Promise.all(Array.from({ length: ASKED }, () => fetch(tag, { headers: known })));
    for (const answer of all)
      if (answer.status !== 200 || (await answer.arrayBuffer()).byteLength === 0) throw new Error(`tag: ${answer.status}`);
  };
  await many();
  await delay(500);
  console.log(`cold, ${ASKED} requests at once: ${requestsText(await gate.take())} (config and layers follow by prefetch)`);
  for (let turn = 0; turn < 3; turn += 1) {
    await delay(TTL_SECONDS * 1000 + 200);
    await many();
    await delay(200);
    console.log(`outside the window of ${TTL_SECONDS} s, ${ASKED} requests at once: ${requestsText(await gate.take())} (bar 1 HEAD)`);
  }
});

/**
 * Small answers, authenticated and warm, against a bare node:http server that sends the same bytes and headers from memory. One process
 * each; interleaved rounds; medians. `node test/bench/http-manifest.ts [rounds] [seconds]`, with SLIPWAY_TEST_DATABASE_URL set.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { OciClient, randomContent } from "../support/oci-client.ts";
import { ADMIN, registryBacking } from "../support/registry-server.ts";
import { freePort } from "../support/slipway.ts";
import { STARTED_AS, STARTED_WITH, cpuSeconds, hasWrk, load, median } from "./http-load.ts";
import type { LoadResult } from "./http-load.ts";
import type { BareAnswer, ProcessOptions } from "./http-process.ts";

const ROUNDS = Number(process.argv[2] ?? 7);
const SECONDS = Number(process.argv[3] ?? 2);
const CONNECTIONS = 64;
const NAME = "bench/app";

interface Server {
  readonly label: string;
  readonly child: ChildProcess;
  readonly port: number;
}

const cleanups: (() => Promise<void> | void)[] = [];
const t = { after: (cleanup: () => Promise<void> | void): void => void cleanups.push(cleanup) };
const backing = await registryBacking(t);

async function start(label: string, options: ProcessOptions): Promise<Server> {
  // The log goes to a file, as it would in production; the terminal is not what is measured.
  const log = openSync(join(backing.dataDir, `${label.replaceAll(/\W+/g, "-")}.log`), "w");
  const child = fork(new URL("./http-process.ts", import.meta.url), {
    env: { ...STARTED_AS, ...process.env, SLIPWAY_BENCH_PROCESS: JSON.stringify(options) },
    execArgv: [...STARTED_WITH],
    stdio: ["ignore", log, "inherit", "ipc"],
  });
  closeSync(log);
  t.after(async () => {
    child.disconnect();
    await once(child, "exit");
  });
  const [message] = (await once(child, "message")) as [{ port: number }];
  return { label, child, port: message.port };
}

function registry(label: string, logLevel: string, port?: number): Promise<Server> {
  return start(label, { kind: "registry", ...backing, logLevel, ...(port === undefined ? {} : { port }) });
}

async function bareAnswer(url: string, headers: Readonly<Record<string, string>>): Promise<BareAnswer> {
  const answer = await fetch(url, { headers });
  if (answer.status !== 200) throw new Error(`${url}: ${answer.status}`);
  const hop = new Set(["date", "connection", "keep-alive", "x-request-id"]);
  const body = Buffer.from(await answer.arrayBuffer());
  return { headers: [...answer.headers].filter(([name]) => !hop.has(name)).flat(), body: body.toString("base64") };
}

async function warm(server: Server, path: string, headers: Readonly<Record<string, string>>): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) await (await fetch(`http://127.0.0.1:${server.port}${path}`, { headers })).arrayBuffer();
}

const first = await registry("registry, log level error", "error");
const client = new OciClient(`http://127.0.0.1:${first.port}`, { authorization: ADMIN });
const manifest = await client.pushImage(NAME, "v1", { annotations: { filler: "x".repeat(900) } });
const blob = randomContent(10 * 1024);
await client.pushBlob(NAME, blob);
const tokenAnswer = await client.request(`/service/token?service=slipway&scope=repository:${NAME}:pull`);
const { token } = (await tokenAnswer.json()) as { token: string };
const headers = { Authorization: `Bearer ${token}` };
const paths = {
  "manifest by tag": `/v2/${NAME}/manifests/v1`,
  "manifest by digest": `/v2/${NAME}/manifests/${manifest.digest}`,
  "blob of 10 KB": `/v2/${NAME}/blobs/${blob.digest}`,
};
const answers: Record<string, BareAnswer> = {};
for (const path of Object.values(paths)) {
  await warm(first, path, headers);
  answers[path] = await bareAnswer(`http://127.0.0.1:${first.port}${path}`, headers);
}
const bare = await start("bare node:http", { kind: "bare", answers });
const logging = await registry("registry, access log", "info");
const sharedPort = await freePort();
const pair = [await registry("pair 1", "error", sharedPort), await registry("pair 2", "error", sharedPort)];
const servers: Server[] = [bare, first, logging, { ...(pair[0] as Server), label: "two processes, log level error" }];

console.log(
  `${hasWrk ? "wrk" : "built-in generator"}, ${CONNECTIONS} connections, ${ROUNDS} rounds of ${SECONDS} s, medians; manifest ${manifest.bytes.length} bytes`,
);
for (const [what, path] of Object.entries(paths)) {
  for (const server of servers) await warm(server, path, headers);
  for (const server of pair) await warm(server, path, headers);
  const results = new Map<string, (LoadResult & { cpu: number })[]>(servers.map(({ label }) => [label, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const { label, port, child } of servers) {
      const before = cpuSeconds(readFileSync(`/proc/${child.pid}/stat`, "utf8"));
      const result = await load({ port, path, headers, connections: CONNECTIONS, seconds: SECONDS });
      const cpu = cpuSeconds(readFileSync(`/proc/${child.pid}/stat`, "utf8")) - before;
      results.get(label)?.push({ ...result, cpu: (cpu / (result.rate * SECONDS)) * 1e6 });
    }
  }
  const base = median((results.get(bare.label) ?? []).map(({ rate }) => rate));
  console.log(`\n${what}`);
  for (const [label, rounds] of results) {
    const rate = median(rounds.map((round) => round.rate));
    const p99 = median(rounds.map((round) => round.p99));
    const cpu = median(rounds.map((round) => round.cpu));
    const errors = rounds.reduce((sum, round) => sum + round.errors, 0);
    console.log(
      `  ${label.padEnd(32)} ${rate.toFixed(0).padStart(7)} req/s  ratio ${(rate / base).toFixed(2)}  p50 ${median(rounds.map((round) => round.p50)).toFixed(2)} ms  p99 ${p99.toFixed(2)} ms  ${cpu.toFixed(0)} µs CPU${errors > 0 ? `  ERRORS ${errors}` : ""}`,
    );
  }
}
for (const cleanup of cleanups.toReversed()) await cleanup();

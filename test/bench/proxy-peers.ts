/**
 * Other caches over the same gate, for the benches of the proxy: each that is found in PATH runs beside the program, with fresh storage. Debian's docker-registry is the least
 * that a machine has; `distribution` (its version 3), `zot-sync` (zot with its sync extension) and `harbor-cache` run where somebody built them.
 */
import { spawn } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { freePort } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { findTool } from "../support/tools.ts";
import { ended } from "./proxy-setting.ts";
import type { Gate } from "./proxy-setting.ts";

export interface Peer {
  readonly name: string;
  readonly port: number;
  readonly pid: number | undefined;
}

/** The first segment of all image names: harbor-cache wants to know it. */
export const PEER_NAMESPACE = "cold";

interface Place {
  readonly folder: string;
  readonly port: number;
  readonly upstream: string;
}

interface Recipe {
  readonly file: string;
  readonly args: (config: string) => string[];
  readonly config: (place: Place) => string;
}

const distribution: Recipe = {
  file: "config.yml",
  args: (config) => ["serve", config],
  config: ({ folder, port, upstream }) =>
    [
      "version: 0.1",
      "log: { level: error, accesslog: { disabled: true } }",
      "storage:",
      `  filesystem: { rootdirectory: ${folder}/data, maxthreads: 200 }`,
      "  cache: { blobdescriptor: inmemory }",
      "  delete: { enabled: true }",
      `http: { addr: "127.0.0.1:${port}" }`,
      `proxy: { remoteurl: "${upstream}" }`,
      "",
    ].join("\n"),
};

const zot: Recipe = {
  file: "config.json",
  args: (config) => ["serve", config],
  config: ({ folder, port, upstream }) =>
    JSON.stringify({
      distSpecVersion: "1.1.1",
      storage: { rootDirectory: `${folder}/data` },
      http: { address: "127.0.0.1", port: String(port), compat: ["docker2s2"] },
      log: { level: "error" },
      extensions: {
        sync: {
          enable: true,
          registries: [{ urls: [upstream], onDemand: true, tlsVerify: false, preserveDigest: true, content: [{ prefix: "**" }] }],
        },
      },
    }),
};

const harborCache: Recipe = {
  file: "config.toml",
  args: (config) => ["--config", config],
  config: ({ folder, port, upstream }) =>
    [
      `[server]\nbind_address = "127.0.0.1"\nport = ${port}`,
      `[[upstreams]]\nname = "default"\ndisplay_name = "default"\nurl = "${upstream}"\nregistry = "${PEER_NAMESPACE}"\nenabled = true\nis_default = true`,
      `[cache]\nmax_size = 107374182400\nretention_days = 30\neviction_policy = "lru"`,
      `[storage]\nbackend = "local"\n[storage.local]\npath = "${folder}/data"`,
      `[database]\npath = "${folder}/cache.db"`,
      `[auth]\njwt_secret = "only-for-this-bench"\nenabled = false`,
      `[logging]\nlevel = "error"\n`,
    ].join("\n"),
};

/** The first name of each that is found is taken. */
const PEERS: readonly { readonly names: readonly string[]; readonly recipe: Recipe }[] = [
  { names: ["distribution", "docker-registry"], recipe: distribution },
  { names: ["zot-sync"], recipe: zot },
  { names: ["harbor-cache"], recipe: harborCache },
];

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

/** Those that this machine has, or of these the wanted ones. */
export async function startPeers(t: Cleanable, gate: Gate, wanted?: readonly string[]): Promise<Peer[]> {
  const peers: Peer[] = [];
  for (const { names, recipe } of PEERS) {
    if (wanted && !names.some((name) => wanted.includes(name))) continue;
    const name = names.find((one) => findTool(one) !== null);
    if (name === undefined) console.log(`${names.join(" or ")} is not installed: not measured`);
    else peers.push(await startPeer(t, { name, recipe, upstream: gate.url }));
  }
  return peers;
}

async function startPeer(t: Cleanable, { name, recipe, upstream }: { name: string; recipe: Recipe; upstream: string }): Promise<Peer> {
  const folder = await tempDir(t, "slipway-bench-peer-");
  const port = await freePort();
  const config = join(folder, recipe.file);
  await mkdir(join(folder, "data"), { recursive: true });
  await writeFile(config, recipe.config({ folder, port, upstream }));
  const child = spawn(findTool(name) ?? name, recipe.args(config), {
    stdio: ["ignore", "ignore", process.env["SLIPWAY_BENCH_PEER_LOG"] ? "inherit" : "ignore"],
    cwd: folder,
    env: { ...process.env, OTEL_TRACES_EXPORTER: "none" },
  });
  t.after(() => ended(child));
  for (let turn = 0; turn < 200; turn += 1) {
    const answer = await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => null);
    if (answer) return { name, port, pid: child.pid };
    if (child.exitCode !== null) break;
    await delay(50);
  }
  throw new Error(`${name} did not start`);
}

/**
 * Many clients pull the same cold image at once, on one process and on two: wall time, failures, GETs of each blob, bytes from upstream. Timed runs count bytes; then a run
 * of its own verifies every byte at every client. `node test/bench/proxy-herd.ts [MB of a layer] [rounds] [many clients]`, with SLIPWAY_TEST_DATABASE_URL set.
 * Full size: 25 3 200. Where `zot-sync` is in PATH it takes its turn. The many clients take layers of a tenth of the size.
 */
import { median } from "./http-load.ts";
import {
  bench,
  memoryOf,
  mostGets,
  portOf,
  PROJECT,
  pushImage,
  requestsText,
  settleMemory,
  startCache,
  startGate,
  startPuller,
  startUpstream,
} from "./proxy-setting.ts";
import { PEER_NAMESPACE, startPeers } from "./proxy-peers.ts";
import type { Gate, Puller, Upstream } from "./proxy-setting.ts";
import type { PullResult } from "./proxy-puller.ts";

const LAYER_BYTES = Number(process.argv[2] ?? 25) * 1_000_000;
const ROUNDS = Number(process.argv[3] ?? 3);
const MANY = Number(process.argv[4] ?? 200);
const FEW = 20;
const LAYERS = 8;
const NETWORKS = [
  { label: "50 ms", faults: { delayMs: 50, bytesPerSecond: 0 }, there: "zot-sync 4.5 to 5.7 s" },
  { label: "50 ms, 100 MB/s", faults: { delayMs: 50, bytesPerSecond: 100_000_000 }, there: "zot-sync 5.9 to 7.6 s" },
] as const;

interface Setting {
  readonly upstream: Upstream;
  readonly gate: Gate;
  readonly pull: Puller;
  readonly port: number;
  /** Before the image's name. */
  readonly prefix: string;
}

let images = 0;

interface Herd {
  readonly clients: number;
  readonly layerBytes: number;
  readonly faults: { readonly delayMs: number; readonly bytesPerSecond: number };
  readonly verify: boolean;
}

async function stampede({ upstream, gate, pull, port, prefix }: Setting, herd: Herd): Promise<{ seconds: number; text: string }> {
  const { name, bytes } = await pushImage(upstream, `${PEER_NAMESPACE}/image${(images += 1)}`, {
    layers: LAYERS,
    layerBytes: herd.layerBytes,
  });
  await gate.set(herd.faults);
  await settleMemory(1_000_000_000);
  await gate.take();
  const result = await pull({
    port,
    name: `${prefix}${name}`,
    reference: "v1",
    clients: herd.clients,
    verify: herd.verify,
  });
  const counts = await gate.take();
  await gate.set({ delayMs: 0, bytesPerSecond: 0 });
  const failed = failures(result);
  const text = `${result.clients.length - failed.length} of ${herd.clients} clients whole, at most ${mostGets(counts)} GET a blob, ${(counts.bytesDown / 1e6).toFixed(0)} MB from upstream for ${(bytes / 1e6).toFixed(0)} MB (${requestsText(counts)})${failed.length > 0 ? `\n    FAILED: ${[...new Set(failed)].slice(0, 3).join("; ")}` : ""}`;
  return { seconds: result.wallMs / 1000, text };
}

function failures(result: PullResult): string[] {
  return result.clients.flatMap(({ failure }) => (failure === null ? [] : [failure]));
}

await bench(async (t) => {
  const upstream = await startUpstream(t);
  const gate = await startGate(t, upstream);
  const pull = await startPuller(t);
  const [peer] = await startPeers(t, gate, ["zot-sync"]);
  for (const processes of [1, 2]) {
    const cache = await startCache(t, gate.url, { env: { SLIPWAY_PROXY_PROCESSES: String(processes) } });
    const setting: Setting = { upstream, gate, pull, port: portOf(cache), prefix: `${PROJECT}/` };
    const other: Setting | null = peer ? { ...setting, port: peer.port, prefix: "" } : null;
    for (const each of [setting, ...(other ? [other] : [])])
      await stampede(each, { clients: 4, layerBytes: 1_000_000, faults: { delayMs: 0, bytesPerSecond: 0 }, verify: false });
    console.log(`\n${processes} process${processes > 1 ? "es" : ""}; image of ${LAYERS} x ${LAYER_BYTES / 1e6} MB; medians of ${ROUNDS}`);
    for (const { label, faults, there } of NETWORKS) {
      const runs: { seconds: number; text: string }[] = [];
      const theirs: number[] = [];
      for (let round = 0; round < ROUNDS; round += 1) {
        const herd: Herd = { clients: FEW, layerBytes: LAYER_BYTES, faults, verify: false };
        runs.push(await stampede(setting, herd));
        if (other) theirs.push((await stampede(other, herd)).seconds);
      }
      console.log(
        `  ${FEW} clients, ${label}: ${median(runs.map(({ seconds }) => seconds)).toFixed(2)} s (${runs.map(({ seconds }) => seconds.toFixed(2)).join(" ")}); there ${there}`,
      );
      if (theirs.length > 0)
        console.log(`    ${peer?.name} here: ${median(theirs).toFixed(2)} s (${theirs.map((seconds) => seconds.toFixed(2)).join(" ")})`);
      for (const text of new Set(runs.map((run) => run.text))) console.log(`    ${text}`);
    }
    const verified = await stampede(setting, { clients: FEW, layerBytes: LAYER_BYTES, faults: NETWORKS[0].faults, verify: true });
    console.log(`  ${FEW} clients, every byte verified: ${verified.text}`);
    const many = await stampede(setting, {
      clients: MANY,
      layerBytes: Math.ceil(LAYER_BYTES / 10),
      faults: NETWORKS[0].faults,
      verify: false,
    });
    console.log(`  ${MANY} clients, layers of ${LAYER_BYTES / 1e7} MB: ${many.seconds.toFixed(2)} s; ${many.text}`);
    const manyVerified = await stampede(setting, {
      clients: MANY,
      layerBytes: Math.ceil(LAYER_BYTES / 10),
      faults: NETWORKS[0].faults,
      verify: true,
    });
    console.log(`  ${MANY} clients, every byte verified: ${manyVerified.text}`);
    console.log(`  highest resident set of the first process ${memoryOf(cache.child.pid).peak.toFixed(0)} MB (zot-sync 83)`);
    await cache.stop();
  }
});

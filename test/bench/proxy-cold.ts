/**
 * One client pulls a cold image through the cache, against the same client pulling it from the upstream directly, in three networks. Each round has a fresh
 * image; rounds are interleaved, medians. Beside it a program that only passes on, hashes and writes: what a cache in Node costs at least where all share the cores.
 * Then a pull of its own that verifies every byte.
 * `node test/bench/proxy-cold.ts [rounds] [layers] [MB of a layer]`, with SLIPWAY_TEST_DATABASE_URL set. Full size: 5 8 25.
 */
import { median } from "./http-load.ts";
import {
  bench,
  cpuOf,
  memoryOf,
  portOf,
  PROJECT,
  pushImage,
  requestsText,
  settleMemory,
  startBare,
  startCache,
  startGate,
  startPuller,
  startUpstream,
  totalRequests,
} from "./proxy-setting.ts";
import { PEER_NAMESPACE, startPeers } from "./proxy-peers.ts";
import type { PullResult } from "./proxy-puller.ts";

const ROUNDS = Number(process.argv[2] ?? 5);
const LAYERS = Number(process.argv[3] ?? 8);
const LAYER_MB = Number(process.argv[4] ?? 25);
const WARM_UPS = 4;
const LAYER_BYTES = LAYER_MB * 1_000_000;

const NETWORKS = [
  { label: "no delay", faults: { delayMs: 0, bytesPerSecond: 0 }, bar: 1.3, peer: "distribution 562 / 361 ms = 1.56" },
  { label: "50 ms a request", faults: { delayMs: 50, bytesPerSecond: 0 }, bar: 1.3, peer: "harbor-cache 644 / 395 ms = 1.63" },
  {
    label: "50 ms, 100 MB/s",
    faults: { delayMs: 50, bytesPerSecond: 100_000_000 },
    bar: 1.02,
    peer: "harbor-cache 2067 / 2061 ms = 1.003; first byte 152 / 132 ms = 1.15",
  },
] as const;

interface Sample {
  readonly ms: number;
  readonly firstByteMs: number;
}

function sampleOf(result: PullResult): Sample {
  const [client] = result.clients;
  if (!client || client.failure !== null) throw new Error(`a pull failed: ${client?.failure}`);
  return { ms: client.ms, firstByteMs: median(client.firstBytesMs) };
}

await bench(async (t) => {
  const upstream = await startUpstream(t);
  const gate = await startGate(t, upstream);
  const pull = await startPuller(t);
  const cache = await startCache(t, gate.url);
  const bare = await startBare(t, gate);
  const peers = await startPeers(t, gate);
  const direct = (name: string): ReturnType<typeof pull> => pull({ port: gate.port, name, reference: "v1", clients: 1, verify: false });
  const through = (name: string, verify = false): ReturnType<typeof pull> =>
    pull({ port: portOf(cache), name: `${PROJECT}/${name}`, reference: "v1", clients: 1, verify });

  const floor = (name: string): ReturnType<typeof pull> => pull({ port: bare.port, name, reference: "v1", clients: 1, verify: false });
  const settled = (): Promise<void> => settleMemory(2 * LAYERS * LAYER_BYTES);

  // All paths are compiled, and their memory is there, before anything is timed: a server runs for weeks.
  for (let index = 0; index < WARM_UPS; index += 1) {
    const { name } = await pushImage(upstream, `${PEER_NAMESPACE}/up${index}`, { layers: LAYERS, layerBytes: LAYER_BYTES });
    sampleOf(await direct(name));
    sampleOf(await through(name));
    sampleOf(await floor(name));
    for (const peer of peers) sampleOf(await pull({ port: peer.port, name, reference: "v1", clients: 1, verify: false }));
  }
  console.log(`${LAYERS} layers of ${LAYER_MB} MB, one client, medians of ${ROUNDS} interleaved rounds`);
  for (const [index, network] of NETWORKS.entries()) {
    const [ours, theirs, least]: [Sample[], Sample[], Sample[]] = [[], [], []];
    const cpu: number[] = [];
    const leastCpu: number[] = [];
    const others = peers.map((peer) => ({ peer, samples: [] as Sample[], cpu: [] as number[] }));
    let requests = "";
    for (let round = 0; round < ROUNDS; round += 1) {
      const { name } = await pushImage(upstream, `${PEER_NAMESPACE}/net${index}-${round}`, { layers: LAYERS, layerBytes: LAYER_BYTES });
      await gate.set(network.faults);
      const pulls = [
        async () => void theirs.push(sampleOf(await direct(name))),
        async () => {
          const before = cpuOf(bare.pid);
          least.push(sampleOf(await floor(name)));
          leastCpu.push(cpuOf(bare.pid) - before);
        },
        async () => {
          await gate.take();
          const before = cpuOf(cache.child.pid);
          ours.push(sampleOf(await through(name)));
          cpu.push(cpuOf(cache.child.pid) - before);
          const counts = await gate.take();
          requests = `${totalRequests(counts)} upstream requests (${requestsText(counts)})`;
        },
        ...others.map(({ peer, samples, cpu: theirCpu }) => async () => {
          const before = cpuOf(peer.pid);
          samples.push(sampleOf(await pull({ port: peer.port, name, reference: "v1", clients: 1, verify: false })));
          theirCpu.push(cpuOf(peer.pid) - before);
        }),
      ];
      // Whoever comes first meets an upstream that reads the image for the first time.
      for (const one of round % 2 === 0 ? pulls : pulls.toReversed()) {
        await settled();
        await one();
      }
      await gate.set({ delayMs: 0, bytesPerSecond: 0 });
    }
    const [mine, yours] = [median(ours.map(({ ms }) => ms)), median(theirs.map(({ ms }) => ms))];
    const [first, firstDirect] = [median(ours.map((one) => one.firstByteMs)), median(theirs.map((one) => one.firstByteMs))];
    const [bareMs, bareFirst] = [median(least.map(({ ms }) => ms)), median(least.map((one) => one.firstByteMs))];
    console.log(`\n${network.label}`);
    console.log(
      `  ${mine.toFixed(0)} ms, direct ${yours.toFixed(0)} ms: ratio ${(mine / yours).toFixed(3)} (bar ${network.bar}; best peer ${network.peer})`,
    );
    console.log(
      `  first byte of a layer ${first.toFixed(0)} ms, direct ${firstDirect.toFixed(0)} ms: ratio ${(first / firstDirect).toFixed(2)} (bar 1.1)`,
    );
    console.log(
      `  the least that Node can do here: ${bareMs.toFixed(0)} ms, ratio ${(bareMs / yours).toFixed(3)}; first byte ${bareFirst.toFixed(0)} ms, ratio ${(bareFirst / firstDirect).toFixed(2)}; CPU ${median(leastCpu).toFixed(2)} s`,
    );
    for (const { peer, samples, cpu: theirCpu } of others)
      console.log(
        `  ${peer.name}: ${median(samples.map(({ ms }) => ms)).toFixed(0)} ms, ratio ${(median(samples.map(({ ms }) => ms)) / yours).toFixed(3)}; first byte ${median(samples.map((one) => one.firstByteMs)).toFixed(0)} ms, ratio ${(median(samples.map((one) => one.firstByteMs)) / firstDirect).toFixed(2)}; CPU ${median(theirCpu).toFixed(2)} s`,
      );
    console.log(`  ${requests}; bar ${LAYERS + 2}; best peer 10 (harbor-cache), 11 (zot), 40 (distribution)`);
    console.log(
      `  CPU ${median(cpu).toFixed(2)} s a pull (distribution 0.43); samples ${ours.map(({ ms }) => ms.toFixed(0)).join(" ")} / ${theirs.map(({ ms }) => ms.toFixed(0)).join(" ")} ms`,
    );
  }
  const { name } = await pushImage(upstream, `${PEER_NAMESPACE}/verified`, { layers: LAYERS, layerBytes: LAYER_BYTES });
  sampleOf(await through(name, true));
  sampleOf(await through(name, true));
  console.log(
    `\nevery byte verified, cold and warm; highest resident set ${memoryOf(cache.child.pid).peak.toFixed(0)} MB (distribution 79, harbor-cache 57)`,
  );
});

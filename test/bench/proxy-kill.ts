/**
 * kill -9 in the middle of a fill: whether the client that was cut off could take what it had for the whole, how soon and how much is fetched again after a restart on the same
 * folder, and whether every byte is right then. `node test/bench/proxy-kill.ts [MB of the blob] [rounds]`, with SLIPWAY_TEST_DATABASE_URL set. Full size: 400 3.
 */
import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { sharedServices } from "../support/slipway.ts";
import { tempDir } from "../support/temp.ts";
import { bench, mostGets, PROJECT, pushImage, requestsText, startCache, startGate, startUpstream } from "./proxy-setting.ts";

const BLOB_BYTES = Number(process.argv[2] ?? 400) * 1_000_000;
const ROUNDS = Number(process.argv[3] ?? 3);
/** So slow that the middle can be met. */
const RATE = BLOB_BYTES / 4;

interface Taken {
  readonly status: number;
  readonly bytes: number;
  readonly digest: string;
  readonly isCut: boolean;
  readonly firstByteMs: number;
}

async function take(url: string): Promise<Taken> {
  const started = performance.now();
  const hash = createHash("sha256");
  let bytes = 0;
  let firstByteMs = Number.NaN;
  const answer = await fetch(url);
  try {
    for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
      if (bytes === 0) firstByteMs = performance.now() - started;
      hash.update(chunk);
      bytes += chunk.length;
    }
    return { status: answer.status, bytes, digest: `sha256:${hash.digest("hex")}`, isCut: false, firstByteMs };
  } catch {
    return { status: answer.status, bytes, digest: "", isCut: true, firstByteMs };
  }
}

await bench(async (t) => {
  const upstream = await startUpstream(t);
  const gate = await startGate(t, upstream);
  for (let round = 0; round < ROUNDS; round += 1) {
    const dataDir = await tempDir(t, "slipway-bench-kill-");
    const services = await sharedServices(t);
    const { name, manifest } = await pushImage(upstream, `kill/image${round}`, { layers: 1, layerBytes: BLOB_BYTES });
    const digest = (JSON.parse(manifest.bytes.toString()) as { layers: { digest: string }[] }).layers[0]?.digest ?? "";
    const first = await startCache(t, gate.url, { services, dataDir, env: { SLIPWAY_PROXY_PREFETCH: "false" } });
    const path = `/v2/${PROJECT}/${name}/blobs/${digest}`;
    await (await fetch(`${first.url}/v2/${PROJECT}/${name}/manifests/v1`)).arrayBuffer();
    await gate.set({ bytesPerSecond: RATE });
    await gate.take();
    const victim = take(`${first.url}${path}`);
    await delay(1_200 + round * 800);
    await first.stop("SIGKILL");
    const cut = await victim;
    const before = await gate.take();
    const again = await startCache(t, gate.url, { services, dataDir, env: { SLIPWAY_PROXY_PREFETCH: "false" } });
    await gate.take();
    const whole = await take(`${again.url}${path}`);
    const after = await gate.take();
    const isRight = whole.status === 200 && whole.digest === digest && whole.bytes === BLOB_BYTES;
    const twice = before.bytesDown + after.bytesDown - BLOB_BYTES;
    console.log(`\nkilled when ${(before.bytesDown / 1e6).toFixed(0)} of ${BLOB_BYTES / 1e6} MB had come`);
    console.log(`  its client: ${cut.isCut ? `cut off after ${(cut.bytes / 1e6).toFixed(0)} MB` : "WAS TOLD THAT IT HAS ALL"}`);
    console.log(
      `  after the restart: ${isRight ? "every byte right" : `WRONG (${whole.status}, ${whole.bytes} bytes, ${whole.digest})`}, first byte after ${(whole.firstByteMs / 1000).toFixed(1)} s`,
    );
    console.log(
      `  fetched ${(after.bytesDown / 1e6).toFixed(0)} MB (${requestsText(after)}, at most ${mostGets(after)} a blob); fetched twice: ${(twice / 1e6).toFixed(1)} MB, ${((twice / before.bytesDown) * 100).toFixed(1)} % of what had come`,
    );
    const warm = await take(`${again.url}${path}`);
    console.log(`  once more, from storage: ${warm.digest === digest ? "every byte right" : "WRONG"}`);
    await gate.set({ bytesPerSecond: 0 });
    await again.stop();
  }
});

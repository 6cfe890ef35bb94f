/**
 * Clients of the proxy benches, in a process of their own: each takes a manifest and then all its blobs side by side. Raw sockets with one shared
 * buffer, because the client's own cost must stay small beside what is measured. Bytes are counted, or hashed when asked to.
 */
import { createHash } from "node:crypto";
import { connect } from "node:net";
import type { Socket } from "node:net";

export interface PullRequest {
  readonly id: number;
  readonly port: number;
  /** Path of the image behind /v2/. */
  readonly name: string;
  readonly reference: string;
  readonly clients: number;
  readonly verify: boolean;
}

export interface ClientResult {
  readonly ms: number;
  readonly manifestMs: number;
  /** From the beginning of the pull to the first byte of each layer. */
  readonly firstBytesMs: readonly number[];
  /** From the request of a layer to its first byte. */
  readonly layerWaitsMs: readonly number[];
  readonly bytes: number;
  readonly failure: string | null;
}

export interface PullResult {
  readonly wallMs: number;
  readonly clients: readonly ClientResult[];
}

interface Answer {
  readonly status: number;
  readonly bytes: number;
  readonly body: Buffer;
  readonly digest: string | null;
  readonly firstByteAt: number;
}

interface GetOptions {
  readonly port: number;
  readonly path: string;
  readonly keep: boolean;
  readonly verify: boolean;
}

const READ_BYTES = 512 * 1024;
const BUFFER = Buffer.allocUnsafe(READ_BYTES);
const ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
const IDLE_MS = 120_000;

function get(options: GetOptions): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const hash = options.verify ? createHash("sha256") : null;
    let head = "";
    let expected = -1;
    let status = 0;
    let bytes = 0;
    let firstByteAt = 0;
    let isOver = false;
    const take = (chunk: Buffer): void => {
      if (chunk.length === 0 && expected !== 0) return;
      if (bytes === 0) firstByteAt = performance.now();
      bytes += chunk.length;
      hash?.update(chunk);
      if (options.keep) parts.push(Buffer.from(chunk));
      if (bytes < expected) return;
      isOver = true;
      socket.destroy();
      const digest = hash ? `sha256:${hash.digest("hex")}` : null;
      resolve({ status, bytes, body: Buffer.concat(parts), digest, firstByteAt });
    };
    const socket: Socket = connect({
      port: options.port,
      host: "127.0.0.1",
      onread: {
        buffer: BUFFER,
        callback: (count, buffer) => {
          const chunk = Buffer.from(buffer.buffer, buffer.byteOffset, count);
          if (expected >= 0) {
            take(chunk);
            return true;
          }
          const before = Buffer.byteLength(head, "latin1");
          head += chunk.toString("latin1");
          const end = head.indexOf("\r\n\r\n");
          if (end < 0) return true;
          status = Number(head.slice(9, 12));
          expected = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0);
          take(chunk.subarray(end + 4 - before));
          return true;
        },
      },
    });
    socket.setTimeout(IDLE_MS, () => socket.destroy(new Error("nothing came for too long")));
    socket.once("error", reject);
    socket.once("close", () => {
      if (!isOver) reject(new Error(`the connection ended after ${bytes} of ${expected} bytes`));
    });
    socket.write(`GET ${options.path} HTTP/1.1\r\nHost: 127.0.0.1:${options.port}\r\nAccept: ${ACCEPT}\r\n\r\n`);
  });
}

async function pullOnce({ port, name, reference, verify }: PullRequest): Promise<ClientResult> {
  const started = performance.now();
  const since = (at: number): number => at - started;
  let bytes = 0;
  let manifestMs = Number.NaN;
  const firstBytesMs: number[] = [];
  const layerWaitsMs: number[] = [];
  let failure: string | null = null;
  try {
    const manifest = await get({ port, path: `/v2/${name}/manifests/${reference}`, keep: true, verify });
    manifestMs = since(performance.now());
    if (manifest.status !== 200) throw new Error(`manifest: ${manifest.status} ${manifest.body.toString()}`);
    const { config, layers } = JSON.parse(manifest.body.toString()) as Record<"config", Blob> & Record<"layers", Blob[]>;
    const blob = async ({ digest, size }: Blob, isLayer: boolean): Promise<void> => {
      const asked = performance.now();
      const answer = await get({ port, path: `/v2/${name}/blobs/${digest}`, keep: false, verify });
      bytes += answer.bytes;
      if (isLayer) {
        firstBytesMs.push(since(answer.firstByteAt));
        layerWaitsMs.push(answer.firstByteAt - asked);
      }
      if (answer.status !== 200) throw new Error(`blob: ${answer.status}`);
      if (answer.bytes !== size) throw new Error(`blob: ${answer.bytes} of ${size} bytes`);
      if (verify && answer.digest !== digest) throw new Error(`WRONG BYTES for ${digest}`);
    };
    await Promise.all([blob(config, false), ...layers.map((layer) => blob(layer, true))]);
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  }
  return { ms: since(performance.now()), manifestMs, firstBytesMs, layerWaitsMs, bytes, failure };
}

interface Blob {
  readonly digest: string;
  readonly size: number;
}

process.on("message", (request: PullRequest) => {
  void (async () => {
    const started = performance.now();
    const clients = await Promise.all(Array.from({ length: request.clients }, () => pullOnce(request)));
    process.send?.({ id: request.id, result: { wallMs: performance.now() - started, clients } satisfies PullResult });
  })();
});
process.once("disconnect", () => process.exit(0));
process.send?.({ ready: true });

/** The body of an answer as a stream that is complete, or fails with an error of the catalogue. */
import { Readable } from "node:stream";
import { SlipwayError } from "../core/errors.ts";
import { s3Error } from "./s3-errors.ts";

const READ_AHEAD_BYTES = 256 * 1024;

export interface S3Body {
  readonly stream: Readable;
  readonly length: number;
}

/** Silence counts only while somebody waits for bytes: a slow reader is no fault of the service. */
export async function* readBody(body: S3Body, idleMs: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const { stream } = body;
  const iterator: AsyncIterator<Uint8Array> = stream.iterator();
  const onAbort = (): void => void stream.destroy(new Error("aborted"));
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  let left = body.length;
  try {
    for (;;) {
      const timer = setTimeout(() => stream.destroy(new Error("the storage service fell silent")), idleMs);
      const next = await iterator.next().finally(() => clearTimeout(timer));
      if (next.done) break;
      left -= next.value.byteLength;
      yield next.value;
    }
    if (left !== 0) throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "the storage service sent another length than it declared" });
  } catch (error) {
    throw s3Error(error, signal);
  } finally {
    signal?.removeEventListener("abort", onAbort);
    stream.destroy();
  }
}

export function toReadable(chunks: AsyncIterable<Uint8Array>): Readable {
  const stream = Readable.from(chunks, { objectMode: false, highWaterMark: READ_AHEAD_BYTES });
  // It may fail before its reader begins to listen; that must not end the process.
  return stream.on("error", () => undefined);
}

export async function collectBody(body: S3Body, idleMs: number, signal?: AbortSignal): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of readBody(body, idleMs, signal)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

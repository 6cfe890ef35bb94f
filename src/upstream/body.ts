/** Reads small bodies with a bound, and gets rid of those that nobody wants. */
import type { Readable } from "node:stream";
import { SlipwayError } from "../core/errors.ts";

const DISCARD_BYTES = 64 * 1024;

export async function readBounded(
  body: Readable,
  maxBytes: number,
  code: "UPSTREAM_INVALID" | "PAYLOAD_TOO_LARGE" = "UPSTREAM_INVALID",
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBytes) {
      body.destroy();
      throw new SlipwayError(code, { message: "the upstream registry sent more than the limit", detail: { limit: maxBytes } });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/** A short rest is read so that the connection can be used again; a long one is not worth it. Never fails. */
export async function discard(body: Readable): Promise<Buffer> {
  try {
    return await readBounded(body, DISCARD_BYTES);
  } catch {
    return Buffer.alloc(0);
  }
}

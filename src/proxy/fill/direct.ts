/**
 * From upstream to one client, for when there is no room to stage: a full disk must not stop pulls. Whoever reads the whole still never gets the last bytes
 * before the digest is right; nothing is kept.
 */
import type { Hash } from "node:crypto";
import { SlipwayError } from "../../core/errors.ts";
import type { UpstreamClient } from "../../upstream/client.ts";

export interface DirectRead {
  readonly client: UpstreamClient;
  readonly upstreamRepository: string;
  readonly digest: string;
  readonly size: number;
  /** `end` is exclusive. */
  readonly range: { readonly start: number; readonly end: number };
  /** Over everything before the range; null when it does not begin with the blob, or does not end with it. */
  readonly hash: Hash | null;
  readonly heldBackBytes: number;
  readonly signal: AbortSignal | undefined;
}

export async function* readDirect(direct: DirectRead): AsyncGenerator<Uint8Array> {
  const { client, upstreamRepository, digest, size, range, hash, signal } = direct;
  const isWhole = range.start === 0 && range.end === size;
  const answer = await client.getBlob(upstreamRepository, digest, {
    ...(isWhole ? {} : { range: { start: range.start, end: range.end - 1 } }),
    expectedSize: size,
    priority: "interactive",
    signal,
  });
  const body = answer.body as AsyncIterable<Uint8Array>;
  if (hash === null) yield* body;
  else yield* verified(body, { ...direct, hash });
}

async function* verified(
  body: AsyncIterable<Uint8Array>,
  { digest, hash, heldBackBytes }: { digest: string; hash: Hash; heldBackBytes: number },
): AsyncGenerator<Uint8Array> {
  let held: Uint8Array = Buffer.alloc(0);
  for await (const chunk of body) {
    hash.update(chunk);
    const all = Buffer.concat([held, chunk]);
    const ready = Math.max(0, all.length - heldBackBytes);
    if (ready > 0) yield all.subarray(0, ready);
    held = all.subarray(ready);
  }
  const found = `${digest.slice(0, digest.indexOf(":"))}:${hash.digest("hex")}`;
  if (found !== digest) throw new SlipwayError("DIGEST_MISMATCH", { detail: { digest, found } });
  yield held;
}

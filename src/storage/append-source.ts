/** Draws the chunks of an upload out of its source: limit, abort and a cut are treated alike by both drivers. */
import { SlipwayError } from "../core/errors.ts";
import type { AppendOptions } from "./blob-store.ts";

/** Takes a chunk; a promise means "ask for no more until then". The chunk may be reused by the source afterwards. */
export type ChunkSink = (chunk: Uint8Array) => Promise<void> | undefined;

/** The error by which the source ended, undefined when it ended well. Throws what sink, hash or limit throw. */
export async function drainSource(source: AsyncIterable<Uint8Array>, options: AppendOptions, sink: ChunkSink): Promise<unknown> {
  const iterator = source[Symbol.asyncIterator]();
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  let ended = false;
  try {
    for (;;) {
      let next: IteratorResult<Uint8Array>;
      try {
        next = await (options.signal ? abortable(iterator.next(), options.signal) : iterator.next());
      } catch (error) {
        ended = !options.signal?.aborted;
        return error ?? new Error("the source ended with an error");
      }
      if (next.done) {
        ended = true;
        return undefined;
      }
      left -= next.value.byteLength;
      if (left < 0) throw new SlipwayError("PAYLOAD_TOO_LARGE");
      options.onChunk?.(next.value);
      const wait = sink(next.value);
      if (wait) await wait;
    }
  } finally {
    // Not awaited: a source that hangs must not hold the one who gave up on it.
    if (!ended) void iterator.return?.().then(undefined, () => undefined);
  }
}

function abortable<Value>(pending: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(abortReason(signal));
    if (signal.aborted) {
      pending.catch(() => undefined);
      onAbort();
      return;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    pending.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

export function abortReason(signal: AbortSignal): SlipwayError {
  return new SlipwayError("CANCELLED", { cause: signal.reason });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortReason(signal);
}

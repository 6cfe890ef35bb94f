/** Reading a blob that is being filled: from the growing file, from its successor when the owner dies, from storage when it is done, or ahead of it all. */
import type { StoredBlob } from "../../catalog/registry.ts";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { UpstreamClient } from "../../upstream/client.ts";
import { readDirect } from "./direct.ts";
import { Fill } from "./fill.ts";
import type { Growing } from "./growing.ts";
import { FRESH_BLOCKS, GrowingReader, MovedAway } from "./growing-reader.ts";
import type { BlockSource } from "./growing-reader.ts";

export interface ReadOptions {
  readonly blocks?: BlockSource;
  readonly signal?: AbortSignal;
}

/** A blob that can be read from any position now. */
export interface OpenBlob {
  readonly size: number;
  /** `end` is exclusive. Chunks are valid until the next one is asked for. */
  read(range: { start: number; end: number }, options?: ReadOptions): AsyncIterable<Uint8Array>;
}

interface OpenRead extends ReadOptions {
  readonly request: { readonly client: UpstreamClient; readonly upstreamRepository: string; readonly digest: string };
  readonly first: Growing;
  readonly size: number;
  readonly range: { start: number; end: number };
  readonly heldBackBytes: number;
  readonly stats: { takenOver: number; aheadRequests: number; aheadBytes: number; unstaged: number };
  readonly rejoin: () => Promise<Growing | StoredBlob>;
  readonly readStored: (range: { start: number; end: number }) => Promise<AsyncIterable<Uint8Array>>;
}

const TAKE_OVERS = 5;
/** A range that begins so far behind what is there is fetched by itself instead of waiting. */
const AHEAD_BYTES = 1024 * 1024;

export async function* readOpenBlob(open: OpenRead): AsyncGenerator<Uint8Array> {
  const { range, first, signal, rejoin } = open;
  if (isAhead(first, range.start, open.size)) {
    const ahead = await openAhead(open);
    if (ahead) {
      yield* ahead;
      return;
    }
  }
  const reader = new GrowingReader(range, open.blocks ?? FRESH_BLOCKS);
  try {
    let growing = first;
    for (let takeOvers = 0; ; takeOvers += 1) {
      try {
        yield* reader.read(growing, signal);
        return;
      } catch (error) {
        if (error instanceof MovedAway) {
          yield* await reader.continueWith(open.readStored);
          return;
        }
        if (isWithoutRoom(growing) && !signal?.aborted) {
          yield* await direct(open, reader, growing);
          return;
        }
        // Only what another process failed to bring is tried again here: what this one could not fetch stays so.
        const isFinal = growing instanceof Fill && !growing.isAbandoned;
        if (signal?.aborted || isFinal || growing.state !== "failed" || takeOvers >= TAKE_OVERS) throw error;
      }
      open.stats.takenOver += 1;
      const next = await rejoin();
      if ("bytes" in next) {
        yield* await reader.continueWith(open.readStored);
        return;
      }
      growing = next;
    }
  } finally {
    await reader.close();
  }
}

/** There is no staging it here; upstream is well. */
export function isWithoutRoom(growing: Growing): boolean {
  return growing.state === "failed" && isSlipwayError(growing.failure, "STORAGE_FULL", "STORAGE_UNAVAILABLE");
}

async function direct(
  { request, range, size, heldBackBytes, stats, signal }: OpenRead,
  reader: GrowingReader,
  growing: Growing,
): Promise<AsyncIterable<Uint8Array>> {
  stats.unstaged += 1;
  const isWhole = range.start === 0 && range.end === size;
  return readDirect({
    ...request,
    size,
    range: { start: reader.position, end: range.end },
    hash: isWhole ? await reader.hashSoFar(request.digest.slice(0, request.digest.indexOf(":")), growing) : null,
    heldBackBytes,
    signal,
  });
}

function isAhead(growing: Growing, start: number, size: number): boolean {
  return growing.state === "running" && start > growing.prefixEnd + AHEAD_BYTES && growing.visibleEnd(start) <= start && start < size;
}

/** Straight from upstream to one client; not stored, counted apart. Null when upstream does not give it: then the fill is waited for. */
async function openAhead({ request, range, stats, signal, size }: OpenRead): Promise<AsyncIterable<Uint8Array> | null> {
  if (!request.client.honoursRanges) return null;
  stats.aheadRequests += 1;
  try {
    const answer = await request.client.getBlob(request.upstreamRepository, request.digest, {
      range: { start: range.start, end: range.end - 1 },
      expectedSize: size,
      priority: "interactive",
      signal,
    });
    if (!answer.isPart) {
      answer.body.on("error", () => undefined).destroy();
      return null;
    }
    return counted(answer.body as AsyncIterable<Uint8Array>, stats);
  } catch (error) {
    if (signal?.aborted || !(error instanceof SlipwayError)) throw error;
    return null;
  }
}

async function* counted(body: AsyncIterable<Uint8Array>, stats: OpenRead["stats"]): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    stats.aheadBytes += chunk.length;
    yield chunk;
  }
}

/** Reading a blob that is being filled: from the growing file, from its successor when the owner dies, from storage when it is done, or ahead of it all. */
import type { StoredBlob } from "../../catalog/registry.ts";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { UpstreamClient } from "../../upstream/client.ts";
import { readDirect } from "./direct.ts";
import { Fill } from "./fill.ts";
import type { FillRequest } from "./fill-request.ts";
import type { Growing } from "./growing.ts";
import { GrowingReader, MovedAway } from "./growing-reader.ts";
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

export function readOpenBlob(open: OpenRead): AsyncIterable<Uint8Array> {
  return { [Symbol.asyncIterator]: () => new Reading(open) };
}

/** An iterator by hand: nested generators would pass each piece through a chain of promises. */
class Reading implements AsyncIterator<Uint8Array> {
  readonly #open: OpenRead;
  readonly #reader: GrowingReader;
  #growing: Growing;
  #takeOvers = 0;
  /** Where it goes on when it is not the growing file. */
  #rest: AsyncIterator<Uint8Array> | null = null;
  #hasBegun = false;

  constructor(open: OpenRead) {
    this.#open = open;
    this.#growing = open.first;
    this.#reader = new GrowingReader(open.range, open);
  }

  async next(): Promise<IteratorResult<Uint8Array>> {
    try {
      const result = await this.#next();
      if (result.done === true) await this.#reader.close();
      return result;
    } catch (error) {
      await this.#reader.close();
      throw error;
    }
  }

  async return(): Promise<IteratorResult<Uint8Array>> {
    await this.#rest?.return?.();
    await this.#reader.close();
    return { done: true, value: undefined };
  }

  async #next(): Promise<IteratorResult<Uint8Array>> {
    if (!this.#hasBegun) await this.#begin();
    while (this.#rest === null) {
      try {
        const bytes = await this.#reader.next(this.#growing);
        return bytes === null ? { done: true, value: undefined } : { done: false, value: bytes };
      } catch (error) {
        this.#rest = await this.#goOn(error);
      }
    }
    return this.#rest.next();
  }

  async #begin(): Promise<void> {
    this.#hasBegun = true;
    const { first, range, size } = this.#open;
    if (isAhead(first, range.start, size)) this.#rest = iteratorOf(await openAhead(this.#open));
  }

  /** After the source failed; null when another one takes its place. */
  async #goOn(error: unknown): Promise<AsyncIterator<Uint8Array> | null> {
    const { readStored, rejoin, signal, stats } = this.#open;
    const growing = this.#growing;
    if (error instanceof MovedAway) return iteratorOf(await this.#reader.continueWith(readStored));
    if (isWithoutRoom(growing) && !signal?.aborted) return iteratorOf(await direct(this.#open, this.#reader, growing));
    // Only what another process failed to bring is tried again here: what this one could not fetch stays so.
    const isFinal = growing instanceof Fill && !growing.isAbandoned;
    if (signal?.aborted || isFinal || growing.state !== "failed" || this.#takeOvers >= TAKE_OVERS) throw error;
    this.#takeOvers += 1;
    stats.takenOver += 1;
    const next = await rejoin();
    if ("bytes" in next) return iteratorOf(await this.#reader.continueWith(readStored));
    this.#growing = next;
    return null;
  }
}

function iteratorOf(bytes: AsyncIterable<Uint8Array> | null): AsyncIterator<Uint8Array> | null {
  return bytes?.[Symbol.asyncIterator]() ?? null;
}

/** There is no staging it here; upstream is well. */
export function isWithoutRoom(growing: Growing): boolean {
  return growing.state === "failed" && isSlipwayError(growing.failure, "STORAGE_FULL", "STORAGE_UNAVAILABLE");
}

/** Without asking the fill. */
export async function sizeElsewhere({ client, upstreamRepository, digest, size }: FillRequest, signal?: AbortSignal): Promise<number> {
  const known = size ?? (await client.headBlob(upstreamRepository, digest, { priority: "interactive", signal })).size;
  if (known === null) throw new SlipwayError("STORAGE_FULL");
  return known;
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

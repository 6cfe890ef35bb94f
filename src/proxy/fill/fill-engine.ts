/**
 * Cold blobs: at most one fetch of a digest in the whole deployment, any number of readers. Decides for each request whether to fetch, to join, or to follow
 * another process, and takes over when that one dies.
 */
import type { BlobWriter } from "../../catalog/blob-writer.ts";
import type { StoredBlob } from "../../catalog/registry.ts";
import { SlipwayError } from "../../core/errors.ts";
import { sleep } from "../../core/clock.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { UpstreamClient } from "../../upstream/client.ts";
import type { Priority } from "../../upstream/types.ts";
import { Fill } from "./fill.ts";
import type { FillLimits } from "./fill.ts";
import type { FillLeases, Owner, ProcessIdentity } from "./fill-lease.ts";
import { RENEW_MS } from "./fill-lease.ts";
import { FileFollower, readGrowing, sizeOf } from "./growing.ts";
import type { Growing } from "./growing.ts";
import type { RemoteFills } from "./remote-fills.ts";

export interface FillRequest {
  readonly projectId: number;
  /** The name under which the content is kept here. */
  readonly repository: string;
  readonly upstreamRepository: string;
  readonly digest: string;
  /** From a descriptor of a manifest of this repository. */
  readonly size: number | null;
  readonly client: UpstreamClient;
  readonly priority: Priority;
}

export interface FillEngineOptions {
  readonly writer: BlobWriter;
  readonly store: BlobStore;
  readonly leases: FillLeases;
  readonly remote: RemoteFills;
  readonly self: ProcessIdentity;
  readonly folder: string;
  readonly limits: FillLimits;
  /** Fills that run at once in this process; more wait. */
  readonly maxFills: number;
  readonly logger: Logger;
  /** Told of every blob that came from upstream. */
  readonly onStored: (digest: string, size: number) => void;
}

/** A blob that can be read from any position now. */
export interface OpenBlob {
  readonly size: number;
  /** Chunks are valid until the next one is asked for. */
  read(range: { start: number; end: number }, signal?: AbortSignal): AsyncIterable<Uint8Array>;
}

interface Running {
  readonly fill: Fill;
  readonly fence: number;
  /** Repositories that get a link when the blob is stored: those whose right to it was proved. */
  readonly targets: Map<string, { projectId: number; repository: string }>;
}

export interface FillStats {
  started: number;
  completed: number;
  failed: number;
  mismatches: number;
  joined: number;
  followed: number;
  takenOver: number;
  upstreamBytes: number;
  aheadBytes: number;
  aheadRequests: number;
  secondsSum: number;
}

const TAKE_OVERS = 5;
const OWNER_POLL_MS = 200;
/** A range that begins so far behind what is there is fetched by itself instead of waiting. */
const AHEAD_BYTES = 1024 * 1024;

export class FillEngine {
  readonly #options: FillEngineOptions;
  readonly #running = new Map<string, Running>();
  readonly #starting = new Map<string, Promise<Growing | StoredBlob>>();
  readonly #renewer: NodeJS.Timeout;
  #isClosed = false;
  readonly stats: FillStats = {
    started: 0,
    completed: 0,
    failed: 0,
    mismatches: 0,
    joined: 0,
    followed: 0,
    takenOver: 0,
    upstreamBytes: 0,
    aheadBytes: 0,
    aheadRequests: 0,
    secondsSum: 0,
  };

  constructor(options: FillEngineOptions) {
    this.#options = options;
    this.#renewer = setInterval(() => void this.#renew(), RENEW_MS);
    this.#renewer.unref();
  }

  get active(): number {
    return this.#running.size;
  }

  /** A fill of this process, for other hosts that follow it. */
  find(digest: string): Growing | null {
    return this.#running.get(digest)?.fill ?? null;
  }

  /** Opens a blob that the project may read but that is not linked yet. Errors of upstream come out here, before any byte. */
  async open(request: FillRequest, signal?: AbortSignal): Promise<OpenBlob | StoredBlob> {
    const first = await this.#join(request);
    if ("bytes" in first) return first;
    const size = await sizeOf(first, signal);
    return { size, read: (range, readSignal) => this.#read(request, { growing: first, size, range }, readSignal) };
  }

  /** Starts a fill that nobody reads; resolves when it runs or is there already. */
  async prefetch(request: FillRequest): Promise<void> {
    if (this.#running.size >= this.#options.maxFills) return;
    await this.#join(request);
  }

  /** Fetches to the end; for the workflow that completes what no process holds. */
  async complete(request: FillRequest, signal: AbortSignal): Promise<void> {
    const growing = await this.#join(request);
    if ("bytes" in growing) return;
    while (growing.state === "running") await growing.change(signal);
    if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#renewer);
    await Promise.all([...this.#running.values()].map(({ fill }) => fill.abandon(new SlipwayError("DRAINING"))));
  }

  async *#read(
    request: FillRequest,
    opened: { growing: Growing; size: number; range: { start: number; end: number } },
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    let { growing } = opened;
    let position = opened.range.start;
    const { end } = opened.range;
    if (this.#isAhead(growing, position, opened.size)) {
      yield* this.#readAhead(request, opened.range, signal);
      return;
    }
    for (let takeOvers = 0; ; takeOvers += 1) {
      try {
        for await (const chunk of readGrowing(growing, { start: position, end }, signal)) {
          yield chunk;
          position += chunk.length;
        }
        return;
      } catch (error) {
        // Only what another process failed to bring is tried again here: what this one fetched wrongly stays wrong.
        if (growing instanceof Fill || growing.state !== "failed" || takeOvers >= TAKE_OVERS) throw error;
        this.stats.takenOver += 1;
        const next = await this.#join(request);
        if ("bytes" in next) {
          yield* this.#readStored(request.digest, { start: position, end }, signal);
          return;
        }
        growing = next;
      }
    }
  }

  async *#readStored(digest: string, range: { start: number; end: number }, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    yield* (await this.#options.store.read(digest, { start: range.start, end: range.end - 1 }, signal)) as AsyncIterable<Uint8Array>;
  }

  #isAhead(growing: Growing, start: number, size: number): boolean {
    return growing.state === "running" && start > growing.prefixEnd + AHEAD_BYTES && growing.visibleEnd(start) <= start && start < size;
  }

  /** Straight from upstream to one client; not stored, counted apart. */
  async *#readAhead(request: FillRequest, range: { start: number; end: number }, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    this.stats.aheadRequests += 1;
    const answer = await request.client.getBlob(request.upstreamRepository, request.digest, {
      range: { start: range.start, end: range.end - 1 },
      priority: "interactive",
      signal,
    });
    for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
      this.stats.aheadBytes += chunk.length;
      yield chunk;
    }
  }

  async #join(request: FillRequest): Promise<Growing | StoredBlob> {
    if (this.#isClosed) throw new SlipwayError("DRAINING");
    const running = this.#running.get(request.digest);
    if (running && running.fill.state !== "failed") {
      await this.#proveRight(request, running);
      this.stats.joined += 1;
      return running.fill;
    }
    const key = `${request.repository}@${request.digest}`;
    const starting = this.#starting.get(key);
    if (starting) {
      this.stats.joined += 1;
      return starting;
    }
    const start = this.#start(request).finally(() => this.#starting.delete(key));
    this.#starting.set(key, start);
    return start;
  }

  /** Another repository asks for a digest on its way: its own upstream must have it, of the same size, before it may read a byte. */
  async #proveRight(request: FillRequest, running: Running): Promise<void> {
    if (running.targets.has(request.repository)) return;
    const size = await sizeOf(running.fill);
    const head = await request.client.headBlob(request.upstreamRepository, request.digest, { priority: request.priority });
    if (head.size !== size) throw new SlipwayError("BLOB_UNKNOWN");
    running.targets.set(request.repository, request);
  }

  async #start(request: FillRequest): Promise<Growing | StoredBlob> {
    const stored = await this.#linkIfStored(request);
    if (stored) return stored;
    for (let waited = 0; ; waited += 1) {
      const lease = await this.#options.leases.acquire(request);
      if (lease.held) return this.#own(request, lease.fence);
      if (lease.owner) {
        const followed = await this.#follow(request, lease.owner);
        if (followed) return followed;
      }
      const now = await this.#linkIfStored(request);
      if (now) return now;
      if (waited > 50) throw new SlipwayError("UPSTREAM_UNAVAILABLE", { retryAfterSeconds: 2 });
      await sleep(OWNER_POLL_MS);
    }
  }

  /** The bytes are here by another project; the own upstream still has to have them. */
  async #linkIfStored(request: FillRequest): Promise<StoredBlob | null> {
    const stat = await this.#options.store.stat(request.digest);
    if (!stat) return null;
    const head = await request.client.headBlob(request.upstreamRepository, request.digest, { priority: request.priority });
    if (head.size !== null && head.size !== stat.size) throw new SlipwayError("BLOB_UNKNOWN");
    return this.#options.writer.linkStored(request, request.digest, null);
  }

  #own(request: FillRequest, fence: number): Fill {
    const { folder, limits, store, writer } = this.#options;
    const { digest } = request;
    const targets = new Map([[request.repository, { projectId: request.projectId, repository: request.repository }]]);
    const fill = new Fill({
      digest,
      size: request.size,
      fence,
      folder,
      limits,
      fetch: async (range, { signal }) => {
        const answer = await request.client.getBlob(request.upstreamRepository, digest, {
          ...(range.start === 0 && range.end === null
            ? {}
            : { range: { start: range.start, end: range.end === null ? undefined : range.end - 1 } }),
          ...(request.size === null ? {} : { expectedSize: request.size }),
          priority: request.priority,
          signal,
        });
        return { size: answer.size, body: answer.body as AsyncIterable<Uint8Array> };
      },
      adopt: async (path, size) => {
        for (const target of targets.values()) {
          await writer.storeAndLink(target, { digest, size, promote: (signal) => store.adoptFile(path, { digest, size }, signal) });
        }
        this.#options.onStored(digest, size);
      },
      onBytes: (count) => {
        this.stats.upstreamBytes += count;
      },
      onMismatch: (found) => {
        this.stats.mismatches += 1;
        this.#options.logger.error({ digest, found, repository: request.repository }, "upstream sent bytes of another digest");
      },
    });
    this.stats.started += 1;
    this.#running.set(digest, { fill, fence, targets });
    void this.#settle(fill, fence);
    return fill;
  }

  async #settle(fill: Fill, fence: number): Promise<void> {
    const { leases, logger } = this.#options;
    const { digest } = fill;
    try {
      await fill.finished;
      this.stats.completed += 1;
      this.stats.secondsSum += (performance.now() - fill.startedAt) / 1000;
      await leases.complete(digest, fence);
    } catch (error) {
      this.stats.failed += 1;
      logger.warn({ digest, error }, "a fill failed");
      await leases.release(digest, fence, fill.failure?.code ?? "INTERNAL").catch(() => undefined);
    } finally {
      this.#running.delete(digest);
    }
  }

  async #follow(request: FillRequest, owner: Owner): Promise<Growing | StoredBlob | null> {
    const { self, folder, limits, leases, store, remote } = this.#options;
    // Reading somebody else's fetch needs the same right as fetching.
    const head = await request.client.headBlob(request.upstreamRepository, request.digest, { priority: request.priority });
    this.stats.followed += 1;
    const isStored = async (): Promise<StoredBlob | null> => {
      const stat = await store.stat(request.digest);
      if (!stat || (head.size !== null && head.size !== stat.size)) return null;
      return this.#options.writer.linkStored(request, request.digest, null);
    };
    const isOwned = async (): Promise<boolean> => {
      const lease = await leases.acquire(request);
      if (!lease.held) return lease.owner !== null;
      await leases.release(request.digest, lease.fence, null);
      return false;
    };
    if (owner.host === self.host)
      return new FileFollower({ folder, digest: request.digest, heldBackBytes: limits.heldBackBytes, isStored, isOwned });
    return owner.address === null ? null : remote.follow({ digest: request.digest, address: owner.address, isStored, isOwned });
  }

  /** A fill whose lease went to another is stopped: two writers of one file would both fail. */
  async #renew(): Promise<void> {
    const held = [...this.#running.values()].filter(({ fill }) => fill.state === "running");
    if (held.length === 0) return;
    try {
      const kept = await this.#options.leases.renew(
        held.map(({ fill, fence }) => ({ digest: fill.digest, fence, stagedBytes: fill.stagedBytes })),
      );
      for (const { fill } of held) {
        if (!kept.has(fill.digest) && fill.state === "running")
          void fill.abandon(new SlipwayError("CONFLICT", { message: "another process took this fill over" }));
      }
    } catch (error) {
      this.#options.logger.warn({ error, fills: held.length }, "leases of fills could not be renewed");
    }
  }
}

/**
 * Cold blobs: at most one fetch of a digest in the whole deployment, any number of readers. Decides for each request whether to fetch, to join, or to follow
 * another process, and takes over when that one dies.
 */
import { LRUCache } from "lru-cache";
import type { BlobWriter } from "../../catalog/blob-writer.ts";
import type { StoredBlob } from "../../catalog/registry.ts";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import { sleep } from "../../core/clock.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import type { Logger } from "../../telemetry/logger.ts";
import { CommitTurn } from "./commit-turn.ts";
import { Fill } from "./fill.ts";
import type { FillLimits } from "./fill.ts";
import { adoptFor, linkIfStored } from "./fill-adoption.ts";
import type { FillLeases, Lease, Owner, ProcessIdentity } from "./fill-lease.ts";
import { RENEW_MS, keepLeases } from "./fill-lease.ts";
import { proveRight } from "./fill-request.ts";
import type { FillRequest, FillTarget } from "./fill-request.ts";
import { fetcherOf } from "./fill-source.ts";
import { noFills } from "./fill-stats.ts";
import type { FillStats } from "./fill-stats.ts";
import { answerOf, changeOf, FileFollower } from "./growing.ts";
import type { Growing } from "./growing.ts";
import { isWithoutRoom, readOpenBlob, sizeElsewhere } from "./open-blob.ts";
import type { OpenBlob } from "./open-blob.ts";
import type { RemoteFills } from "./remote-fills.ts";
import type { Scribes } from "./scribe.ts";
import { removeLeftovers } from "./staging-leftovers.ts";
import { UnreadFills } from "./unread-fills.ts";
import type { UnreadPolicy } from "./unread-fills.ts";

export interface FillEngineOptions {
  readonly writer: BlobWriter;
  readonly store: BlobStore;
  /** The size when the repository has a link to the digest. */
  readonly findLinked: (repository: string, digest: string) => Promise<{ size: number } | null>;
  readonly leases: FillLeases;
  readonly remote: RemoteFills;
  readonly self: ProcessIdentity;
  readonly folder: string;
  readonly scribes: Scribes;
  readonly limits: FillLimits;
  /** Prefetches begin only while fewer fills run in this process. */
  readonly maxFills: number;
  readonly unread: UnreadPolicy;
  readonly logger: Logger;
  /** Told of every blob that came from upstream. */
  readonly onStored: (digest: string, size: number) => void;
}

/** A source that others fill, with those whose right to it was proved: they get a link when the blob is stored. */
interface Shared<Source extends Growing> {
  readonly source: Source;
  readonly targets: Map<string, FillTarget>;
}

interface Running extends Shared<Fill> {
  readonly fence: number;
  readonly received: () => void;
  /** Of the targets, in their order, how many adoption looked at. */
  adopted: number;
}

const OWNER_POLL_MS = 200;
const MAX_WAIT_FOR_OWNER_MS = 15_000;
const MAX_SOURCES = 5;
const MAX_FOLLOWED = 4_096;
const LEFTOVERS_EVERY_MS = 3_600_000;

export class FillEngine {
  readonly #options: FillEngineOptions;
  readonly #running = new Map<string, Running>();
  readonly #followed = new LRUCache<string, Shared<Growing>>({ max: MAX_FOLLOWED });
  /** Null when nothing came of it: whoever waits for it looks again. */
  readonly #starting = new Map<string, { repository: string; source: Promise<Growing | StoredBlob | null> }>();
  readonly #unread: UnreadFills;
  readonly #turn = new CommitTurn();
  readonly #timers: readonly NodeJS.Timeout[];
  #isClosed = false;
  readonly stats: FillStats = noFills();

  constructor(options: FillEngineOptions) {
    this.#options = options;
    this.#unread = new UnreadFills(options.unread);
    this.#timers = [
      setInterval(() => void this.#renew(), RENEW_MS).unref(),
      setInterval(() => void this.#removeLeftovers(), LEFTOVERS_EVERY_MS).unref(),
    ];
    void this.#removeLeftovers();
  }

  get active(): number {
    return this.#running.size;
  }

  /** What this host has of a fill, for other hosts that follow it: of this process, or of another one on this host. */
  async find(digest: string): Promise<Growing | null> {
    const running = this.#running.get(digest);
    if (running) {
      this.#unread.want(running.source);
      return running.source;
    }
    const { leases, self } = this.#options;
    const owner = await leases.findOwner(digest);
    return owner !== null && owner.host === self.host ? this.#fileFollower(digest, async () => null) : null;
  }

  /** Opens a blob that the project may read but that is not linked yet. Errors of upstream come out here, before any byte. */
  async open(request: FillRequest, signal?: AbortSignal): Promise<OpenBlob | StoredBlob> {
    const opened = await this.#answered(request, signal);
    if ("bytes" in opened) return opened;
    const { first, size } = opened;
    this.#unread.opened(first);
    const { limits, store } = this.#options;
    const common = {
      request,
      first,
      size,
      heldBackBytes: limits.heldBackBytes,
      stats: this.stats,
      rejoin: () => this.#join(request),
      readStored: async (part: { start: number; end: number }) =>
        (await store.read(request.digest, { start: part.start, end: part.end - 1 })) as AsyncIterable<Uint8Array>,
    };
    return { size, read: (range, options) => this.#unread.reading(first, readOpenBlob({ ...options, ...common, range })) };
  }

  /** What another process could not get is asked for on our own account: its trouble need not be ours. */
  async #answered(request: FillRequest, signal?: AbortSignal): Promise<StoredBlob | { first: Growing; size: number }> {
    for (let attempt = 1; ; attempt += 1) {
      const first = await this.#join(request);
      if ("bytes" in first) return first;
      try {
        return { first, size: await answerOf(first, signal) };
      } catch (error) {
        if (isWithoutRoom(first)) return { first, size: await sizeElsewhere(request, signal) };
        const isFinal = first instanceof Fill && !first.isAbandoned;
        if (signal?.aborted || isFinal || first.state !== "failed" || attempt >= MAX_SOURCES) throw error;
      }
    }
  }

  /** Starts fills that nobody reads yet, except of what somebody fetches already and of what is linked: one statement for all of them. Resolves when they are asked for. */
  async prefetch(requests: readonly FillRequest[]): Promise<void> {
    if (this.#isClosed) return;
    const room = Math.max(0, this.#options.maxFills - this.#running.size - this.#starting.size);
    const fresh = requests.filter(({ digest }) => !this.#running.has(digest) && !this.#followed.has(digest) && !this.#starting.has(digest));
    const chosen = [...new Map(fresh.map((request) => [request.digest, request])).values()].slice(0, room);
    if (chosen.length === 0) return;
    const leases = this.#options.leases.acquireUnlinked(chosen);
    const starts = chosen.map(async (request) => {
      const source = await this.#noteStarting(request, this.#startLeased(request, leases));
      if (source === null || "bytes" in source) return;
      this.#unread.want(source);
      if (source instanceof Fill) await source.begun;
    });
    await Promise.all(starts);
  }

  /** This process fetches it for this repository, or is about to: nothing has to be looked up to join. */
  isUnderWay(repository: string, digest: string): boolean {
    const running = this.#running.get(digest);
    if (running) return running.source.state === "running" && running.targets.has(repository);
    return this.#starting.get(digest)?.repository === repository;
  }

  /** Fetches to the end; for the workflow that completes what no process holds. */
  async complete(request: FillRequest, signal: AbortSignal): Promise<void> {
    const growing = await this.#joinForItself(request);
    if ("bytes" in growing) return;
    while (growing.state === "running") await changeOf(growing, signal);
    if (growing.state === "failed") throw growing.failure ?? new SlipwayError("UPSTREAM_INVALID");
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#turn.close();
    for (const timer of this.#timers) clearInterval(timer);
    const running = [...this.#running.values()];
    await Promise.all(running.map(({ source }) => source.abandon(new SlipwayError("DRAINING"))));
    await Promise.all(running.map(({ source, fence }) => this.#options.leases.release(source.digest, fence, null).catch(() => undefined)));
    await this.#options.scribes.close();
  }

  /** Whether a client reads it or not. */
  async #joinForItself(request: FillRequest): Promise<Growing | StoredBlob> {
    const source = await this.#join(request);
    if (!("bytes" in source)) this.#unread.want(source);
    return source;
  }

  async #join(request: FillRequest): Promise<Growing | StoredBlob> {
    const { digest, repository } = request;
    for (;;) {
      if (this.#isClosed) throw new SlipwayError("DRAINING");
      const shared = this.#running.get(digest) ?? this.#followed.get(digest);
      if (shared && shared.source.state !== "failed") {
        const source = await this.#share(request, shared);
        if (source) return source;
        continue;
      }
      const starting = this.#starting.get(digest);
      if (!starting) break;
      if (starting.repository === repository) {
        const source = await starting.source;
        if (source === null) continue;
        this.stats.joined += 1;
        return source;
      }
      // Of another repository: its outcome does not concern us, only that it is over.
      await starting.source.catch(() => undefined);
    }
    return this.#noteStarting(request, this.#start(request));
  }

  #noteStarting<Source extends Growing | StoredBlob | null>(
    { digest, repository }: Pick<FillRequest, "digest" | "repository">,
    start: Promise<Source>,
  ): Promise<Source> {
    const source = start.finally(() => this.#starting.delete(digest));
    this.#starting.set(digest, { repository, source });
    return source;
  }

  /** Another repository asks for a digest on its way: its own upstream must have it, of the same size, before it may read a byte. */
  async #share(request: FillRequest, { source, targets }: Shared<Growing>): Promise<Growing | StoredBlob | null> {
    if (!targets.has(request.repository)) {
      // The trouble of another one's upstream is not ours.
      const size = await answerOf(source).catch(() => null);
      if (size === null) return null;
      await proveRight(request, size);
      targets.set(request.repository, { projectId: request.projectId, repository: request.repository });
    }
    if (source.state === "done") {
      const linked = await this.#options.writer.linkStored(request, request.digest, null);
      if (linked) return linked;
    }
    this.stats.joined += 1;
    return source;
  }

  async #start(request: FillRequest): Promise<Growing | StoredBlob> {
    const until = performance.now() + MAX_WAIT_FOR_OWNER_MS;
    for (;;) {
      const stored = await linkIfStored(request, this.#options);
      if (stored) return stored;
      const lease = await this.#options.leases.acquire(request);
      if (lease.held) return (await this.#storedMeanwhile(request, lease, null)) ?? this.#own(request, lease.fence);
      const followed = lease.owner && (await this.#follow(request, lease.owner));
      if (followed) return followed;
      if (performance.now() > until) throw new SlipwayError("UPSTREAM_UNAVAILABLE", { retryAfterSeconds: 2 });
      await sleep(OWNER_POLL_MS);
    }
  }

  async #startLeased(request: FillRequest, leases: Promise<ReadonlyMap<string, Lease>>): Promise<Growing | StoredBlob | null> {
    // Beside the lease: it may be a call to a distant bucket.
    const look = this.#options.store.stat(request.digest);
    look.catch(() => undefined);
    const lease = (await leases).get(request.digest);
    return lease === undefined ? null : ((await this.#storedMeanwhile(request, lease, look)) ?? this.#own(request, lease.fence));
  }

  /** Another process may have finished between the look at storage and the lease; then the catalog knew the digest before that one let go of it. */
  async #storedMeanwhile(request: FillRequest, { fence, isKnown }: Lease, look: Promise<unknown> | null): Promise<StoredBlob | null> {
    const { leases } = this.#options;
    try {
      if (!isKnown && (await look) === null) return null;
      const stored = await linkIfStored(request, this.#options);
      if (stored) await leases.complete(request.digest, fence);
      return stored;
    } catch (error) {
      await leases.release(request.digest, fence, null).catch(() => undefined);
      throw error;
    }
  }

  async #own(request: FillRequest, fence: number): Promise<Fill> {
    const { folder, limits, remote, scribes } = this.#options;
    const { digest, size, client } = request;
    await remote.handOver(digest);
    const targets = new Map([[request.repository, { projectId: request.projectId, repository: request.repository }]]);
    const running: Omit<Running, "source"> = { fence, targets, received: this.#turn.receive(), adopted: 0 };
    const fill = new Fill({
      digest,
      size,
      fence,
      folder,
      scribe: scribes.pick(),
      limits,
      fetch: fetcherOf(request),
      mayFetchParts: () => client.honoursRanges,
      adopt: async (path, found) => {
        running.received();
        await this.#turn.come();
        running.adopted = await adoptFor(targets, { digest, size: found, path }, this.#options);
        this.#options.onStored(digest, found);
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
    const entry = Object.assign(running, { source: fill });
    this.#running.set(digest, entry);
    void this.#settle(entry);
    return fill;
  }

  async #settle(running: Running): Promise<void> {
    const { leases, logger } = this.#options;
    const { source: fill, fence } = running;
    const { digest } = fill;
    try {
      await fill.finished;
      // Who came between adoption and now; from now on whoever comes links by itself.
      for (const late of [...running.targets.values()].slice(running.adopted)) {
        await this.#options.writer.linkStored(late, digest, null).catch(() => undefined);
      }
      this.stats.completed += 1;
      this.stats.secondsSum += (performance.now() - fill.startedAt) / 1000;
      await leases.complete(digest, fence).catch(() => undefined);
    } catch (error) {
      const isUnread = this.#unread.wasStopped(fill);
      if (isUnread) this.stats.unread += 1;
      else {
        this.stats.failed += 1;
        logger.warn({ digest, error }, "a fill failed");
      }
      // What upstream does not have leaves nothing to resume, and what nobody reads is not resumed before somebody does.
      const end =
        isUnread || isSlipwayError(error, "BLOB_UNKNOWN", "NAME_UNKNOWN")
          ? leases.complete(digest, fence)
          : leases.release(digest, fence, fill.failure?.code ?? "INTERNAL");
      await end.catch(() => undefined);
    } finally {
      running.received();
      // A successor may have taken its place.
      if (this.#running.get(digest) === running) this.#running.delete(digest);
    }
  }

  async #follow(request: FillRequest, owner: Owner): Promise<Growing | null> {
    const { self, remote, writer } = this.#options;
    const { digest } = request;
    const targets = new Map<string, FillTarget>();
    const link = async (): Promise<StoredBlob | null> => {
      if ((await this.#options.store.stat(digest)) === null) return null;
      let linked: StoredBlob | null = null;
      for (const target of targets.values()) linked = (await writer.linkStored(target, digest, null)) ?? linked;
      return linked;
    };
    const source =
      owner.host === self.host
        ? this.#fileFollower(digest, link)
        : owner.address === null
          ? null
          : await remote.follow({ digest, address: owner.address, isStored: link });
    if (!source) return null;
    // Reading somebody else's fetch needs the same right as fetching; for one's own repository the fetch itself is the proof.
    if (owner.repository !== request.repository) await proveRight(request, await answerOf(source));
    targets.set(request.repository, { projectId: request.projectId, repository: request.repository });
    this.stats.followed += 1;
    this.#followed.set(digest, { source, targets });
    return source;
  }

  #fileFollower(digest: string, isStored: () => Promise<StoredBlob | null>): FileFollower {
    const { folder, limits } = this.#options;
    return new FileFollower({ folder, digest, heldBackBytes: limits.heldBackBytes, isStored, isOwned: () => this.#isOwned(digest) });
  }

  async #isOwned(digest: string): Promise<boolean> {
    return (await this.#options.leases.findOwner(digest)) !== null;
  }

  async #renew(): Promise<void> {
    for (const [digest, { source }] of this.#followed) if (source.state !== "running") this.#followed.delete(digest);
    const held = [...this.#running.values()].filter(({ source }) => source.state === "running");
    try {
      await keepLeases(held, this.#options.leases);
    } catch (error) {
      this.#options.logger.warn({ error, fills: held.length }, "leases of fills could not be renewed");
    }
  }

  async #removeLeftovers(): Promise<void> {
    try {
      await removeLeftovers(this.#options.folder, (digest) => this.#isOwned(digest));
    } catch (error) {
      this.#options.logger.debug({ error }, "the staging folder was not cleaned");
    }
  }
}

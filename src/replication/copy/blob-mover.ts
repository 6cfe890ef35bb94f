/**
 * Brings the blobs of a batch to its targets: what is there is skipped, what is elsewhere on the target is mounted, what somebody else brings is
 * waited for, and only the rest is read and sent.
 */
import { sleep } from "../../core/clock.ts";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { PutResult, UploadSession } from "../../upstream/types.ts";
import { atTarget } from "./at-side.ts";
import type { BlobSources } from "./blob-bytes.ts";
import type { Wanted } from "./content-store.ts";
import { BULK_BYTES } from "./lanes.ts";
import type { KnownPlace, Ledger, Standing } from "./ledger.ts";
import type { BlobRef } from "./plan/content.ts";
import { quickRetryMs, SideError, unwrap } from "./plan/failure.ts";
import type { Target } from "./target.ts";
import type { Uploader } from "./upload.ts";

export interface Need {
  readonly target: Target;
  readonly repository: string;
  /** Where the source has it. */
  readonly from: string;
  readonly blob: BlobRef;
}

export interface Delivered {
  readonly how: "copied" | "mounted" | "skipped";
  readonly size: number;
}

export interface MoverOptions {
  readonly ledger: Ledger;
  readonly sources: BlobSources;
  readonly uploader: Uploader;
  readonly onDelivered: (delivered: Delivered) => void;
  readonly signal: AbortSignal;
}

interface Journey {
  readonly wanted: Wanted;
  places: readonly KnownPlace[];
  turn: Standing["turn"];
  running: Promise<void> | null;
}

/** How long another worker may take before this batch gives the item back instead of holding its slot. */
const OTHERS_MS = 120_000;
const TURNS = 8;
const CONSISTENCY_TRIES = 3;

export class BlobMover {
  readonly #options: MoverOptions;
  readonly #journeys = new Map<string, Journey>();
  readonly #delivered = new Map<string, Promise<Delivered>>();

  constructor(options: MoverOptions) {
    this.#options = options;
  }

  /** Looks up and claims everything that a batch needs at a target. */
  async plan(needs: readonly Need[]): Promise<void> {
    const readers = new Map<string, number>();
    for (const [target, mine] of Map.groupBy(needs, (need) => need.target)) {
      const wanted = new Map(mine.map((need) => [contentOf(need), toWanted(need)]));
      const standings = await this.#options.ledger.survey(target.registryId, [...wanted.values()]);
      for (const [content, each] of wanted) {
        const { places, turn } = standings.get(content) ?? { places: [], turn: "theirs" as const };
        this.#journeys.set(keyOf(target, content), { wanted: each, places, turn, running: null });
        if (turn === "mine") readers.set(each.digest, (readers.get(each.digest) ?? 0) + 1);
      }
    }
    for (const [digest, count] of readers) this.#options.sources.expect(digest, count);
  }

  /** Once for each repository and digest, however many items share the blob. The first to ask is told how it came. */
  ensure(need: Need): { readonly first: boolean; readonly done: Promise<Delivered> } {
    const key = `${need.target.registryId} ${need.repository} ${need.blob.digest}`;
    const known = this.#delivered.get(key);
    if (known) return { first: false, done: known };
    const done = this.#bring(need);
    this.#delivered.set(key, done);
    void this.#tell(done);
    return { first: true, done };
  }

  async #tell(done: Promise<Delivered>): Promise<void> {
    try {
      this.#options.onDelivered(await done);
    } catch {
      // Whoever asked for the blob hears of it.
    }
  }

  /** The target says that it lacks what we took to be there: it is looked for, and sent when it is really missing. */
  async repair(need: Need): Promise<void> {
    const { ledger, sources, signal } = this.#options;
    const { target, repository, blob } = need;
    await ledger.forget(target.registryId, repository, [blob.digest]);
    if (await atTarget(target.adapter, () => target.adapter.hasBlob(repository, blob.digest, signal))) return;
    await this.#inLane(need, async () => {
      const bytes = await sources.take(need.from, blob);
      try {
        await this.#send(need, null, bytes);
      } finally {
        await bytes.done(false);
      }
    });
    ledger.arrived(target.registryId, { digest: blob.digest, repository }, null);
  }

  /** Gives back every claim that led to nothing. */
  release(): void {
    const left = [...this.#journeys].filter(([, journey]) => journey.turn === "mine");
    for (const [key, { wanted }] of left) this.#options.ledger.gaveUp(Number(key.split(" ")[0]), [wanted.content]);
    this.#journeys.clear();
  }

  async #bring(need: Need): Promise<Delivered> {
    const { target, repository, blob } = need;
    const journey = this.#journey(need);
    for (let turn = 0; turn < TURNS; turn += 1) {
      const here = journey.places.find((place) => place.repository === repository);
      if (here?.fresh) return { how: "skipped", size: blob.size };
      if (journey.running) {
        await goneThrough(journey.running);
        continue;
      }
      if (here && (await this.#has(need))) return this.#arrived(need, journey, "skipped");
      const elsewhere = journey.places.find((place) => place.repository !== repository);
      if (elsewhere && target.mounts) return await this.#mount(need, journey, elsewhere.repository);
      if (journey.turn !== "theirs") return await this.#deliver(need, journey, null);
      await this.#awaitOthers(need, journey);
    }
    throw new SlipwayError("UPSTREAM_UNAVAILABLE", { message: "a blob could not be brought in its turn", retryAfterSeconds: 5 });
  }

  #journey(need: Need): Journey {
    const content = contentOf(need);
    const key = keyOf(need.target, content);
    let journey = this.#journeys.get(key);
    if (!journey) {
      journey = { wanted: toWanted(need), places: [], turn: "theirs", running: null };
      this.#journeys.set(key, journey);
    }
    return journey;
  }

  async #awaitOthers(need: Need, journey: Journey): Promise<void> {
    const { ledger, signal } = this.#options;
    const found = await ledger.whenArrived(need.target.registryId, journey.wanted, { ms: OTHERS_MS, signal });
    // Several repositories of this batch may have waited; the first one back has set it already.
    if (journey.turn === "theirs") {
      journey.places = found.places;
      journey.turn = found.turn;
    }
    if (journey.turn === "theirs") {
      throw new SlipwayError("UPSTREAM_UNAVAILABLE", { message: "another worker is still copying a blob of it", retryAfterSeconds: 5 });
    }
  }

  async #mount(need: Need, journey: Journey, from: string): Promise<Delivered> {
    const { target, repository, blob } = need;
    const { signal } = this.#options;
    const result = await this.#patiently(() =>
      target.lanes.small.run(
        0,
        () => atTarget(target.adapter, () => target.adapter.mountBlob(repository, { digest: blob.digest, from }, signal)),
        signal,
      ),
    );
    if (result.mounted) return this.#arrived(need, journey, "mounted");
    return await this.#deliver(need, journey, result.session);
  }

  async #deliver(need: Need, journey: Journey, session: UploadSession | null): Promise<Delivered> {
    const delivery = this.#carry(need, journey, session);
    const running = delivery.then(
      () => undefined,
      (error: unknown) => {
        this.#failed(need, journey);
        throw error;
      },
    );
    running.catch(() => undefined);
    journey.running = running;
    try {
      await running;
      return await delivery;
    } finally {
      if (journey.running === running) journey.running = null;
    }
  }

  async #carry(need: Need, journey: Journey, session: UploadSession | null): Promise<Delivered> {
    const { sources } = this.#options;
    const { target, repository, from, blob } = need;
    return await this.#inLane(need, async () => {
      if (!target.isEmpty(repository) && session === null && (await this.#has(need))) {
        await sources.unneeded(blob.digest);
        return this.#arrived(need, journey, "skipped");
      }
      const bytes = await sources.take(from, blob);
      let keep = true;
      try {
        await this.#send(need, session, bytes);
        keep = false;
      } catch (error) {
        keep = !isMismatch(error) && (isSlipwayError(unwrap(error), "CANCELLED") || unwrap(error).retryable);
        throw error;
      } finally {
        await bytes.done(keep);
      }
      return this.#arrived(need, journey, "copied");
    });
  }

  async #send(need: Need, session: UploadSession | null, bytes: Awaited<ReturnType<BlobSources["take"]>>): Promise<void> {
    const { uploader, signal } = this.#options;
    const { target, repository, blob } = need;
    let usable = session;
    let mismatches = 0;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const result = await uploader.upload({ target: target.adapter, repository, blob, bytes, session: usable });
        await this.#verify(need, result);
        return;
      } catch (error) {
        // Bad bytes came through a bad way once; twice they are the source's.
        if (isMismatch(error)) {
          mismatches += 1;
          if (mismatches > 1) throw error;
          await bytes.doubt();
          continue;
        }
        const wait = signal.aborted ? null : quickRetryMs(error, attempt);
        if (wait === null) throw error;
        await sleep(wait, signal);
      } finally {
        usable = null;
      }
    }
  }

  async #verify(need: Need, result: PutResult): Promise<void> {
    const { target, blob } = need;
    if (result.digest === blob.digest && target.adapter.capabilities.confirmsPuts) return;
    for (let attempt = 1; !(await this.#has(need)); attempt += 1) {
      if (attempt >= CONSISTENCY_TRIES) {
        const error = new SlipwayError("UPSTREAM_INVALID", { message: "it took a blob and does not have it" });
        throw new SideError({ side: "target", host: target.adapter.host }, error);
      }
      await sleep(200 * attempt, this.#options.signal);
    }
  }

  #has(need: Need): Promise<boolean> {
    const { adapter } = need.target;
    return this.#patiently(() => atTarget(adapter, () => adapter.hasBlob(need.repository, need.blob.digest, this.#options.signal)));
  }

  async #patiently<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work();
      } catch (error) {
        const wait = this.#options.signal.aborted ? null : quickRetryMs(error, attempt);
        if (wait === null) throw error;
        await sleep(wait, this.#options.signal);
      }
    }
  }

  #inLane<T>(need: Need, work: () => Promise<T>): Promise<T> {
    const { small, bulk } = need.target.lanes;
    const { size } = need.blob;
    return size >= BULK_BYTES ? bulk.run(size, work, this.#options.signal) : small.run(0, work, this.#options.signal);
  }

  #arrived(need: Need, journey: Journey, how: Delivered["how"]): Delivered {
    const { target, repository, blob } = need;
    const claimed = journey.turn === "mine" ? journey.wanted.content : null;
    this.#options.ledger.arrived(target.registryId, { digest: blob.digest, repository }, claimed);
    journey.turn = "known";
    journey.places = [{ repository, fresh: true }, ...journey.places.filter((place) => place.repository !== repository)];
    return { how, size: blob.size };
  }

  #failed(need: Need, journey: Journey): void {
    if (journey.turn !== "mine") return;
    journey.turn = "theirs";
    this.#options.ledger.gaveUp(need.target.registryId, [journey.wanted.content]);
  }
}

/** A refusal may concern the other repository alone; any other failure is of all who wait. */
async function goneThrough(running: Promise<void>): Promise<void> {
  try {
    await running;
  } catch (error) {
    if (!isSlipwayError(unwrap(error), "UPSTREAM_REFUSED", "DENIED", "NAME_UNKNOWN")) throw error;
  }
}

function isMismatch(error: unknown): boolean {
  return isSlipwayError(unwrap(error), "DIGEST_INVALID", "DIGEST_MISMATCH", "SIZE_INVALID");
}

function toWanted(need: Need): Wanted {
  return { content: contentOf(need), digest: need.blob.digest, repository: need.target.mounts ? null : need.repository };
}

function contentOf(need: Need): string {
  return need.target.mounts ? need.blob.digest : `${need.blob.digest} ${need.repository}`;
}

function keyOf(target: Target, content: string): string {
  return `${target.registryId} ${content}`;
}

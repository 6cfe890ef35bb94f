/**
 * Who copies what to a target, over the batches of this process and over all processes: each digest is brought by one of them, and the others
 * learn where it arrived. Arrivals and claims go to Postgres in small groups.
 */
import { sleep } from "../../core/clock.ts";
import type { Logger } from "../../telemetry/logger.ts";
import type { ContentStore, Place, Wanted } from "./content-store.ts";
import { LEASE_MS } from "./content-store.ts";

export interface KnownPlace {
  readonly repository: string;
  readonly fresh: boolean;
}

export interface Standing {
  readonly places: readonly KnownPlace[];
  /** Ours to bring; known somewhere, so nobody has to; or brought by somebody else, whom `whenArrived` waits for. */
  readonly turn: "mine" | "known" | "theirs";
}

interface Held {
  readonly settled: Promise<string | null>;
  /** With the repository where it arrived; null when it did not. */
  settle(repository: string | null): void;
}

interface Pending {
  readonly places: Place[];
  readonly claims: string[];
}

const FLUSH_MS = 200;
const RENEW_MS = LEASE_MS / 4;
const POLL_MS = 300;

export class Ledger {
  readonly #store: ContentStore;
  readonly #logger: Logger;
  readonly #held = new Map<string, Held>();
  readonly #asking = new Map<string, { registryId: number; wanted: Wanted; answers: ((standing: Standing) => void)[] }>();
  #pending = new Map<number, Pending>();
  #flushing: Promise<void> = Promise.resolve();
  #flushTimer: NodeJS.Timeout | null = null;
  #pollTimer: NodeJS.Timeout | null = null;
  readonly #renewTimer: NodeJS.Timeout;

  constructor(store: ContentStore, logger: Logger) {
    this.#store = store;
    this.#logger = logger;
    this.#renewTimer = setInterval(() => {
      // What is not renewed may be copied twice, which costs time only.
      if (this.#held.size > 0) store.renew().catch((error: unknown) => logger.warn({ error }, "claims on blobs could not be renewed"));
    }, RENEW_MS);
    this.#renewTimer.unref();
  }

  close(): void {
    clearInterval(this.#renewTimer);
    if (this.#pollTimer) clearTimeout(this.#pollTimer);
    if (this.#flushTimer) clearTimeout(this.#flushTimer);
  }

  /** By content. Two statements for however much is wanted. */
  async survey(registryId: number, wanted: readonly Wanted[]): Promise<Map<string, Standing>> {
    const reserved: Wanted[] = [];
    for (const each of wanted) {
      const key = keyOf(registryId, each.content);
      if (this.#held.has(key)) continue;
      this.#held.set(key, makeHeld());
      reserved.push(each);
    }
    try {
      const ours = await this.#store.claim(registryId, reserved);
      // Asked after claiming: whoever had a claim before us has told by now where its content is.
      const places = await this.#store.places(registryId, [...new Set(wanted.map((each) => each.digest))]);
      const mine = new Set(reserved.filter((each) => ours.has(each.content)));
      const standings = new Map(wanted.map((each) => [each.content, standing(each, places.get(each.digest) ?? [], mine.has(each))]));
      const unneeded = [...mine].filter((each) => standings.get(each.content)?.turn === "known").map((each) => each.content);
      if (unneeded.length > 0) this.gaveUp(registryId, unneeded);
      this.#letGo(
        registryId,
        reserved.filter((each) => !mine.has(each)),
      );
      return standings;
    } catch (error) {
      this.#letGo(registryId, reserved);
      throw error;
    }
  }

  /** Resolves with where it is, or that it is ours now; after the time with neither. */
  async whenArrived(registryId: number, wanted: Wanted, limit: { ms: number; signal: AbortSignal }): Promise<Standing> {
    const until = Date.now() + limit.ms;
    let last: Standing = { places: [], turn: "theirs" };
    while (Date.now() < until && last.turn === "theirs") {
      const held = this.#held.get(keyOf(registryId, wanted.content));
      if (held) {
        const repository = await abortable(held.settled, { ms: until - Date.now(), signal: limit.signal });
        if (repository) return { places: [{ repository, fresh: true }], turn: "known" };
        // Given up or out of time; a moment for the claim to be gone.
        await sleep(FLUSH_MS, limit.signal);
      } else {
        const answer = new Promise<Standing>((resolve) => this.#ask(registryId, wanted, resolve));
        last = (await abortable(answer, { ms: until - Date.now(), signal: limit.signal })) ?? last;
      }
    }
    return last;
  }

  arrived(registryId: number, place: Place, content: string | null): void {
    const pending = this.#pendingOf(registryId);
    pending.places.push(place);
    if (content === null) return;
    pending.claims.push(content);
    this.#held.get(keyOf(registryId, content))?.settle(place.repository);
  }

  gaveUp(registryId: number, contents: readonly string[]): void {
    this.#pendingOf(registryId).claims.push(...contents);
  }

  async forget(registryId: number, repository: string, digests: readonly string[]): Promise<void> {
    await this.flush();
    await this.#store.forget(registryId, repository, digests);
  }

  /** Everything that was told so far is in Postgres afterwards. */
  flush(): Promise<void> {
    if (this.#flushTimer) clearTimeout(this.#flushTimer);
    this.#flushTimer = null;
    this.#flushing = this.#flushing.then(() => this.#write());
    return this.#flushing;
  }

  async #write(): Promise<void> {
    const batch = this.#pending;
    this.#pending = new Map();
    for (const [registryId, pending] of batch) {
      await this.#store.arrive(registryId, pending).catch((error: unknown) => {
        this.#logger.warn({ error }, "arrived blobs could not be noted");
      });
      for (const content of pending.claims) {
        const key = keyOf(registryId, content);
        this.#held.get(key)?.settle(null);
        this.#held.delete(key);
      }
    }
  }

  #pendingOf(registryId: number): Pending {
    let pending = this.#pending.get(registryId);
    if (!pending) {
      pending = { places: [], claims: [] };
      this.#pending.set(registryId, pending);
    }
    this.#flushTimer ??= setTimeout(() => void this.flush(), FLUSH_MS);
    return pending;
  }

  #letGo(registryId: number, contents: readonly Wanted[]): void {
    for (const { content } of contents) {
      const key = keyOf(registryId, content);
      this.#held.get(key)?.settle(null);
      this.#held.delete(key);
    }
  }

  /** All that is waited for is asked in one go, a few times a second. */
  #ask(registryId: number, wanted: Wanted, answer: (standing: Standing) => void): void {
    const key = keyOf(registryId, wanted.content);
    const asking = this.#asking.get(key);
    if (asking) asking.answers.push(answer);
    else this.#asking.set(key, { registryId, wanted, answers: [answer] });
    this.#pollTimer ??= setTimeout(() => void this.#poll(), POLL_MS);
  }

  async #poll(): Promise<void> {
    this.#pollTimer = null;
    const round = [...this.#asking.values()];
    this.#asking.clear();
    for (const [registryId, asked] of Map.groupBy(round, (each) => each.registryId)) {
      const standings = await this.survey(
        registryId,
        asked.map((each) => each.wanted),
      ).catch(() => new Map<string, Standing>());
      for (const { wanted, answers } of asked) {
        const found = standings.get(wanted.content) ?? { places: [], turn: "theirs" as const };
        const [first, ...others] = answers;
        first?.(found);
        // Only one of them may take the turn; the others wait for it.
        for (const other of others) other(found.turn === "mine" ? { ...found, turn: "theirs" } : found);
      }
    }
  }
}

function keyOf(registryId: number, content: string): string {
  return `${registryId} ${content}`;
}

function makeHeld(): Held {
  const { promise, resolve } = Promise.withResolvers<string | null>();
  return { settled: promise, settle: resolve };
}

function standing(wanted: Wanted, places: readonly KnownPlace[], mine: boolean): Standing {
  const usable = wanted.repository === null ? places : places.filter((place) => place.repository === wanted.repository);
  if (usable.length > 0) return { places: usable, turn: "known" };
  return { places: usable, turn: mine ? "mine" : "theirs" };
}

/** Null when the time ran out. */
async function abortable<T>(work: Promise<T>, limit: { ms: number; signal: AbortSignal }): Promise<T | null> {
  const timer = new AbortController();
  const both = AbortSignal.any([limit.signal, timer.signal]);
  try {
    return await Promise.race([work, sleep(Math.max(0, limit.ms), both).then(() => null)]);
  } finally {
    timer.abort();
  }
}

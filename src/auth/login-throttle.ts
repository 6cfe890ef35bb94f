/**
 * Slows down guessing. Attempts on one account from one address, and all attempts from one address, stand in a line whose steps grow with
 * each failure; attempts that run at the same time count as failures until they have succeeded, so that guessing in parallel wins nothing.
 * An account that is attacked from many addresses answers everybody later, but has no line: its owner is never shut out. A login that is
 * known to be right does not come here.
 */
import { LRUCache } from "lru-cache";
import type { Clock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";

export interface ThrottleOptions {
  readonly clock: Clock;
  /** Accounts and addresses that are remembered; the longest unused are forgotten first. */
  readonly maxTracked?: number;
  /** Attempts that may wait at the same time. */
  readonly maxWaiting?: number;
  readonly freeAccountFailures?: number;
  readonly freeAddressFailures?: number;
  readonly baseDelayMs?: number;
  readonly maxDelayMs?: number;
}

interface Track {
  failures: number;
  pending: number;
  /** When the next attempt may begin. */
  nextAt: number;
}

export interface FailureCounts {
  readonly accountFailures: number;
  readonly addressFailures: number;
}

interface Tracks {
  readonly pair: Track;
  readonly address: Track;
  readonly account: Track;
}

export interface Attempt {
  /** How long to wait before the check. */
  readonly waitMs: number;
  succeeded(): void;
  failed(): FailureCounts;
  /** Neither right nor wrong: the check could not be made. */
  abandoned(): void;
}

const FORGET_MS = 15 * 60_000;
/** So many attempts of one account at once are normal: a client's parallel requests. */
const FREE_PENDING = 16;
const FREE_PENDING_ADDRESS = 128;

export class LoginThrottle {
  readonly #options: Required<ThrottleOptions>;
  readonly #pairs: LRUCache<string, Track>;
  readonly #accounts: LRUCache<string, Track>;
  readonly #addresses: LRUCache<string, Track>;
  #waiting = 0;
  #delayed = 0;
  #refused = 0;

  constructor(options: ThrottleOptions) {
    this.#options = {
      maxTracked: 10_000,
      maxWaiting: 1_000,
      freeAccountFailures: 3,
      freeAddressFailures: 10,
      baseDelayMs: 250,
      maxDelayMs: 5_000,
      ...options,
    };
    const perf = { now: (): number => options.clock.now() };
    const settings = { max: this.#options.maxTracked, ttl: FORGET_MS, updateAgeOnGet: true, perf };
    this.#pairs = new LRUCache(settings);
    this.#accounts = new LRUCache(settings);
    this.#addresses = new LRUCache(settings);
  }

  /** Throws TOOMANYREQUESTS when the wait would be longer than the longest delay. */
  begin(account: string, remoteAddress: string): Attempt {
    const now = this.#options.clock.now();
    const name = account.slice(0, 255);
    const group = addressGroup(remoteAddress);
    const tracks: Tracks = {
      pair: findTrack(this.#pairs, `${group} ${name}`),
      address: findTrack(this.#addresses, group),
      account: findTrack(this.#accounts, name),
    };
    const { freeAccountFailures, freeAddressFailures, maxDelayMs } = this.#options;
    const startAt = Math.max(now, tracks.pair.nextAt, tracks.address.nextAt);
    const shared = Math.min(maxDelayMs / 4, this.#delay(tracks.account, Number.POSITIVE_INFINITY, freeAddressFailures));
    const waitMs = Math.max(startAt - now, shared);
    if (waitMs > maxDelayMs || (waitMs > 0 && this.#waiting >= this.#options.maxWaiting)) {
      this.#refused += 1;
      throw new SlipwayError("TOOMANYREQUESTS", {
        message: "too many failed logins",
        retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)),
      });
    }
    tracks.pair.nextAt = startAt + this.#delay(tracks.pair, FREE_PENDING, freeAccountFailures);
    tracks.address.nextAt = startAt + this.#delay(tracks.address, FREE_PENDING_ADDRESS, freeAddressFailures);
    tracks.pair.pending += 1;
    tracks.address.pending += 1;
    if (waitMs > 0) {
      this.#waiting += 1;
      this.#delayed += 1;
    }
    return this.#attempt(tracks, waitMs);
  }

  stats(): { readonly delayed: number; readonly refused: number; readonly tracked: number } {
    return { delayed: this.#delayed, refused: this.#refused, tracked: this.#pairs.size + this.#accounts.size + this.#addresses.size };
  }

  #attempt(tracks: Tracks, waitMs: number): Attempt {
    const settle = (): void => {
      tracks.pair.pending -= 1;
      tracks.address.pending -= 1;
      if (waitMs > 0) this.#waiting -= 1;
    };
    return {
      waitMs,
      abandoned: settle,
      succeeded: () => {
        settle();
        // The address keeps its failures: one right login must not clear the way for guessing the others.
        tracks.pair.failures = 0;
        tracks.pair.nextAt = 0;
        tracks.account.failures = 0;
      },
      failed: () => {
        settle();
        this.#fail(tracks.pair, this.#options.freeAccountFailures);
        this.#fail(tracks.address, this.#options.freeAddressFailures);
        tracks.account.failures += 1;
        return { accountFailures: tracks.account.failures, addressFailures: tracks.address.failures };
      },
    };
  }

  #fail(track: Track, freeFailures: number): void {
    track.failures += 1;
    track.nextAt = Math.max(track.nextAt, this.#options.clock.now() + this.#delay(track, Number.POSITIVE_INFINITY, freeFailures));
  }

  #delay(track: Track, freePending: number, freeFailures: number): number {
    const count = track.failures + Math.max(0, track.pending - freePending) - freeFailures;
    if (count < 0) return 0;
    return Math.min(this.#options.maxDelayMs, this.#options.baseDelayMs * 2 ** Math.min(count, 16));
  }
}

function findTrack(tracks: LRUCache<string, Track>, key: string): Track {
  let track = tracks.get(key);
  if (!track) {
    track = { failures: 0, pending: 0, nextAt: 0 };
    tracks.set(key, track);
  }
  return track;
}

/** One host has a whole /64 of IPv6 addresses to come from. */
function addressGroup(address: string): string {
  if (!address.includes(":")) return address;
  const [head = "", tail] = address.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const groups =
    tail === undefined ? left : [...left, ...Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => "0"), ...right];
  return groups.slice(0, 4).join(":");
}

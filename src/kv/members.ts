/**
 * The processes that live. Each writes a heartbeat under its boot id and learns from the same call who else is there; who has not been
 * heard of for the time of three heartbeats counts as dead. A process that is alive but cannot write is dead to the others, so it watches
 * its own last heartbeat too.
 */
import { z } from "zod";
import { SlipwayError } from "../core/errors.ts";
import type { Group, Kv } from "./kv.ts";

const Member = z.object({
  bootId: z.string(),
  host: z.string(),
  /** Where the others reach it over HTTP; null when it serves nothing. */
  address: z.string().nullable(),
  roles: z.array(z.string()).readonly(),
  /** What it takes part in beyond its roles, such as the invalidation bus. */
  features: z.array(z.string()).readonly(),
  joinedAt: z.number(),
});
export type Member = z.infer<typeof Member>;

export interface MemberInfo {
  readonly bootId: string;
  readonly host: string;
  readonly address: string | null;
  readonly roles: readonly string[];
}

export interface MembersOptions {
  readonly heartbeatMs?: number;
  readonly deadMs?: number;
  readonly onError?: (error: unknown) => void;
}

export interface Beat {
  readonly members: readonly Member[];
  /** When its writing began, on this process's monotonic clock. */
  readonly startedAt: number;
  /** Since the one before; infinite for the first. */
  readonly gapMs: number;
}

const GROUP = "members";
const HEARTBEAT_MS = 2_000;
const DEAD_MS = 6_000;

export class Members {
  readonly deadMs: number;
  readonly #group: Group;
  readonly #onError: (error: unknown) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #listeners = new Set<(beat: Beat) => void>();
  readonly #features = new Set<string>();
  #info: Omit<Member, "features">;
  #known: readonly Member[] = [];
  #lastBeatAt = Number.NEGATIVE_INFINITY;
  /** One heartbeat at a time: their order is the order of what they tell. */
  #tail: Promise<unknown> = Promise.resolve();
  #left = false;

  private constructor(kv: Kv, info: MemberInfo, options: MembersOptions) {
    this.#group = kv.group(GROUP);
    this.#info = { ...info, roles: [...info.roles], joinedAt: Date.now() };
    this.deadMs = options.deadMs ?? DEAD_MS;
    this.#onError = options.onError ?? (() => undefined);
    this.#timer = setInterval(() => void this.beat().catch(this.#onError), options.heartbeatMs ?? HEARTBEAT_MS);
    this.#timer.unref();
  }

  /** Resolves after the first heartbeat, also when that failed: the next ones go on trying. */
  static async join(kv: Kv, info: MemberInfo, options: MembersOptions = {}): Promise<Members> {
    const members = new Members(kv, info, options);
    await members.beat().catch(members.#onError);
    return members;
  }

  get bootId(): string {
    return this.#info.bootId;
  }

  get host(): string {
    return this.#info.host;
  }

  /** When the last heartbeat that was written began, on the monotonic clock. */
  get lastBeatAt(): number {
    return this.#lastBeatAt;
  }

  async list(): Promise<Member[]> {
    return parse(await this.#group.list());
  }

  /** As of the last heartbeat. */
  known(): readonly Member[] {
    return this.#known;
  }

  async announceFeature(feature: string): Promise<Beat> {
    this.#features.add(feature);
    return await this.beat();
  }

  async withdrawFeature(feature: string): Promise<void> {
    this.#features.delete(feature);
    if (!this.#left) await this.beat();
  }

  /** The address is known only once the listener is bound. */
  async setAddress(address: string): Promise<void> {
    this.#info = { ...this.#info, address };
    await this.beat();
  }

  onBeat(listener: (beat: Beat) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  beat(): Promise<Beat> {
    const beat = this.#tail.then(() => this.#write());
    this.#tail = beat.catch(() => undefined);
    return beat;
  }

  async leave(): Promise<void> {
    this.#left = true;
    clearInterval(this.#timer);
    await this.#tail;
    await this.#group.remove(this.bootId).catch(this.#onError);
  }

  async #write(): Promise<Beat> {
    // Written after leave, a heartbeat would keep the dead alive.
    if (this.#left) throw new SlipwayError("DRAINING");
    const startedAt = performance.now();
    const member: Member = { ...this.#info, features: [...this.#features] };
    const entries = await this.#group.put(this.bootId, JSON.stringify(member), this.deadMs);
    const beat: Beat = { members: parse(entries), startedAt, gapMs: startedAt - this.#lastBeatAt };
    this.#known = beat.members;
    this.#lastBeatAt = startedAt;
    for (const listener of this.#listeners) listener(beat);
    return beat;
  }
}

/** Entries of a newer version that this one does not understand are not members to it. */
function parse(entries: readonly { value: string }[]): Member[] {
  return entries.flatMap(({ value }) => {
    const parsed = Member.safeParse(parseJson(value));
    return parsed.success ? [parsed.data] : [];
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

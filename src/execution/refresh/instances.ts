/**
 * The instances that refresh: each announces itself beside its heartbeat while it is well, and learns of the others from the same. Whoever watches is told
 * of changes only.
 */
import type { Beat, Member, Members } from "../../kv/members.ts";
import type { FixedShard, Instance } from "../plan/assignment.ts";
import { planAssignment } from "../plan/assignment.ts";

export interface RefreshInstancesOptions {
  readonly members: Members;
  readonly fixed: FixedShard | null;
  readonly slots: number;
}

const FEATURE = "refresh";

export class RefreshInstances {
  readonly slots: number;
  readonly #members: Members;
  readonly #feature: string;
  #announced = false;

  constructor({ members, fixed, slots }: RefreshInstancesOptions) {
    this.#members = members;
    this.slots = slots;
    this.#feature = fixed === null ? FEATURE : `${FEATURE}:${fixed.id}/${fixed.total}`;
  }

  get bootId(): string {
    return this.#members.bootId;
  }

  get host(): string {
    return this.#members.host;
  }

  get announced(): boolean {
    return this.#announced;
  }

  /** Takes part from now on, or no more. */
  async announce(takesPart: boolean): Promise<void> {
    if (takesPart === this.#announced) return;
    if (takesPart) await this.#members.announceFeature(this.#feature);
    else await this.#members.withdrawFeature(this.#feature);
    this.#announced = takesPart;
  }

  /** As of the last heartbeat. */
  known(): Instance[] {
    return instancesOf(this.#members.known());
  }

  /** What is wrong with the fixed numbers of the instances that are there. */
  problems(): readonly string[] {
    return planAssignment(this.known(), this.slots).problems;
  }

  /** Resolves when the instances are others than the caller knows. */
  async waitForChange(isKnown: (instances: readonly Instance[]) => boolean, signal: AbortSignal): Promise<Instance[]> {
    const { promise, resolve, reject } = Promise.withResolvers<Instance[]>();
    let quietUntil = 0;
    const look = ({ members, startedAt, gapMs }: Beat): void => {
      // After heartbeats that failed, as when the service was away, the others may not have written theirs yet.
      if (gapMs > this.#members.deadMs && Number.isFinite(gapMs)) quietUntil = startedAt + this.#members.deadMs;
      const found = instancesOf(members);
      if (startedAt >= quietUntil && !isKnown(found)) resolve(found);
    };
    const stop = (): void => reject(signal.reason as Error);
    const forget = this.#members.onBeat(look);
    signal.addEventListener("abort", stop, { once: true });
    try {
      if (signal.aborted) stop();
      // The heartbeat calls the listener; one that fails tells nothing.
      else await this.#members.beat().catch(() => undefined);
      return await promise;
    } finally {
      forget();
      signal.removeEventListener("abort", stop);
    }
  }
}

function instancesOf(members: readonly Member[]): Instance[] {
  return members.flatMap(({ bootId, host, joinedAt, features }) => {
    const feature = features.find((name) => name === FEATURE || name.startsWith(`${FEATURE}:`));
    if (feature === undefined) return [];
    const [, id, total] = /^refresh:(\d+)\/(\d+)$/.exec(feature) ?? [];
    return [{ bootId, host, joinedAt, fixed: total === undefined ? null : { id: Number(id), total: Number(total) } }];
  });
}

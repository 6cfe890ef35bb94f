/**
 * What to do with a tag that a client asks for, decided from what we know, without doing anything. The mode is the operator's choice of
 * how much staleness a proxy may show; whatever it is, an upstream in trouble never takes away what is already here.
 */
export type TagMode = "revalidate" | "always-check" | "local-first" | "offline";

export interface TagPolicy {
  readonly mode: TagMode;
  /** A tag confirmed within this time is served without asking. */
  readonly ttlMs: number;
  /** Beyond the TTL it is served at once and checked behind, for at most this long. */
  readonly maxStaleMs: number;
  /** How long a request waits for the check of an older tag before it gets the stale one. */
  readonly waitMs: number;
  /** How long "there is none" is believed. */
  readonly negativeTtlMs: number;
  /** Serve what upstream has deleted. */
  readonly keepDeleted: boolean;
}

export const DEFAULT_TAG_POLICY: TagPolicy = {
  mode: "revalidate",
  ttlMs: 60_000,
  maxStaleMs: 600_000,
  waitMs: 2_000,
  negativeTtlMs: 30_000,
  keepDeleted: false,
};

export interface TagKnowledge {
  /** Null: upstream said that there is none. */
  readonly digest: string | null;
  /** Milliseconds since the epoch of the last answer from upstream. */
  readonly checkedAt: number;
  /** Nobody has to ask before. */
  readonly freshUntil: number;
  /** What the last attempt to check gave: 200, CHECKING while somebody is at it, or what went wrong. */
  readonly lastStatus?: number;
}

/** A process is asking upstream just now. */
export const CHECKING = 102;
const ABSENT = 404;

export function isBeingChecked(known: TagKnowledge | null, now: number): boolean {
  return known !== null && known.lastStatus === CHECKING && now < known.freshUntil;
}

export type TagDecision =
  /** Nothing is asked; stale while a check runs elsewhere, or when the last one failed a moment ago. */
  | { readonly kind: "serve"; readonly cache: "HIT" | "STALE" }
  | { readonly kind: "serve-and-refresh"; readonly cache: "STALE" }
  | { readonly kind: "absent"; readonly cache: "NEGATIVE" }
  /** Ask upstream; with something to fall back on, wait no longer than `waitMs`. */
  | { readonly kind: "check"; readonly waitMs: number | null };

export function decideTag(known: TagKnowledge | null, policy: TagPolicy, now: number): TagDecision {
  const held = known !== null && known.digest !== null;
  if (policy.mode === "offline") return held ? { kind: "serve", cache: "HIT" } : { kind: "absent", cache: "NEGATIVE" };
  if (known === null) return { kind: "check", waitMs: null };
  if (known.digest === null) {
    // A row without a digest may also stand for a first question that is on its way, or that failed.
    const isAbsent = (known.lastStatus ?? ABSENT) === ABSENT && now < known.freshUntil;
    return isAbsent ? { kind: "absent", cache: "NEGATIVE" } : { kind: "check", waitMs: null };
  }
  switch (policy.mode) {
    case "local-first":
      return { kind: "serve", cache: "HIT" };
    case "always-check":
      return { kind: "check", waitMs: policy.waitMs };
    case "revalidate":
      return decideByAge(known, policy, now);
  }
}

function decideByAge(known: TagKnowledge, policy: TagPolicy, now: number): TagDecision {
  const { checkedAt, freshUntil, lastStatus = 200 } = known;
  const age = now - checkedAt;
  const isPresentable = age < policy.ttlMs + policy.maxStaleMs;
  if (now < freshUntil) {
    if (lastStatus === 200 && age < policy.ttlMs) return { kind: "serve", cache: "HIT" };
    if (lastStatus !== 200 && (isPresentable || lastStatus !== CHECKING)) return { kind: "serve", cache: "STALE" };
  }
  return isPresentable ? { kind: "serve-and-refresh", cache: "STALE" } : { kind: "check", waitMs: policy.waitMs };
}

export interface CheckFailure {
  /** Upstream said clearly that the tag is gone. */
  readonly absent: boolean;
}

/** After a check that gave no new digest: may the tag that we hold be served all the same? */
export function mayServeStale(known: TagKnowledge | null, policy: TagPolicy, failure: CheckFailure): boolean {
  if (known === null || known.digest === null) return false;
  return failure.absent ? policy.keepDeleted : true;
}

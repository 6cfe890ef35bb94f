/** The forms in which earlier designs kept marks in Redis. Pure. */
import { decodeMember } from "./slots.ts";
import type { Marked } from "./slots.ts";

/**
 * auto: when one of the sets is there, until nothing is left. once: looks for everything, until nothing is left. keep: goes on looking, for writers
 * that live.
 */
export const DRAIN_MODES = ["auto", "once", "keep", "off"] as const;
export type DrainMode = (typeof DRAIN_MODES)[number];

/** Sets whose members are `<id>:<VENDOR>`. */
export const OLD_SETS = ["cache:execution:refresh:queue", "execution:status_outdate"] as const;

/** For SCAN. Finds foreign keys too, which `readOldKey` tells apart. */
export const OLD_KEY_PATTERN = "*execution:id:*:status_outdate";

/** The key of one execution; null when it was made by somebody else, malformed when it is one of ours that says nothing. */
export function readOldKey(key: string): Marked | "malformed" | null {
  const [, middle] = /^(?:cache:)?execution:id:(.*):status_outdate$/s.exec(key) ?? [];
  if (middle === undefined) return null;
  const [, id, vendor] = /^([^:]*):vendor:([^:]*)$/s.exec(middle) ?? [];
  return decodeMember(`${id}:${vendor}`) ?? "malformed";
}

export function readOldMember(member: string): Marked | "malformed" {
  return decodeMember(member) ?? "malformed";
}

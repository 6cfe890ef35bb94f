/** How much a mirror may delete without being told to. */
import { SlipwayError } from "../../../core/errors.ts";
import type { Policy } from "../../plan/policy.ts";

export interface MirrorCount {
  readonly deletions: number;
  /** Tags at the destinations, of the repositories that the policy is about. */
  readonly seen: number;
}

/** Throws BAD_REQUEST when it is more than the policy allows. */
export function guardMirror(policy: Pick<Policy, "maxDeletions" | "maxDeletionPercent">, count: MirrorCount, force: boolean): void {
  const { deletions, seen } = count;
  if (force || deletions === 0) return;
  const { maxDeletions, maxDeletionPercent } = policy;
  if (deletions <= maxDeletions && deletions * 100 <= seen * maxDeletionPercent) return;
  throw new SlipwayError("BAD_REQUEST", {
    message:
      `the mirror would delete ${deletions} of ${seen} tags, and the policy allows at most ${maxDeletions} and at most ${maxDeletionPercent} percent; ` +
      "start the run with force to delete them",
    detail: { deletions, seen, maxDeletions, maxDeletionPercent },
  });
}

/** The name at the source of what a destination calls so; null where names were shortened on their way. */
export function sourceName(name: string, rule: { readonly namespace: string; readonly replaceCount: number }): string | null {
  if (rule.namespace === "") return name;
  if (rule.replaceCount !== 0 || !name.startsWith(`${rule.namespace}/`)) return null;
  return name.slice(rule.namespace.length + 1);
}

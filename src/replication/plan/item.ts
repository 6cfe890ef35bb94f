/** What planning hands to copying: tasks (one per destination and stretch of a source repository) and their items. */

export type ItemAction = "copy" | "delete" | "audit";
export type ItemStatus = "Pending" | "Success" | "Skipped" | "Error" | "Stopped";

/** Words that programs may branch on; the message beside them is for people. */
export type ItemReason =
  | ""
  | "copied"
  | "up-to-date"
  | "not-overridden"
  /** Of a dry run. */
  | "would-copy"
  | "would-delete"
  | "deleted"
  | "already-gone"
  | "diverged"
  | "gone-at-source"
  | "unsupported-manifest"
  | "immutable"
  | "refused"
  | "collision"
  | "digest-mismatch"
  | "incomplete-at-target"
  | "limited"
  | "unavailable"
  | "stopped"
  | "failed";

export interface ItemDraft {
  readonly action: ItemAction;
  /** Null: content without a tag, which goes by digest. */
  readonly tag: string | null;
  /** At the source; null where listing did not tell it. Of a deletion: what was deleted there. */
  readonly digest: string | null;
  /** Decided by planning already, so that there is nothing left to do. */
  readonly settled?: { readonly status: "Skipped" | "Error"; readonly reason: ItemReason; readonly message: string };
}

/** Kept in tasks.extra_attrs under these names, which the API reads. */
export interface TaskAttrs {
  readonly operation: "copy" | "deletion" | "audit";
  readonly resource_type: "image" | "artifact";
  readonly src_resource: string;
  readonly dst_resource: string;
  readonly src_repository: string;
  readonly dst_repository: string;
  /** Position of the destination in the policy, and its registry. */
  readonly destination: number;
  readonly target_registry_id: number;
  readonly items: number;
  /** The target repository held nothing when the task was planned: nothing in it needs to be looked for. */
  readonly target_empty: boolean;
  /** False when the source's listing shows no tag that holds referrers (`sha256-...`); absent when nobody looked. */
  readonly referrer_tags?: boolean;
}

export interface TaskDraft {
  /** The same for the same stretch, so that a repeated planning step adds nothing twice. */
  readonly key: string;
  readonly attrs: TaskAttrs;
  readonly items: readonly ItemDraft[];
  /** Of a task that ends in planning; it is never handed to copying. */
  readonly outcome?: TaskOutcome;
}

export interface TaskOutcome {
  readonly status: "Success" | "Error";
  readonly message: string;
}

/** What a replication policy says, as everything behind the API sees it. Pure: planners and workflows read it too. */

/** The registry that Slipway itself is; clients know it by this id. */
export const LOCAL_REGISTRY_ID = 0;

/** What happens to a start while a run of the policy is active. */
export const overlaps = ["skip", "queue-one", "allow"] as const;
export type Overlap = (typeof overlaps)[number];

export type PolicyTrigger =
  | { readonly type: "manual" }
  /** The cron text as it was given: six fields, seconds 0. */
  | { readonly type: "scheduled"; readonly cron: string; readonly timezone: string }
  | { readonly type: "event_based" };

export const filterTypes = ["name", "tag", "label", "resource", "platform", "media_type", "artifact_type", "max_age", "newest"] as const;
export type FilterType = (typeof filterTypes)[number];
export const filterKinds = ["glob", "regex", "semver"] as const;
export type FilterKind = (typeof filterKinds)[number];

export interface PolicyFilter {
  readonly type: FilterType;
  /** How a text value is read; patterns are globs unless it says otherwise. Of "newest": by version where it is semver, else by time. */
  readonly kind: FilterKind;
  /** Text for patterns, a list for labels and platforms, a number for max_age (seconds) and newest (count). */
  readonly value: string | readonly string[] | number;
  /** Empty, as clients may leave it, means matches. */
  readonly decoration: "" | "matches" | "excludes";
}

export interface Destination {
  readonly position: number;
  readonly registryId: number;
  readonly namespace: string;
  readonly replaceCount: number;
  /** What the destination itself says; null: as the policy says, which is in the two fields above. */
  readonly ownNamespace: string | null;
  readonly ownReplaceCount: number | null;
}

export interface Policy {
  readonly id: number;
  readonly name: string;
  readonly description: string;
  readonly creator: string;
  readonly sourceRegistryId: number;
  /** At least one; its own namespace settings where it has some, else those of the policy. */
  readonly destinations: readonly Destination[];
  readonly destNamespace: string;
  readonly destNamespaceReplaceCount: number;
  readonly trigger: PolicyTrigger | null;
  /** Kept while the trigger is another one. */
  readonly timezone: string;
  readonly filters: readonly PolicyFilter[];
  readonly deletion: boolean;
  readonly override: boolean;
  readonly enabled: boolean;
  /** Kilobits a second over all workers; 0 is unlimited. */
  readonly speedKb: number;
  readonly copyByChunk: boolean;
  readonly singleActive: boolean;
  readonly overlap: Overlap;
  readonly mirror: boolean;
  readonly maxDeletions: number;
  readonly maxDeletionPercent: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

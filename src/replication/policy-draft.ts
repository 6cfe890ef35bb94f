/**
 * What a policy's fields must be, in the order in which clients see what is wrong, with the texts that they know from Harbor. Fields beyond
 * Harbor's keep their value when they are left out, and are cleared by null.
 */
import { SlipwayError } from "../core/errors.ts";
import { isRepositoryName } from "../oci/names.ts";
import { checkCron, checkTimezone } from "./policy-cron.ts";
import { draftFilters } from "./filter-draft.ts";
import type { FilterInput } from "./filter-draft.ts";
import { LOCAL_REGISTRY_ID, overlaps } from "./plan/policy.ts";
import type { Overlap, Policy, PolicyTrigger } from "./plan/policy.ts";
import type { DestinationDraft, PolicyDraft } from "./policy-store.ts";

/** Absent: as it is; null: as a new policy has it. */
type Additive<T> = T | null | undefined;

export interface PolicyInput {
  readonly name: string;
  readonly description: string;
  readonly sourceRegistryId: number;
  readonly destRegistryId: number;
  readonly destNamespace: string;
  readonly destNamespaceReplaceCount: number | null;
  readonly trigger: { readonly type: string; readonly cron: string } | null;
  readonly filters: readonly FilterInput[];
  readonly deletion: boolean;
  readonly override: boolean;
  readonly enabled: boolean;
  readonly speedKb: number;
  readonly copyByChunk: boolean;
  readonly singleActive: boolean;
  readonly destinations: Additive<readonly DestinationDraft[]>;
  readonly timezone: Additive<string>;
  readonly overlap: Additive<string>;
  readonly mirror: Additive<boolean>;
  readonly maxDeletions: Additive<number>;
  readonly maxDeletionPercent: Additive<number>;
}

export const POLICY_DEFAULTS = { timezone: "UTC", overlap: "allow", mirror: false, maxDeletions: 100, maxDeletionPercent: 10 } as const;

const MAX_NAME = 256;
const MAX_DESCRIPTION = 4096;
const MAX_DESTINATIONS = 32;
/** As the column has it. */
const FLATTEN_ALL = -1;

/** Throws BAD_REQUEST with the first thing that is wrong. */
export function draftPolicy(input: PolicyInput, existing: Policy | null): PolicyDraft {
  if (input.singleActive && input.trigger?.type === "event_based") {
    throw invalid("single active replication is not allowed for event_based triggers");
  }
  checkTexts(input);
  const destinations = draftDestinations(input, existing);
  const filters = draftFilters(input.filters, existing?.filters ?? []);
  for (const namespace of [input.destNamespace, ...destinations.map((one) => one.namespace ?? "")]) {
    if (namespace !== "" && !isRepositoryName(namespace)) throw invalid(`invalid destination namespace: ${namespace.slice(0, 256)}`);
  }
  const timezone = checkTimezone(additive(input.timezone, existing?.timezone, POLICY_DEFAULTS.timezone));
  const trigger = draftTrigger(input.trigger, timezone);
  if (trigger?.type === "event_based" && input.sourceRegistryId !== LOCAL_REGISTRY_ID) {
    // Harbor saves it, and it never runs.
    throw invalid("event_based triggers follow the local registry, so src_registry must be empty");
  }
  return {
    name: input.name,
    description: input.description,
    sourceRegistryId: input.sourceRegistryId,
    destinations,
    destNamespace: input.destNamespace,
    destNamespaceReplaceCount: input.destNamespaceReplaceCount ?? FLATTEN_ALL,
    trigger,
    timezone,
    filters,
    deletion: input.deletion,
    override: input.override,
    enabled: input.enabled,
    speedKb: Math.max(0, input.speedKb),
    copyByChunk: input.copyByChunk,
    singleActive: input.singleActive,
    overlap: draftOverlap(input, existing, trigger?.type === "event_based"),
    mirror: additive(input.mirror, existing?.mirror, POLICY_DEFAULTS.mirror),
    maxDeletions: additive(input.maxDeletions, existing?.maxDeletions, POLICY_DEFAULTS.maxDeletions),
    maxDeletionPercent: additive(input.maxDeletionPercent, existing?.maxDeletionPercent, POLICY_DEFAULTS.maxDeletionPercent),
  };
}

function additive<T>(given: Additive<T>, kept: T | undefined, fallback: T): T {
  return given === undefined ? (kept ?? fallback) : (given ?? fallback);
}

function checkTexts({ name, description }: PolicyInput): void {
  if (name === "") throw invalid("empty name");
  if (name.length > MAX_NAME) throw invalid(`the max length of name is ${MAX_NAME}`);
  // oxlint-disable-next-line no-control-regex -- they are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(name)) throw invalid("the name has a control character");
  if (description.length > MAX_DESCRIPTION) throw invalid(`the max length of description is ${MAX_DESCRIPTION}`);
  if (description.includes("\u0000")) throw invalid("the description has a NUL character");
}

function draftDestinations(input: PolicyInput, existing: Policy | null): readonly DestinationDraft[] {
  const destinations = chooseDestinations(input, existing);
  const isLocal = input.sourceRegistryId === LOCAL_REGISTRY_ID;
  if (isLocal && destinations.some(({ registryId }) => registryId === LOCAL_REGISTRY_ID)) {
    throw invalid("either src_registry or dest_registry should be empty and the other one shouldn't be empty");
  }
  if (destinations.length > MAX_DESTINATIONS) throw invalid(`a policy has at most ${MAX_DESTINATIONS} destinations`);
  const seen = new Map<string, number>();
  for (const [index, { registryId, namespace, replaceCount }] of destinations.entries()) {
    const effective = namespace ?? input.destNamespace;
    if (registryId === input.sourceRegistryId && effective === "") {
      throw invalid(`the destination ${registryId} is the source, so it needs a namespace of its own`);
    }
    const key = JSON.stringify([
      registryId,
      effective,
      effective === "" ? 0 : (replaceCount ?? input.destNamespaceReplaceCount ?? FLATTEN_ALL),
    ]);
    const other = seen.get(key);
    if (other !== undefined) throw invalid(`the destinations ${other + 1} and ${index + 1} are the same`);
    seen.set(key, index);
  }
  return destinations;
}

/** Clients of Harbor know one destination: for them the first changes, and the further ones stay. */
function chooseDestinations(input: PolicyInput, existing: Policy | null): readonly DestinationDraft[] {
  const { destinations, destRegistryId } = input;
  if (destinations !== undefined && destinations !== null) {
    const [first] = destinations;
    if (first === undefined) throw invalid("destinations must not be empty; null leaves dest_registry alone");
    if (destRegistryId !== LOCAL_REGISTRY_ID && destRegistryId !== first.registryId) {
      throw invalid("dest_registry and the first of the destinations must be the same registry");
    }
    return destinations;
  }
  const only: DestinationDraft = { registryId: destRegistryId, namespace: null, replaceCount: null };
  if (destinations === null || existing === null) return [only];
  const kept = existing.destinations.map(({ registryId, ownNamespace, ownReplaceCount }) => ({
    registryId,
    namespace: ownNamespace,
    replaceCount: ownReplaceCount,
  }));
  return [{ ...(kept[0] ?? only), registryId: destRegistryId }, ...kept.slice(1)];
}

function draftTrigger(trigger: PolicyInput["trigger"], timezone: string): PolicyTrigger | null {
  switch (trigger?.type) {
    case undefined:
      return null;
    case "manual":
      return { type: "manual" };
    case "event_based":
      return { type: "event_based" };
    case "scheduled":
      return { type: "scheduled", cron: checkCron(trigger?.cron ?? ""), timezone };
    default:
      throw invalid("invalid trigger type");
  }
}

function draftOverlap({ overlap: given, singleActive }: PolicyInput, existing: Policy | null, onEvents: boolean): Overlap {
  if (given !== undefined && given !== null) {
    const overlap = overlaps.find((one) => one === given);
    if (overlap === undefined) throw invalid(`invalid overlap: ${given.slice(0, 64)}`);
    if (singleActive && overlap !== "skip") throw invalid("single_active_replication is the overlap skip");
    if (onEvents && overlap === "skip") throw invalid("a policy on events takes the overlap queue-one or allow");
    return overlap;
  }
  if (singleActive) return "skip";
  const kept = given === null || existing === null ? POLICY_DEFAULTS.overlap : existing.overlap;
  // It was no choice of its own while one run at a time was, and events must not get lost.
  return kept === "skip" && (existing?.singleActive === true || onEvents) ? POLICY_DEFAULTS.overlap : kept;
}

function invalid(message: string): SlipwayError {
  return new SlipwayError("BAD_REQUEST", { message });
}

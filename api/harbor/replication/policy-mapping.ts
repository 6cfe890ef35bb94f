/** Policies between our model and Harbor's JSON. What is ours beyond Harbor stands in further fields. */
import { z } from "zod";
import { LOCAL_REGISTRY_ID } from "../../../src/replication/plan/policy.ts";
import type { Policy, PolicyFilter, PolicyTrigger } from "../../../src/replication/plan/policy.ts";
import type { PolicyInput } from "../../../src/replication/policy-draft.ts";
import type { DestinationDraft } from "../../../src/replication/policy-store.ts";
import { inOrder, omitEmpty } from "../conventions.ts";

const text = z.string().nullish();
const flag = z.boolean().nullish();
const registry = z.object({ id: z.int().min(0).nullish() }).nullish();
const replaceCount = z.int().min(-128).max(127).nullish();

const destination = z.object({ dest_registry: registry, dest_namespace: text, dest_namespace_replace_count: replaceCount });
const filter = z.object({ type: text, value: z.unknown().optional(), decoration: text, kind: text });

/** Null and absence are the same in Harbor's own fields: clients in Go send both. */
export const policyBody = z.object({
  name: text,
  description: text,
  src_registry: registry,
  dest_registry: registry,
  dest_namespace: text,
  dest_namespace_replace_count: replaceCount,
  trigger: z.object({ type: text, trigger_settings: z.object({ cron: text }).nullish() }).nullish(),
  filters: z.array(filter).nullish(),
  deletion: flag,
  replicate_deletion: flag,
  override: flag,
  enabled: flag,
  speed: z.int().min(-2_147_483_648).max(2_147_483_647).nullish(),
  copy_by_chunk: flag,
  single_active_replication: flag,
  destinations: z.array(destination).nullish(),
  timezone: text,
  overlap: text,
  mirror: flag,
  max_deletions: z.int().min(0).max(2_147_483_647).nullish(),
  max_deletion_percent: z.int().min(0).max(100).nullish(),
});

export function toPolicyInput(body: z.output<typeof policyBody>): PolicyInput {
  return {
    name: body.name ?? "",
    description: body.description ?? "",
    sourceRegistryId: body.src_registry?.id ?? LOCAL_REGISTRY_ID,
    destRegistryId: body.dest_registry?.id ?? LOCAL_REGISTRY_ID,
    destNamespace: body.dest_namespace ?? "",
    destNamespaceReplaceCount: body.dest_namespace_replace_count ?? null,
    trigger: body.trigger ? { type: body.trigger.type ?? "", cron: body.trigger.trigger_settings?.cron ?? "" } : null,
    filters: (body.filters ?? []).map((one) => ({
      type: one.type ?? "",
      value: one.value,
      decoration: one.decoration ?? "",
      kind: one.kind,
    })),
    // Harbor reads the first only, though it shows both.
    deletion: body.deletion ?? body.replicate_deletion ?? false,
    override: body.override ?? false,
    enabled: body.enabled ?? false,
    speedKb: body.speed ?? 0,
    copyByChunk: body.copy_by_chunk ?? false,
    singleActive: body.single_active_replication ?? false,
    destinations: body.destinations && body.destinations.map(toDestination),
    ...additiveFields(body),
  };
}

function toDestination(one: z.output<typeof destination>): DestinationDraft {
  return {
    registryId: one.dest_registry?.id ?? LOCAL_REGISTRY_ID,
    namespace: one.dest_namespace ?? null,
    replaceCount: one.dest_namespace_replace_count ?? null,
  };
}

function additiveFields(
  body: z.output<typeof policyBody>,
): Pick<PolicyInput, "timezone" | "overlap" | "mirror" | "maxDeletions" | "maxDeletionPercent"> {
  return {
    timezone: body.timezone,
    overlap: body.overlap,
    mirror: body.mirror,
    maxDeletions: body.max_deletions,
    maxDeletionPercent: body.max_deletion_percent,
  };
}

type Described = Readonly<Record<string, unknown>>;

/** `registries` are those of the policy, by id, as the API shows them. */
export function describePolicy(policy: Policy, registries: ReadonlyMap<number, Described>): Described {
  const [first] = policy.destinations;
  const fields = omitEmpty(
    {
      id: policy.id,
      name: policy.name,
      description: policy.description,
      dest_namespace: policy.destNamespace,
      dest_namespace_replace_count: policy.destNamespaceReplaceCount,
      filters: policy.filters.map(describeFilter),
      deletion: policy.deletion,
      replicate_deletion: policy.deletion,
      override: policy.override,
      enabled: policy.enabled,
      speed: policy.speedKb,
      copy_by_chunk: policy.copyByChunk,
      single_active_replication: policy.singleActive,
      creation_time: policy.createdAt.toISOString(),
      update_time: policy.updatedAt.toISOString(),
      timezone: policy.timezone,
      overlap: policy.overlap,
      mirror: policy.mirror,
      max_deletions: policy.maxDeletions,
      max_deletion_percent: policy.maxDeletionPercent,
    },
    [
      "dest_namespace_replace_count",
      "speed",
      "copy_by_chunk",
      "single_active_replication",
      "mirror",
      "max_deletions",
      "max_deletion_percent",
    ],
  );
  return inOrder({
    ...fields,
    ...(policy.trigger === null ? {} : { trigger: describeTrigger(policy.trigger) }),
    src_registry: registries.get(policy.sourceRegistryId),
    dest_registry: first && registries.get(first.registryId),
    destinations: policy.destinations.map((one) => ({
      dest_namespace: one.ownNamespace,
      dest_namespace_replace_count: one.ownReplaceCount,
      dest_registry: registries.get(one.registryId),
    })),
  });
}

function describeTrigger(trigger: PolicyTrigger): Described {
  return { trigger_settings: trigger.type === "scheduled" ? { cron: trigger.cron } : {}, type: trigger.type };
}

function describeFilter({ type, kind, value, decoration }: PolicyFilter): { readonly [name: string]: string | number | readonly string[] } {
  return { ...(decoration === "" ? {} : { decoration }), ...(kind === "glob" ? {} : { kind }), type, value };
}

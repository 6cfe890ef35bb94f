/** /replication/policies: what is replicated from where to where, and when. For system administrators and robots with the right. */
import { Router } from "express";
import type { Request } from "express";
import { toSlipwayError } from "../../../src/core/errors.ts";
import type { RegistryStore } from "../../../src/proxy/registry-store.ts";
import { LOCAL_REGISTRY_ID } from "../../../src/replication/plan/policy.ts";
import type { Policy } from "../../../src/replication/plan/policy.ts";
import { draftPolicy } from "../../../src/replication/policy-draft.ts";
import { POLICY_LIST_KEYS, policyNotFound } from "../../../src/replication/policy-store.ts";
import type { PolicyStore } from "../../../src/replication/policy-store.ts";
import type { Logger } from "../../../src/telemetry/logger.ts";
import type { ReplicationSchedules } from "../../../src/temporal/replication-schedules.ts";
import { requireSystemRight } from "../access.ts";
import { readBody, readId, readQueryText } from "../conventions.ts";
import { readListQuery, setListHeaders } from "../list-params.ts";
import { describeLocal, describeRegistry } from "../registry-mapping.ts";
import type { HarborServices } from "../services.ts";
import { describePolicy, policyBody, toPolicyInput } from "./policy-mapping.ts";

export interface PoliciesServices extends Pick<HarborServices, "auth" | "addresses"> {
  readonly policies: PolicyStore;
  readonly registries: Pick<RegistryStore, "findMany">;
  /** Null without a workflow service. */
  readonly schedules: Pick<ReplicationSchedules, "follow"> | null;
  readonly logger: Logger;
}

export function createPoliciesRouter(services: PoliciesServices): Router {
  const router = Router();
  addCollection(router, services);
  addOne(router, services);
  return router;
}

function addCollection(router: Router, services: PoliciesServices): void {
  const { policies } = services;
  router.get("/replication/policies", async (request, response) => {
    await requireSystemRight(services, request, "replication-policy:list");
    const query = withName(readListQuery(request, POLICY_LIST_KEYS), readQueryText(request, "name") ?? "");
    const { rows, total } = await policies.list(query);
    setListHeaders(request, response, { total, ...query });
    response.json(await describe(services, request, rows));
  });
  router.post("/replication/policies", async (request, response) => {
    const caller = await requireSystemRight(services, request, "replication-policy:create");
    const policy = await policies.create(draftPolicy(toPolicyInput(readBody(request, policyBody)), null), caller.name);
    if (isScheduled(policy)) await followSchedule(services, policy.id);
    response.status(201).location(`${request.baseUrl}/replication/policies/${policy.id}`).end();
  });
}

function addOne(router: Router, services: PoliciesServices): void {
  const { policies } = services;
  router.get("/replication/policies/:id", async (request, response) => {
    await requireSystemRight(services, request, "replication-policy:read");
    const id = readPolicyId(request);
    const policy = await policies.find(id);
    if (policy === null) throw policyNotFound(id);
    response.json((await describe(services, request, [policy]))[0]);
  });
  router.put("/replication/policies/:id", async (request, response) => {
    await requireSystemRight(services, request, "replication-policy:update");
    const id = readPolicyId(request);
    const input = toPolicyInput(readBody(request, policyBody));
    let before: Policy | null = null;
    const policy = await policies.update(id, (existing) => {
      before = existing;
      return draftPolicy(input, existing);
    });
    if (isScheduled(before) || isScheduled(policy)) await followSchedule(services, id);
    response.status(200).end();
  });
  router.delete("/replication/policies/:id", async (request, response) => {
    await requireSystemRight(services, request, "replication-policy:delete");
    const id = readPolicyId(request);
    const policy = await policies.find(id);
    await policies.remove(id);
    if (isScheduled(policy)) await followSchedule(services, id);
    response.status(200).end();
  });
}

/** The deprecated parameter wins over the same key of q. */
function withName<Query extends ReturnType<typeof readListQuery>>(query: Query, name: string): Query {
  if (name === "") return query;
  const others = query.filters.filter(({ key }) => key.toLowerCase() !== "name");
  return { ...query, filters: [...others, { key: "name", kind: "contains", value: name }] };
}

function isScheduled(policy: Policy | null): boolean {
  return policy?.trigger?.type === "scheduled";
}

/** The policy is saved whatever becomes of this: the reconciler mends a schedule that could not be set now. */
async function followSchedule({ schedules, logger }: PoliciesServices, id: number): Promise<void> {
  if (schedules === null) return;
  await schedules.follow(id).catch((error: unknown) => {
    logger.warn({ policy: id, error: toSlipwayError(error) }, "the schedule of a policy could not be set; it will be mended");
  });
}

async function describe(services: PoliciesServices, request: Request, policies: readonly Policy[]): Promise<object[]> {
  const ids = policies.flatMap(({ sourceRegistryId, destinations }) => [sourceRegistryId, ...destinations.map((one) => one.registryId)]);
  const found = await services.registries.findMany([...new Set(ids)].filter((id) => id !== LOCAL_REGISTRY_ID));
  const described = new Map(found.map((registry) => [registry.id, describeRegistry(registry, { credential: true })]));
  described.set(LOCAL_REGISTRY_ID, describeLocal(services.addresses.externalUrl(request)));
  return policies.map((policy) => describePolicy(policy, described));
}

/** Of registries the local one has the id 0; of policies there is none. */
function readPolicyId(request: Request): number {
  if (request.params["id"] === "0") throw policyNotFound(0);
  return readId(request, "id");
}

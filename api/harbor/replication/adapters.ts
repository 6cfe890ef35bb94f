/** /replication/adapters: the types of registries that can be replicated, and what a form for them can fill in by itself. */
import { Router } from "express";
import { requireSystemRight } from "../access.ts";
import type { HarborServices } from "../services.ts";

/** Types that have an adapter; a registry of another type is served as one of the distribution protocol. */
export const REPLICATION_TYPES = ["docker-hub", "docker-registry", "github-ghcr", "gitlab", "harbor", "quay"] as const;

interface ProviderInfo {
  readonly endpoint_pattern: {
    readonly endpoint_type: "EndpointPatternTypeStandard" | "EndpointPatternTypeFix" | "EndpointPatternTypeList";
    readonly endpoints: readonly { readonly key: string; readonly value: string }[];
  };
}

const INFOS: Readonly<Record<string, ProviderInfo>> = {
  "docker-hub": fixed("hub.docker.com"),
  "github-ghcr": fixed("ghcr.io"),
};

export function createAdaptersRouter(services: Pick<HarborServices, "auth">): Router {
  const router = Router();
  router.get("/replication/adapters", async (request, response) => {
    await requireSystemRight(services, request, "replication-adapter:list");
    response.json(REPLICATION_TYPES);
  });
  router.get("/replication/adapterinfos", async (request, response) => {
    await requireSystemRight(services, request, "replication-adapter:list");
    response.json(INFOS);
  });
  return router;
}

function fixed(host: string): ProviderInfo {
  return { endpoint_pattern: { endpoint_type: "EndpointPatternTypeFix", endpoints: [{ key: host, value: `https://${host}` }] } };
}

/** /replication/adapters: the types of registries that can be replicated, and what a form for them can fill in by itself. */
import { Router } from "express";
import { ADAPTER_TYPES } from "../../../src/replication/adapters/create-adapters.ts";
import { requireSystemRight } from "../access.ts";
import type { HarborServices } from "../services.ts";

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
    response.json(ADAPTER_TYPES);
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

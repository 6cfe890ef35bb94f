/**
 * Registry rows become adapters: by type from the table, everything else by the registry protocol alone. A product with an API of its own (also those
 * of clouds, which make repositories or sign requests) is one more file and one more line here.
 */
import type { Catalog } from "../../catalog/open-catalog.ts";
import { SlipwayError } from "../../core/errors.ts";
import type { Queryable } from "../../db/pool.ts";
import type { Registry } from "../../proxy/registry-store.ts";
import { endpointOf } from "../../proxy/upstreams.ts";
import type { BlobStore } from "../../storage/blob-store.ts";
import type { UpstreamPool } from "../../upstream/pool.ts";
import type { UpstreamEndpoint } from "../../upstream/types.ts";
import { LOCAL_REGISTRY_ID } from "../plan/policy.ts";
import type { AdapterFactory, RegistryAdapter } from "./adapter.ts";
import { dockerHub } from "./docker-hub.ts";
import { githubGhcr } from "./github-ghcr.ts";
import { gitlab } from "./gitlab.ts";
import { harbor } from "./harbor.ts";
import { LocalAdapter } from "./local-adapter.ts";
import type { ProductBuilder } from "./product.ts";
import { quay } from "./quay.ts";
import { RemoteAdapter } from "./remote-adapter.ts";

export interface AdaptersOptions {
  readonly registries: { find(id: number): Promise<Registry | null> };
  /** Of replication alone; see replication-pool.ts. */
  readonly pool: UpstreamPool;
  readonly catalog: Catalog;
  readonly store: BlobStore;
  readonly database: Queryable;
}

const PRODUCTS: Readonly<Record<string, ProductBuilder>> = {
  harbor,
  "docker-hub": dockerHub,
  "github-ghcr": githubGhcr,
  gitlab,
  quay,
};

/** A registry of another type is served by the protocol alone. */
export const ADAPTER_TYPES: readonly string[] = ["docker-registry", ...Object.keys(PRODUCTS)].toSorted();

export function createAdapters(options: AdaptersOptions): AdapterFactory {
  const { registries, pool } = options;
  const local = (originRegistry: number | null): RegistryAdapter => new LocalAdapter({ ...options, originRegistry });
  const openRemote = async (registryId: number): Promise<RegistryAdapter> => {
    const registry = await registries.find(registryId);
    if (!registry) throw new SlipwayError("NOT_FOUND", { message: `registry ${registryId} not found` });
    const endpoint = mainEndpoint(registry);
    const product = PRODUCTS[registry.type]?.({ registry, endpoint, pool }) ?? { endpoint, hooks: {} };
    return new RemoteAdapter({
      registryId,
      type: registry.type,
      name: registry.name,
      host: new URL(registry.url).host,
      client: pool.client(product.endpoint),
      hooks: product.hooks,
    });
  };
  return {
    open: async (registryId) => (registryId === LOCAL_REGISTRY_ID ? local(null) : await openRemote(registryId)),
    openTarget: async ({ registryId, sourceRegistryId }) =>
      registryId === LOCAL_REGISTRY_ID ? local(sourceRegistryId) : await openRemote(registryId),
  };
}

/** Without the mirrors: a copy must read what the registry itself says now, and write nowhere else. */
function mainEndpoint(registry: Registry): UpstreamEndpoint {
  return { ...endpointOf(registry), urls: [registry.url] };
}

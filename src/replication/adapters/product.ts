/** What a file about a product gives: the endpoint of its registry, and what it does in its own way. */
import type { Registry } from "../../proxy/registry-store.ts";
import type { UpstreamPool } from "../../upstream/pool.ts";
import type { UpstreamEndpoint } from "../../upstream/types.ts";
import type { ProductHooks } from "./remote-adapter.ts";

export interface ProductInput {
  readonly registry: Registry;
  readonly endpoint: UpstreamEndpoint;
  readonly pool: UpstreamPool;
}

export interface Product {
  readonly endpoint: UpstreamEndpoint;
  readonly hooks: ProductHooks;
}

export type ProductBuilder = (input: ProductInput) => Product;

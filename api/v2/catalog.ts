/** All repositories by name: for those who may see everything. */
import { SlipwayError } from "../../src/core/errors.ts";
import { identify, unauthorized } from "./access.ts";
import type { Exchange } from "./exchange.ts";
import { nextLink, pageRequest } from "./paging.ts";
import type { RegistryServices } from "./services.ts";

const SCOPES = [{ repository: null, actions: ["*"] }];

export async function serveCatalog(exchange: Exchange, services: RegistryServices): Promise<void> {
  const principal = await identify(exchange, services, SCOPES);
  if (!services.auth.mayListCatalog(principal)) {
    if (principal.kind === "anonymous") throw unauthorized(exchange, services, { scopes: SCOPES });
    throw new SlipwayError("DENIED");
  }
  const page = pageRequest(exchange);
  const found = page.limit === 0 ? { names: [], next: null } : await services.reader.listRepositories(page.limit, page.last);
  const link = nextLink("/v2/_catalog", exchange, { limit: page.limit, last: found.next });
  exchange.sendJson(200, link, { repositories: found.names });
}

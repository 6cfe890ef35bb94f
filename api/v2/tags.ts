/** The tags of a repository, in byte order, by pages. */
import type { RegistryReader } from "../../src/catalog/registry.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import type { Exchange } from "./exchange.ts";
import { nextLink, pageRequest } from "./paging.ts";
import type { LocalTarget } from "./target.ts";

export async function listTags(exchange: Exchange, target: LocalTarget, reader: RegistryReader): Promise<void> {
  const page = pageRequest(exchange);
  if (target.project === null || !(await reader.repositoryExists(target.repository, exchange.signal))) {
    throw new SlipwayError("NAME_UNKNOWN", { detail: { name: target.requested } });
  }
  const found = page.limit === 0 ? { tags: [], next: null } : await reader.listTags(target.repository, page.limit, page.last);
  const link = nextLink(`/v2/${target.requested}/tags/list`, exchange, { limit: page.limit, last: found.next });
  exchange.sendJson(200, link, { name: target.requested, tags: found.tags });
}

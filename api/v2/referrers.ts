/** What refers to a digest. An unknown digest or repository has no referrers, which is an empty index and no error. */
import type { ReferrersPage, RegistryReader } from "../../src/catalog/registry.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { requireDigest } from "../../src/oci/digests.ts";
import { MEDIA_TYPES } from "../../src/oci/media-types.ts";
import type { Exchange } from "./exchange.ts";
import { nextLink, pageRequest } from "./paging.ts";
import type { LocalTarget } from "./target.ts";

export async function listReferrers(exchange: Exchange, target: LocalTarget, reader: RegistryReader): Promise<void> {
  const digest = exchange.route?.reference ?? "";
  requireDigest(digest);
  // A media type holds no space: one in the parameter is a plus sign that the client did not encode.
  const artifactType = exchange.parameter("artifactType")?.replaceAll(" ", "+") || null;
  const page = pageRequest(exchange, LIMITS.referrersPageSize);
  const found: ReferrersPage =
    target.project === null || page.limit === 0
      ? { manifests: [], next: null }
      : await reader.listReferrers({ repository: target.repository, digest, artifactType, limit: page.limit, last: page.last });
  sendReferrers(exchange, { requested: target.requested, digest, limit: page.limit, artifactType, page: found });
}

export interface ReferrersAnswer {
  readonly requested: string;
  readonly digest: string;
  readonly limit: number;
  readonly artifactType: string | null;
  readonly page: ReferrersPage;
  readonly extra?: readonly string[];
}

export function sendReferrers(exchange: Exchange, answer: ReferrersAnswer): void {
  const { requested, digest, limit, artifactType, page, extra = [] } = answer;
  const headers = nextLink(`/v2/${requested}/referrers/${digest}`, exchange, { limit, last: page.next });
  headers.push(...extra);
  if (artifactType !== null) headers.push("OCI-Filters-Applied", "artifactType");
  const index = { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests: page.manifests };
  exchange.sendJson(200, headers, index, MEDIA_TYPES.ociIndex);
}

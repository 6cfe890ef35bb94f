/** Content of proxy projects: read through from upstream. */
import type { StoredManifest } from "../../src/catalog/registry.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { requireDigest } from "../../src/oci/digests.ts";
import { parseRange } from "../../src/oci/ranges.ts";
import { parseReference } from "../../src/oci/references.ts";
import type { OpenBlob } from "../../src/proxy/fill/open-blob.ts";
import type { ProxyBlobs } from "../../src/proxy/proxy-blobs.ts";
import type { ProxyLists } from "../../src/proxy/proxy-lists.ts";
import type { CacheState, ProxyManifests } from "../../src/proxy/proxy-manifests.ts";
import { matchesEntityTag } from "../http/conditional.ts";
import { answerBlob, blobHeaders } from "./blobs.ts";
import { withHeaders } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { manifestHeaders } from "./manifests.ts";
import type { ProxyWrites } from "./proxy-writes.ts";
import { nextLink, pageRequest } from "./paging.ts";
import { sendReferrers } from "./referrers.ts";
import { blockWriter } from "./send-blob.ts";
import type { BlobSender } from "./send-blob.ts";
import type { ContentHandlers, ProxyTarget } from "./target.ts";

export interface ProxyContentServices {
  readonly manifests: ProxyManifests;
  readonly blobs: ProxyBlobs;
  readonly lists: ProxyLists;
}

export function createProxyContent(services: ProxyContentServices, sender: BlobSender, writes: ProxyWrites): ContentHandlers<ProxyTarget> {
  // Of the last look: the headers are asked for in the same turn, and a second look would cost as much as the first.
  let peekedAge = 0;
  return {
    operations: {
      "manifest.read": (exchange, target) => readManifest(exchange, target, services),
      "blob.read": (exchange, target) => readBlob(exchange, target, { services, sender }),
      "tags.list": (exchange, target) => listTags(exchange, target, services),
      "referrers.list": (exchange, target) => listReferrers(exchange, target, services),
      ...writes,
    },
    peekManifest: (target, reference) => {
      const found = services.manifests.peek(target, reference);
      peekedAge = found?.ageSeconds ?? 0;
      return found?.manifest;
    },
    peekBlob: (target, digest) => {
      peekedAge = 0;
      return services.blobs.peek(target, digest);
    },
    peekLines: () => `X-Cache: HIT\r\nAge: ${peekedAge}\r\n`,
  };
}

/** What a cache owes its clients: where the answer is from and how old it is. */
function cacheHeaders(exchange: Exchange, target: ProxyTarget, state: { cache: CacheState; ageSeconds: number }): string[] {
  exchange.cache = state.cache;
  const headers = ["X-Cache", state.cache, "Age", String(state.ageSeconds)];
  if (target.namespace !== null) headers.push("OCI-Namespace", target.namespace);
  return headers;
}

/** Errors tell it too: a remembered absence is not a fresh one. */
async function withCacheState<T>(exchange: Exchange, target: ProxyTarget, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof SlipwayError)) throw error;
    const isNegative = (error.detail as { cache?: string } | undefined)?.cache === "NEGATIVE";
    throw withHeaders(error, cacheHeaders(exchange, target, { cache: isNegative ? "NEGATIVE" : "MISS", ageSeconds: 0 }));
  }
}

async function readManifest(exchange: Exchange, target: ProxyTarget, { manifests }: ProxyContentServices): Promise<void> {
  const reference = exchange.route?.reference ?? "";
  if (reference.includes(":")) requireDigest(reference);
  if (parseReference(reference) === null) throw new SlipwayError("MANIFEST_UNKNOWN", { detail: { reference } });
  // Who only looks at the head asks for the content by its digest next, perhaps in another process.
  const served = await withCacheState(exchange, target, () =>
    exchange.isHead ? manifests.get(target, reference, exchange.signal) : manifests.answer(target, reference, exchange.signal),
  );
  sendProxiedManifest(exchange, served.manifest, cacheHeaders(exchange, target, served));
}

function sendProxiedManifest(exchange: Exchange, manifest: StoredManifest, extra: readonly string[]): void {
  const headers = [...manifestHeaders(manifest), ...extra];
  if (matchesEntityTag(exchange.req.headers["if-none-match"], manifest.digest)) exchange.send(304, headers.slice(2));
  else exchange.send(200, headers, manifest.bytes);
}

async function readBlob(
  exchange: Exchange,
  target: ProxyTarget,
  { services, sender }: { services: ProxyContentServices; sender: BlobSender },
): Promise<void> {
  const digest = exchange.route?.reference ?? "";
  requireDigest(digest);
  if (exchange.isHead) {
    const { size, cache } = await withCacheState(exchange, target, () => services.blobs.stat(target, digest, exchange.signal));
    const extra = cacheHeaders(exchange, target, { cache, ageSeconds: 0 });
    exchange.begin(200, [...blobHeaders(digest), ...extra, "Content-Length", String(size)]);
    exchange.res.end();
    return;
  }
  const opened = await withCacheState(exchange, target, () => services.blobs.open(target, digest, exchange.signal));
  const extra = cacheHeaders(exchange, target, { cache: opened.kind === "stored" ? "HIT" : "MISS", ageSeconds: 0 });
  if (opened.kind === "stored") await answerBlob(exchange, { ...opened.blob, digest }, { sender, extra });
  else await sendFilling(exchange, { digest, blob: opened.blob, extra }, sender);
}

/** Bytes as they arrive. When the fill fails, the connection is broken: a client must never take a part for the whole. */
async function sendFilling(
  exchange: Exchange,
  { digest, blob, extra }: { digest: string; blob: OpenBlob; extra: readonly string[] },
  { blocks }: BlobSender,
): Promise<void> {
  const { headers: asked } = exchange.req;
  if (matchesEntityTag(asked["if-none-match"], digest)) {
    exchange.send(304, [...blobHeaders(digest), ...extra].slice(2));
    return;
  }
  const isPartial = asked["if-range"] === undefined || asked["if-range"] === `"${digest}"`;
  const range = parseRange(isPartial ? asked.range : undefined, blob.size);
  if (range.kind === "unsatisfiable") {
    throw withHeaders(new SlipwayError("RANGE_INVALID"), ["Content-Range", `bytes */${blob.size}`, "Accept-Ranges", "bytes"]);
  }
  const start = range.kind === "full" ? 0 : range.start;
  const end = range.kind === "full" ? blob.size : range.end + 1;
  const headers = [...blobHeaders(digest), ...extra, "Content-Length", String(end - start)];
  if (range.kind !== "full") headers.push("Content-Range", `bytes ${start}-${end - 1}/${blob.size}`);
  exchange.begin(range.kind === "full" ? 200 : 206, headers);
  exchange.res.flushHeaders();
  const write = blockWriter(exchange.res);
  blocks.enter();
  try {
    for await (const chunk of blob.read({ start, end }, { blocks, signal: exchange.signal })) {
      await write(chunk);
      exchange.bytes += chunk.length;
    }
    exchange.res.end();
  } catch (error) {
    exchange.error = error;
    exchange.res.destroy();
  } finally {
    blocks.leave();
  }
}

async function listTags(exchange: Exchange, target: ProxyTarget, { lists }: ProxyContentServices): Promise<void> {
  const page = pageRequest(exchange);
  const listed = await withCacheState(exchange, target, () => lists.tags(target, page.limit, page.last));
  const link =
    page.limit === 0 ? [] : nextLink(`/v2/${target.requested}/tags/list`, exchange, { limit: page.limit, last: listed.page.next });
  exchange.sendJson(200, [...link, ...cacheHeaders(exchange, target, listed)], { name: target.requested, tags: listed.page.tags });
}

async function listReferrers(exchange: Exchange, target: ProxyTarget, { lists }: ProxyContentServices): Promise<void> {
  const digest = exchange.route?.reference ?? "";
  requireDigest(digest);
  const artifactType = exchange.parameter("artifactType")?.replaceAll(" ", "+") || null;
  const { limit, last } = pageRequest(exchange, LIMITS.referrersPageSize);
  const listed = await withCacheState(exchange, target, () => lists.referrers(target, digest, { artifactType, limit, last }));
  const extra = cacheHeaders(exchange, target, listed);
  sendReferrers(exchange, { requested: target.requested, digest, limit, artifactType, page: listed.page, extra });
}

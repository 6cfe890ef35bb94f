/** Tag lists and referrers: paging with guards against registries that page in circles, and the tag schema where the API is missing. */
import { z } from "zod";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { referrersTag } from "../oci/digests.ts";
import type { Exchange } from "./exchange.ts";
import { parseNextLink } from "./link-header.ts";
import type { ManifestReader } from "./manifests.ts";
import { MANIFEST_TYPES, parseObject } from "./media-type.ts";
import { blobPath, isDigest, isLegalTag, isRepositoryPath, repositoryPath, scopeOf } from "./names.ts";
import type { Quirks } from "./quirks.ts";
import type { CollectedAnswer, UpstreamRequest } from "./request.ts";
import type { CallOptions, CatalogPage, Descriptor, ReferrersAnswer, TagPage } from "./types.ts";

export interface ListingReaderOptions {
  readonly exchange: Exchange;
  readonly manifests: ManifestReader;
  readonly quirks: Quirks;
  readonly origin: string;
}

export interface ListTagsOptions extends CallOptions {
  readonly n?: number | undefined;
  readonly last?: string | undefined;
  /** `next` of the page before; n and last are in it. */
  readonly cursor?: string | undefined;
}

export interface ListCatalogOptions extends CallOptions {
  readonly n?: number | undefined;
  /** `next` of the page before; n is in it. */
  readonly cursor?: string | undefined;
}

export interface ListReferrersOptions extends CallOptions {
  readonly artifactType?: string | undefined;
}

/** ECR refuses more. */
const MAX_PAGE = 1000;
const MAX_LIST_BYTES = 16 * 1024 * 1024;
const MAX_TAG_PAGES = 10_000;
const MAX_REFERRER_PAGES = 100;
const CATALOG_PATH = "/v2/_catalog";

const DescriptorDocument = z.object({
  mediaType: z.string().max(255),
  digest: z.string().refine(isDigest),
  size: z.number().int().nonnegative(),
  artifactType: z.string().max(255).optional().catch(undefined),
  annotations: z.record(z.string(), z.string()).optional().catch(undefined),
});

export class ListingReader {
  readonly #options: ListingReaderOptions;

  constructor(options: ListingReaderOptions) {
    this.#options = options;
  }

  async catalog(options: ListCatalogOptions = {}): Promise<CatalogPage> {
    const n = Math.min(MAX_PAGE, Math.max(1, options.n ?? MAX_PAGE));
    const cursor = options.cursor === undefined ? null : checkedCursor(options.cursor, CATALOG_PATH);
    const answer = await this.#options.exchange.collect(
      {
        kind: "catalog",
        method: "GET",
        target: { path: cursor ?? `${CATALOG_PATH}?${new URLSearchParams({ n: String(n) })}` },
        headers: { accept: "application/json" },
        scopes: ["registry:catalog:*"],
        lane: "meta",
        absent: "UNSUPPORTED",
        call: options,
        repeatable: true,
      },
      MAX_LIST_BYTES,
    );
    const document = answer.status === 200 ? parseObject(answer.bytes) : null;
    const list = document?.["repositories"] ?? [];
    if (!document || "errors" in document || !Array.isArray(list)) throw invalid(answer, "CATALOG");
    return { repositories: list.filter(isRepositoryPath), next: nextPage(answer, { path: CATALOG_PATH, list, n }) };
  }

  async tags(repository: string, options: ListTagsOptions = {}): Promise<TagPage> {
    const path = `${repositoryPath(repository)}/tags/list`;
    const n = Math.min(MAX_PAGE, Math.max(1, options.n ?? MAX_PAGE));
    const query = new URLSearchParams({ n: String(n), ...(options.last === undefined ? {} : { last: options.last }) });
    const cursor = options.cursor === undefined ? null : checkedCursor(options.cursor, path);
    const answer = await this.#options.exchange.collect(
      { ...this.#request(repository, options), kind: "tags", target: { path: cursor ?? `${path}?${query}` } },
      MAX_LIST_BYTES,
    );
    const document = answer.status === 200 ? parseObject(answer.bytes) : null;
    const list = document?.["tags"] ?? [];
    if (!document || "errors" in document || !Array.isArray(list)) throw invalid(answer, "TAGS");
    const tags = list.filter(isLegalTag);
    return { tags, next: nextPage(answer, { path, list, n }), skipped: list.length - tags.length };
  }

  /** All pages, one after the other. Ends instead of going round for ever. */
  async *allTags(repository: string, options: ListTagsOptions = {}): AsyncGenerator<TagPage> {
    const seen = new Set<string>();
    let cursor = options.cursor;
    let before = "";
    for (let pages = 0; pages < MAX_TAG_PAGES; pages += 1) {
      const page = await this.tags(repository, { ...options, cursor });
      const edges = `${page.tags[0]} ${page.tags.at(-1)} ${page.tags.length}`;
      // A registry that ignores `last` sends the same page again.
      if (page.tags.length > 0 && edges === before) return;
      before = edges;
      yield page;
      if (page.next === null || seen.has(page.next)) return;
      seen.add(page.next);
      cursor = page.next;
    }
  }

  async referrers(repository: string, digest: string, options: ListReferrersOptions = {}): Promise<ReferrersAnswer> {
    const { quirks, origin } = this.#options;
    const wanted = (list: readonly Descriptor[]): Descriptor[] =>
      options.artifactType === undefined ? [...list] : list.filter((each) => each.artifactType === options.artifactType);
    if (!quirks.has(origin, "referrersUnsupported")) {
      const found = await this.#referrersByApi(repository, digest, options);
      if (found) {
        quirks.note(origin, "referrersSupported");
        return { manifests: wanted(found), source: "api" };
      }
      // A repository that is not there is answered 404 by registries that have the API, too.
      if (!quirks.has(origin, "referrersSupported")) quirks.note(origin, "referrersUnsupported");
    }
    return { manifests: wanted(await this.#referrersByTag(repository, digest, options)), source: "tag" };
  }

  /** Null when what comes back is no referrers list: the API is missing or something else sits in its place. */
  async #referrersByApi(repository: string, digest: string, options: ListReferrersOptions): Promise<Descriptor[] | null> {
    const path = blobPath(repository, digest).replace("/blobs/", "/referrers/");
    const query = options.artifactType === undefined ? "" : `?${new URLSearchParams({ artifactType: options.artifactType })}`;
    const manifests: Descriptor[] = [];
    const seen = new Set<string>();
    for (let next: string | null = path + query; next !== null && !seen.has(next) && seen.size < MAX_REFERRER_PAGES;) {
      seen.add(next);
      let answer: CollectedAnswer;
      try {
        answer = await this.#options.exchange.collect(
          { ...this.#request(repository, options), kind: "referrers", target: { path: next }, pass: [400, 401, 403, 404, 405, 406, 501] },
          MAX_LIST_BYTES,
        );
      } catch (error) {
        if (isSlipwayError(error, "UPSTREAM_INVALID", "UPSTREAM_FORBIDDEN_ADDRESS", "UPSTREAM_REFUSED")) return null;
        throw error;
      }
      const page = answer.status === 200 ? readIndex(answer.bytes) : null;
      if (!page) return null;
      manifests.push(...page);
      next = nextLink(answer, path);
    }
    return manifests;
  }

  async #referrersByTag(repository: string, digest: string, call: CallOptions): Promise<Descriptor[]> {
    try {
      const answer = await this.#options.manifests.get(repository, referrersTag(digest), call);
      if (answer.notModified) return [];
      // Some registries resolve such a tag to the subject itself.
      const isIndex = answer.mediaType === MANIFEST_TYPES[0];
      return isIndex && answer.digest !== digest ? (readIndex(answer.bytes) ?? []) : [];
    } catch (error) {
      if (isSlipwayError(error, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")) return [];
      throw error;
    }
  }

  #request(repository: string, call: CallOptions): Omit<UpstreamRequest, "kind" | "target"> {
    return {
      method: "GET",
      headers: { accept: `application/json, ${MANIFEST_TYPES[0]}` },
      scopes: [scopeOf(repository, "pull")],
      lane: "meta",
      absent: "NAME_UNKNOWN",
      call,
      repeatable: true,
    };
  }
}

function invalid(answer: CollectedAnswer, reason: string): SlipwayError {
  return new SlipwayError("UPSTREAM_INVALID", { detail: { host: answer.url.host, status: answer.status, reason } });
}

function readIndex(bytes: Buffer): Descriptor[] | null {
  const document = parseObject(bytes);
  if (!document || document["schemaVersion"] !== 2 || !Array.isArray(document["manifests"])) return null;
  return document["manifests"].flatMap((each) => DescriptorDocument.safeParse(each).data ?? []);
}

/**
 * Path and query of the next page. Registries behind proxies write wrong hosts and schemes into it, so it is always asked from the
 * registry that we know.
 */
function nextLink(answer: CollectedAnswer, path: string): string | null {
  const link = parseNextLink(answer.headerAll("link"));
  if (link === null || !URL.canParse(link, answer.url.href)) return null;
  const url = new URL(link, answer.url);
  const at = url.pathname.lastIndexOf(path);
  return at === -1 || at + path.length !== url.pathname.length ? null : path + url.search;
}

function nextPage(
  answer: CollectedAnswer,
  page: { readonly path: string; readonly list: readonly unknown[]; readonly n: number },
): string | null {
  const link = nextLink(answer, page.path);
  if (link !== null) return link;
  const last = page.list.at(-1);
  if (page.list.length !== page.n || typeof last !== "string") return null;
  return `${page.path}?${new URLSearchParams({ n: String(page.n), last })}`;
}

function checkedCursor(cursor: string, path: string): string {
  if (cursor.length > 8192 || !(cursor === path || cursor.startsWith(`${path}?`)))
    throw new SlipwayError("BAD_REQUEST", { message: "not a page cursor" });
  return cursor;
}

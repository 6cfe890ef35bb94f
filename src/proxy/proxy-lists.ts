/**
 * Lists of proxy projects: tags and referrers, as upstream gives them, merged with what is kept here, remembered for a while, and served stale when
 * upstream is in trouble.
 */
import type { Project, ReferrerDescriptor, ReferrersPage, RegistryReader, TagPage } from "../catalog/registry.ts";
import type { Clock } from "../core/clock.ts";
import { isSlipwayError } from "../core/errors.ts";
import type { Queryable } from "../db/pool.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import type { TagPolicy } from "./plan/freshness.ts";
import type { CacheState, ProxyName } from "./proxy-manifests.ts";

export interface ProxyListsOptions {
  readonly reader: RegistryReader;
  readonly db: Queryable;
  readonly clientOf: (project: Project) => Promise<UpstreamClient>;
  readonly policyOf: (project: Project) => TagPolicy;
  readonly clock: Clock;
}

export interface ListedPage<Page> {
  readonly page: Page;
  readonly cache: CacheState;
  readonly ageSeconds: number;
}

interface KeptList<Item> {
  readonly items: readonly Item[];
  readonly checkedAt: number;
  readonly freshUntil: number;
}

/** A repository with more is listed up to here; the rest is only a request to upstream away by name. */
const MAX_TAGS = 100_000;
const PAGE = 1_000;
const LOCAL_REFERRERS = 1_000;

export class ProxyLists {
  readonly #options: ProxyListsOptions;
  readonly #running = new Map<string, Promise<KeptList<unknown>>>();

  constructor(options: ProxyListsOptions) {
    this.#options = options;
  }

  async tags(name: ProxyName, limit: number, last: string | null): Promise<ListedPage<TagPage>> {
    const { list, cache } = await this.#list<string>(name, "tags", async (client) => {
      const found = new Set<string>();
      for (let next: string | null | undefined; next !== null && found.size < MAX_TAGS;) {
        const page = await client.listTags(name.upstreamRepository, {
          n: PAGE,
          ...(next === undefined ? {} : { cursor: next }),
          priority: "revalidation",
        });
        for (const tag of page.tags) found.add(tag);
        next = page.next;
      }
      return [...found];
    });
    const local = await this.#localTags(name);
    // Upstreams order as they like; pages of ours are in byte order.
    const all = [...new Set([...list.items, ...local])].toSorted(byBytes);
    const rest = last === null ? all : all.filter((tag) => byBytes(tag, last) > 0);
    const tags = rest.slice(0, limit);
    return { page: { tags, next: rest.length > limit ? (tags.at(-1) ?? null) : null }, cache, ageSeconds: this.#age(list) };
  }

  async referrers(
    name: ProxyName,
    digest: string,
    options: { artifactType: string | null; limit: number; last: string | null },
  ): Promise<ListedPage<ReferrersPage>> {
    const { list, cache } = await this.#list<ReferrerDescriptor>(name, `referrers:${digest}`, async (client) => {
      const answer = await client.listReferrers(name.upstreamRepository, digest, { priority: "revalidation" });
      return answer.manifests as readonly ReferrerDescriptor[];
    });
    const local = await this.#options.reader.listReferrers({
      repository: name.repository,
      digest,
      artifactType: null,
      limit: LOCAL_REFERRERS,
      last: null,
    });
    const byDigest = new Map([...list.items, ...local.manifests].map((item) => [item.digest, item]));
    const matching = [...byDigest.values()]
      .filter((item) => options.artifactType === null || item.artifactType === options.artifactType)
      .filter((item) => options.last === null || item.digest > options.last)
      .toSorted((a, b) => byBytes(a.digest, b.digest));
    const manifests = matching.slice(0, options.limit);
    const next = matching.length > options.limit ? (manifests.at(-1)?.digest ?? null) : null;
    return { page: { manifests, next }, cache, ageSeconds: this.#age(list) };
  }

  async #localTags(name: ProxyName): Promise<string[]> {
    const tags: string[] = [];
    for (let last: string | null = null; tags.length < MAX_TAGS;) {
      const page = await this.#options.reader.listTags(name.repository, PAGE, last);
      tags.push(...page.tags);
      if (page.next === null) break;
      last = page.next;
    }
    return tags;
  }

  async #list<Item>(
    name: ProxyName,
    kind: string,
    ask: (client: UpstreamClient) => Promise<readonly Item[]>,
  ): Promise<{ list: KeptList<Item>; cache: CacheState }> {
    const policy = this.#options.policyOf(name.project);
    const kept = await this.#find<Item>(name, kind);
    const now = this.#options.clock.now();
    if (policy.mode === "offline") return { list: kept ?? { items: [], checkedAt: now, freshUntil: now }, cache: "HIT" };
    if (kept && now < kept.freshUntil && policy.mode !== "always-check") return { list: kept, cache: "HIT" };
    try {
      return { list: await this.#refresh(name, kind, ask), cache: kept ? "REVALIDATED" : "MISS" };
    } catch (error) {
      const isGone = isSlipwayError(error, "NAME_UNKNOWN", "NOT_FOUND") && !policy.keepDeleted;
      if (kept && !isGone) return { list: kept, cache: "STALE" };
      // Something of it may be here although upstream never listed it.
      if (await this.#options.reader.repositoryExists(name.repository))
        return { list: { items: [], checkedAt: now, freshUntil: now }, cache: "STALE" };
      throw error;
    }
  }

  #refresh<Item>(name: ProxyName, kind: string, ask: (client: UpstreamClient) => Promise<readonly Item[]>): Promise<KeptList<Item>> {
    const key = `${name.repository} ${kind}`;
    const running = this.#running.get(key) as Promise<KeptList<Item>> | undefined;
    if (running) return running;
    const started = this.#askAndKeep(name, kind, ask).finally(() => this.#running.delete(key));
    this.#running.set(key, started);
    return started;
  }

  async #askAndKeep<Item>(
    name: ProxyName,
    kind: string,
    ask: (client: UpstreamClient) => Promise<readonly Item[]>,
  ): Promise<KeptList<Item>> {
    const client = await this.#options.clientOf(name.project);
    const { ttlMs, negativeTtlMs } = this.#options.policyOf(name.project);
    const items = await ask(client).catch((error: unknown) => {
      // A digest without referrers and a repository without the list are the same to most registries.
      if (kind !== "tags" && isSlipwayError(error, "MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND")) return [];
      throw error;
    });
    const freshMs = items.length === 0 ? Math.min(ttlMs, negativeTtlMs) : ttlMs;
    const now = this.#options.clock.now();
    await this.#options.db.query(
      `INSERT INTO proxy_lists (project_id, repository, kind, items, checked_at, fresh_until) VALUES ($1, $2, $3, $4, now(), now() + $5 * interval '1 ms')
       ON CONFLICT (project_id, repository, kind) DO UPDATE SET items = EXCLUDED.items, checked_at = EXCLUDED.checked_at, fresh_until = EXCLUDED.fresh_until`,
      [name.project.id, name.repository, kind, JSON.stringify(items), freshMs],
    );
    return { items, checkedAt: now, freshUntil: now + freshMs };
  }

  async #find<Item>(name: ProxyName, kind: string): Promise<KeptList<Item> | null> {
    const { rows } = await this.#options.db.query<{ items: Item[]; checked_at: Date; fresh_until: Date }>(
      "SELECT items, checked_at, fresh_until FROM proxy_lists WHERE project_id = $1 AND repository = $2 AND kind = $3",
      [name.project.id, name.repository, kind],
    );
    const row = rows[0];
    return row ? { items: row.items, checkedAt: row.checked_at.getTime(), freshUntil: row.fresh_until.getTime() } : null;
  }

  #age(list: KeptList<unknown>): number {
    return Math.max(0, Math.floor((this.#options.clock.now() - list.checkedAt) / 1000));
  }
}

function byBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

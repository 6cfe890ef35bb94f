/** Puts pull-through together over the catalog, storage and the upstream client. */
import type { Catalog } from "../catalog/open-catalog.ts";
import type { Project } from "../catalog/registry.ts";
import type { Encryption } from "../auth/encryption.ts";
import type { Clock } from "../core/clock.ts";
import type { Database } from "../db/pool.ts";
import type { BlobStore } from "../storage/blob-store.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { UpstreamPool } from "../upstream/pool.ts";
import { DEFAULT_FILL_LIMITS } from "./fill/fill.ts";
import { FillEngine } from "./fill/fill-engine.ts";
import type { UnreadPolicy } from "./fill/unread-fills.ts";
import { FillLeases } from "./fill/fill-lease.ts";
import type { ProcessIdentity } from "./fill/fill-lease.ts";
import { RemoteFills } from "./fill/remote-fills.ts";
import { Scribes } from "./fill/scribe.ts";
import { parseProxyPolicy } from "./plan/policy.ts";
import type { ProxyDefaults, ProxyPolicy } from "./plan/policy.ts";
import { blobsOf, Prefetcher } from "./prefetch.ts";
import { ProxyBlobs } from "./proxy-blobs.ts";
import { ProxyLists } from "./proxy-lists.ts";
import { ProxyManifests } from "./proxy-manifests.ts";
import { PushThrough } from "./push-through.ts";
import { RegistryStore } from "./registry-store.ts";
import { NameResolver } from "./resolver.ts";
import { TagFreshnessStore } from "./tag-freshness.ts";
import { TagHeat } from "./tag-heat.ts";
import { Upstreams } from "./upstreams.ts";
import { CacheUsage } from "./usage.ts";

export interface ProxyOptions {
  readonly catalog: Catalog;
  readonly database: Database;
  readonly store: BlobStore;
  readonly encryption: Encryption;
  readonly pool: UpstreamPool;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly invalidations: {
    publish(scopes: readonly string[]): Promise<void>;
    trusted(): boolean;
    subscribe(listener: (scopes: readonly string[]) => void): () => void;
  };
  readonly self: ProcessIdentity;
  readonly internalKey: Buffer;
  readonly stagingFolder: string;
  readonly mirrorHost: string | null;
  readonly defaults: ProxyDefaults;
  readonly maxFills: number;
  readonly unread: UnreadPolicy;
}

export interface Proxy {
  readonly registries: RegistryStore;
  readonly upstreams: Upstreams;
  readonly resolver: NameResolver;
  readonly manifests: ProxyManifests;
  readonly blobs: ProxyBlobs;
  readonly lists: ProxyLists;
  readonly pushThrough: PushThrough;
  readonly fills: FillEngine;
  readonly leases: FillLeases;
  readonly usage: CacheUsage;
  readonly heat: TagHeat;
  readonly prefetcher: Prefetcher;
  policyOf(project: Project): ProxyPolicy;
  /** Where other hosts reach this process. */
  setAddress(address: string): void;
  readonly internalKey: Buffer;
  close(): Promise<void>;
}

export function createProxy(options: ProxyOptions): Proxy {
  const { catalog, database, clock, logger } = options;
  const { reader } = catalog;
  const registries = new RegistryStore(database, options.encryption, options.invalidations);
  const upstreams = new Upstreams({
    store: registries,
    db: database,
    pool: options.pool,
    clock,
    mirrorHost: options.mirrorHost,
    invalidations: options.invalidations,
  });
  const policyOf = rememberPolicies(options.defaults);
  const usage = new CacheUsage(database, logger);
  const heat = new TagHeat(database, logger);
  const leases = new FillLeases(database, options.self);
  const fills = createFillEngine(options, { leases, usage });
  const freshness = new TagFreshnessStore(database, clock, options.invalidations);
  const content = createContent(options, { upstreams, policyOf, usage, heat, fills, freshness });
  return {
    registries,
    upstreams,
    resolver: new NameResolver({
      reader,
      upstreams,
      rulesOf: (project) => policyOf(project).rules,
      onMirrored: (requested) => logger.info({ requested }, "a plain name went to the mirror upstream"),
    }),
    ...content,
    fills,
    leases,
    usage,
    heat,
    policyOf,
    setAddress: (address) => {
      options.self.address = address;
    },
    internalKey: options.internalKey,
    close: async () => {
      await Promise.all([fills.close(), content.manifests.settled()]);
      await Promise.all([usage.close(), heat.close()]);
      upstreams.close();
      freshness.close();
    },
  };
}

interface ContentParts {
  readonly upstreams: Upstreams;
  readonly policyOf: (project: Project) => ProxyPolicy;
  readonly usage: CacheUsage;
  readonly heat: TagHeat;
  readonly fills: FillEngine;
  readonly freshness: TagFreshnessStore;
}

function createContent(
  { catalog, database, clock, logger, store }: ProxyOptions,
  { upstreams, policyOf, usage, heat, fills, freshness }: ContentParts,
): Pick<Proxy, "manifests" | "blobs" | "lists" | "prefetcher" | "pushThrough"> {
  const { reader, writer } = catalog;
  const common = {
    reader,
    writer,
    db: database,
    store,
    clock,
    logger,
    fills,
    freshness,
    findLinked: (repository: string, digest: string) => catalog.blobs.findLinked(repository, digest),
    clientOf: (project: Project) => upstreams.clientOf(project),
    policyOf: (project: Project) => policyOf(project).tags,
  };
  const blobs = new ProxyBlobs({
    ...common,
    isOffline: (project) => policyOf(project).tags.mode === "offline",
    negativeMs: (project) => policyOf(project).tags.negativeTtlMs,
    onServed: (digest) => usage.touch(digest),
  });
  const prefetcher = new Prefetcher({ ...common, blobs, manifests: () => manifests, isOn: (name) => policyOf(name.project).prefetch });
  const manifests = new ProxyManifests({
    ...common,
    onPulled: (repository, reference, digest) => {
      usage.touch(digest);
      if (!reference.includes(":")) heat.pulled(repository, reference);
    },
    onArrived: (name, { manifest, parsed }) => {
      blobs.describe(name.repository, blobsOf(parsed));
      return prefetcher.onServed(name, manifest, parsed);
    },
    onServed: (name, manifest) => prefetcher.onServed(name, manifest),
    onBrought: (name, manifest) => {
      usage.touch(manifest.digest);
      void prefetcher.onServed(name, manifest);
    },
  });
  return { manifests, blobs, prefetcher, lists: new ProxyLists(common), pushThrough: new PushThrough(common) };
}

function createFillEngine(options: ProxyOptions, { leases, usage }: { leases: FillLeases; usage: CacheUsage }): FillEngine {
  return new FillEngine({
    writer: options.catalog.content,
    store: options.store,
    findLinked: (repository, digest) => options.catalog.blobs.findLinked(repository, digest),
    leases,
    remote: new RemoteFills({ key: options.internalKey, clock: options.clock, folder: options.stagingFolder }),
    self: options.self,
    folder: options.stagingFolder,
    scribes: new Scribes(),
    limits: DEFAULT_FILL_LIMITS,
    maxFills: options.maxFills,
    unread: options.unread,
    logger: options.logger,
    onStored: (digest) => usage.touch(digest),
  });
}

/** Parsed once for each version of a project's row. */
function rememberPolicies(defaults: ProxyDefaults): (project: Project) => ProxyPolicy {
  const known = new WeakMap<Project, ProxyPolicy>();
  return (project) => {
    let policy = known.get(project);
    if (!policy) {
      policy = parseProxyPolicy(project.metadata, defaults);
      known.set(project, policy);
    }
    return policy;
  };
}

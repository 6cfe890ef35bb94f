/**
 * Manifests of proxy projects. What to do with a tag is decided in plan/freshness.ts; here it is done: ask upstream once for any number of waiters, keep
 * exact bytes, and let nothing that upstream does take away what is here.
 */
import type { Principal } from "../auth/principal.ts";
import type { Project, RegistryReader, RegistryWriter, StoredManifest } from "../catalog/registry.ts";
import { LRUCache } from "lru-cache";
import type { Clock } from "../core/clock.ts";
import { sleep } from "../core/clock.ts";
import { isSlipwayError, SlipwayError, toSlipwayError } from "../core/errors.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import type { Manifest, Priority } from "../upstream/types.ts";
import { CHECKING, decideTag, isBeingChecked, mayServeStale } from "./plan/freshness.ts";
import type { TagPolicy } from "./plan/freshness.ts";
import type { TagFreshness, TagFreshnessStore, TagKey } from "./tag-freshness.ts";

export type CacheState = "HIT" | "MISS" | "STALE" | "REVALIDATED" | "NEGATIVE";

export interface ProxyName {
  readonly project: Project;
  readonly repository: string;
  readonly upstreamRepository: string;
}

export interface ProxiedManifest {
  readonly manifest: StoredManifest;
  readonly cache: CacheState;
  /** Since upstream last confirmed it. */
  readonly ageSeconds: number;
}

export interface ProxyManifestsOptions {
  readonly reader: RegistryReader;
  readonly writer: Pick<RegistryWriter, "putManifest" | "deleteTag">;
  readonly freshness: TagFreshnessStore;
  readonly clientOf: (project: Project) => Promise<UpstreamClient>;
  readonly policyOf: (project: Project) => TagPolicy;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Told of a manifest that came from far: what it names can be on its way while the manifest is stored. */
  readonly onArrived: (name: ProxyName, manifest: StoredManifest) => void;
  /** Told of what clients pull; must cost next to nothing. */
  readonly onPulled: (repository: string, reference: string, digest: string) => void;
  readonly onServed: (name: ProxyName, manifest: StoredManifest) => void;
  /** Told of what came from upstream before anybody asked for it. */
  readonly onBrought: (name: ProxyName, manifest: StoredManifest) => void;
}

const FILLER: Principal = { kind: "user", key: "system:proxy", id: 0, name: "proxy", sysadmin: true, scopes: null };
const FAILURE_RETRY_MS = 3_000;
const MAX_RETRY_MS = 30_000;
/** Longer than upstream may take to answer. */
const CLAIM_MS = 12_000;
const CLAIM_POLL_MS = 50;
/** With an upstream that takes longer to answer, the manifest is stored before the first blob comes; from a nearer one, blobs that are already coming would hold that up. */
const FAR_MS = 20;
const ABSENT: ReadonlySet<string> = new Set(["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND", "BLOB_UNKNOWN"]);

export interface CheckResult {
  readonly manifest: StoredManifest;
  readonly cache: CacheState;
}

interface RunningCheck {
  readonly startedAt: number;
  readonly result: Promise<CheckResult>;
}

interface TagQuestion {
  readonly key: TagKey;
  /** The row, whatever it says. */
  readonly seen: TagFreshness | null;
  /** The row when what it names is held. */
  readonly known: TagFreshness | null;
  readonly priority: Priority;
}

export class ProxyManifests {
  readonly #options: ProxyManifestsOptions;
  readonly #checks = new Map<string, RunningCheck>();
  /** Digests that upstream does not have. */
  readonly #absent = new LRUCache<string, true>({ max: 20_000 });

  constructor(options: ProxyManifestsOptions) {
    this.#options = options;
  }

  /** Hot path: from memory, and only what is fresh. */
  peek(name: ProxyName, reference: string): ProxiedManifest | undefined {
    const manifest = this.#options.reader.peekManifest(name.repository, reference);
    if (manifest === undefined) return undefined;
    if (reference.includes(":")) {
      this.#options.onPulled(name.repository, reference, manifest.digest);
      return { manifest, cache: "HIT", ageSeconds: 0 };
    }
    const known = this.#options.freshness.peek(name.repository, reference);
    if (known === undefined || known.digest !== manifest.digest) return undefined;
    const now = this.#options.clock.now();
    const decision = decideTag(known, this.#options.policyOf(name.project), now);
    if (decision.kind !== "serve" || decision.cache !== "HIT") return undefined;
    this.#options.onPulled(name.repository, reference, manifest.digest);
    return { manifest, cache: decision.cache, ageSeconds: ageOf(known, now) };
  }

  /** Drops what this process remembers of a tag; the row decides. */
  forget(repository: string, tag: string): void {
    this.#options.freshness.forget(repository, tag);
  }

  async get(name: ProxyName, reference: string, signal?: AbortSignal): Promise<ProxiedManifest> {
    const served = reference.includes(":") ? await this.#byDigest(name, reference) : await this.#byTag(name, reference, signal);
    this.#options.onPulled(name.repository, reference, served.manifest.digest);
    this.#options.onServed(name, served.manifest);
    return served;
  }

  /** Asks upstream now about a tag, for work that no client waits for; what is never asked about is told as it is here. */
  async refresh(name: ProxyName, tag: string): Promise<CheckResult> {
    const { mode } = this.#options.policyOf(name.project);
    const key: TagKey = { projectId: name.project.id, repository: name.repository, tag };
    const seen = await this.#options.freshness.find(key);
    const held = await this.#held(name, seen);
    if (held && (mode === "local-first" || mode === "offline")) return { manifest: held, cache: "HIT" };
    if (mode === "offline") throw new SlipwayError("MANIFEST_UNKNOWN", { detail: { cache: "NEGATIVE" } });
    const result = await this.#check(name, { key, seen, known: held ? seen : null, priority: "revalidation" }).result;
    if (result.cache === "MISS") this.#options.onBrought(name, result.manifest);
    return result;
  }

  async #byDigest(name: ProxyName, digest: string): Promise<ProxiedManifest> {
    const held = await this.#options.reader.findManifest(name.repository, digest);
    if (held) return { manifest: held, cache: "HIT", ageSeconds: 0 };
    const policy = this.#options.policyOf(name.project);
    const key = `${name.repository}@${digest}`;
    if (policy.mode === "offline" || this.#absent.get(key)) throw new SlipwayError("MANIFEST_UNKNOWN", { detail: { cache: "NEGATIVE" } });
    try {
      return { ...(await this.#once(key, () => this.#fetchDigest(name, digest)).result), ageSeconds: 0 };
    } catch (error) {
      if (isAbsent(error)) this.#absent.set(key, true, { ttl: policy.negativeTtlMs });
      throw error;
    }
  }

  async #fetchDigest(name: ProxyName, digest: string): Promise<CheckResult> {
    const held = await this.#options.reader.findManifest(name.repository, digest);
    return held ? { manifest: held, cache: "HIT" } : this.#fetch(name, digest, "interactive");
  }

  async #byTag(name: ProxyName, tag: string, signal?: AbortSignal): Promise<ProxiedManifest> {
    const { freshness, clock } = this.#options;
    const policy = this.#options.policyOf(name.project);
    const key: TagKey = { projectId: name.project.id, repository: name.repository, tag };
    const remembered = freshness.peek(name.repository, tag);
    let known: TagFreshness | null = remembered ?? null;
    if (known === null || decideTag(known, policy, clock.now()).kind !== "serve") known = (await freshness.find(key)) ?? known;
    const decision = decideTag(known, policy, clock.now());
    if (decision.kind === "absent") throw new SlipwayError("MANIFEST_UNKNOWN", { detail: { cache: "NEGATIVE" } });
    if (decision.kind !== "check") {
      const held = await this.#held(name, known);
      if (held) {
        if (decision.kind === "serve-and-refresh") this.#refreshBehind(name, key, known);
        return { manifest: held, cache: decision.cache, ageSeconds: ageOf(known, clock.now()) };
      }
    }
    return this.#checked(name, { key, known, policy, waitMs: decision.kind === "check" ? decision.waitMs : null }, signal);
  }

  async #checked(
    name: ProxyName,
    { key, known, policy, waitMs }: { key: TagKey; known: TagFreshness | null; policy: TagPolicy; waitMs: number | null },
    signal?: AbortSignal,
  ): Promise<ProxiedManifest> {
    const held = await this.#held(name, known);
    const check = this.#check(name, { key, seen: known, known: held ? known : null, priority: held ? "revalidation" : "interactive" });
    check.result.catch(() => undefined);
    const stale = (): ProxiedManifest => ({
      manifest: held as StoredManifest,
      cache: "STALE",
      ageSeconds: ageOf(known, this.#options.clock.now()),
    });
    try {
      if (waitMs === null || held === null) return { ...(await check.result), ageSeconds: 0 };
      // Whoever comes while a check takes long already does not wait as long again.
      const left = Math.max(0, waitMs - (performance.now() - check.startedAt));
      const timer = new AbortController();
      const late = sleep(left, AbortSignal.any(signal ? [timer.signal, signal] : [timer.signal])).then(() => null);
      try {
        const result = await Promise.race([check.result, late]);
        return result ? { ...result, ageSeconds: 0 } : stale();
      } finally {
        timer.abort();
        late.catch(() => undefined);
      }
    } catch (error) {
      const failure = toSlipwayError(error);
      if (held === null || !mayServeStale(known, policy, { absent: isAbsent(failure) })) throw failure;
      return stale();
    }
  }

  async #held(name: ProxyName, known: TagFreshness | null): Promise<StoredManifest | null> {
    return known === null || known.digest === null ? null : this.#options.reader.findManifest(name.repository, known.digest);
  }

  #refreshBehind(name: ProxyName, key: TagKey, known: TagFreshness | null): void {
    this.#check(name, { key, seen: known, known, priority: "revalidation" }).result.then(
      // It moved: what it names now begins to arrive before the next client asks.
      ({ manifest, cache }) => cache === "MISS" && this.#options.onBrought(name, manifest),
      (error: unknown) =>
        this.#options.logger.debug({ repository: key.repository, tag: key.tag, error }, "a tag could not be checked behind"),
    );
  }

  /** One check of a tag at a time in this process, whoever waits for it. */
  #check(name: ProxyName, ask: TagQuestion): RunningCheck {
    return this.#once(`${name.repository}:${ask.key.tag}`, () => this.#ask(name, ask));
  }

  #once(key: string, work: () => Promise<CheckResult>): RunningCheck {
    const running = this.#checks.get(key);
    if (running) return running;
    const started = { startedAt: performance.now(), result: work().finally(() => this.#checks.delete(key)) };
    this.#checks.set(key, started);
    return started;
  }

  async #ask(name: ProxyName, question: TagQuestion): Promise<CheckResult> {
    const { key, known, priority } = question;
    const policy = this.#options.policyOf(name.project);
    if (known === null) {
      const meanwhile = await this.#firstAnswer(name, question, policy);
      if (meanwhile) return meanwhile;
    } else if (policy.mode === "revalidate" && !(await this.#options.freshness.claim(key, known, CLAIM_MS))) {
      return this.#awaitOther(name, key, known);
    }
    try {
      return (await this.#confirmed(name, question, policy)) ?? (await this.#fetch(name, key.tag, priority));
    } catch (error) {
      await this.#noteTrouble(name, { key, known, policy }, toSlipwayError(error));
      throw error;
    }
  }

  /** Nothing is held: of all processes the first asks, and its answer is everybody's. Null for the first, and for all when it failed. */
  async #firstAnswer(name: ProxyName, { key, seen }: TagQuestion, policy: TagPolicy): Promise<CheckResult | null> {
    const { freshness, clock } = this.#options;
    if (!isBeingChecked(seen, clock.now()) && (await freshness.claim(key, seen, CLAIM_MS))) return null;
    const until = performance.now() + CLAIM_MS;
    for (let cache: CacheState = "HIT"; ; cache = "MISS") {
      const known = await freshness.find(key);
      const decision = known && decideTag(known, policy, clock.now());
      if (decision?.kind === "absent") throw new SlipwayError("MANIFEST_UNKNOWN", { detail: { cache: "NEGATIVE" } });
      const held = decision?.kind === "serve" ? await this.#held(name, known) : null;
      if (held) return { manifest: held, cache };
      if (!isBeingChecked(known, clock.now()) || performance.now() > until) return null;
      await sleep(CLAIM_POLL_MS);
    }
  }

  /** Asks by HEAD whether the tag is still what we hold; null when it moved. */
  async #confirmed(name: ProxyName, { key, known, priority }: TagQuestion, policy: TagPolicy): Promise<CheckResult | null> {
    if (known === null || known.digest === null) return null;
    const client = await this.#options.clientOf(name.project);
    const head = await client.headManifest(name.upstreamRepository, key.tag, { priority });
    const held = head.digest === known.digest ? await this.#held(name, known) : null;
    if (!held) return head.manifest ? this.#keep(name, head.manifest, { key, policy }) : null;
    const { digest, mediaType, size, etag } = head;
    await this.#options.freshness.confirm(key, { digest, mediaType, size, etag, freshMs: policy.ttlMs, status: 200 });
    return { manifest: held, cache: "REVALIDATED" };
  }

  /** Another process asks just now: its answer is ours. Whoever waits gives up before we do. */
  async #awaitOther(name: ProxyName, key: TagKey, known: TagFreshness): Promise<CheckResult> {
    const until = performance.now() + this.#options.policyOf(name.project).waitMs;
    for (;;) {
      const now = await this.#options.freshness.find(key);
      if (now && now.lastStatus !== CHECKING && now.freshUntil !== known.freshUntil) {
        if (now.digest === null) throw new SlipwayError("MANIFEST_UNKNOWN", { detail: { cache: "NEGATIVE" } });
        if (now.lastStatus !== 200) throw new SlipwayError("UPSTREAM_UNAVAILABLE");
        const held = await this.#held(name, now);
        if (held) return { manifest: held, cache: "REVALIDATED" };
      }
      if (performance.now() > until) throw new SlipwayError("UPSTREAM_TIMEOUT");
      await sleep(CLAIM_POLL_MS);
    }
  }

  async #noteTrouble(
    name: ProxyName,
    { key, known, policy }: { key: TagKey; known: TagFreshness | null; policy: TagPolicy },
    error: SlipwayError,
  ): Promise<void> {
    const { freshness, writer } = this.#options;
    if (!isAbsent(error)) {
      const retryMs = Math.min(MAX_RETRY_MS, Math.max(FAILURE_RETRY_MS, (error.retryAfterSeconds ?? 0) * 1000));
      if (known) await freshness.noteFailure(key, known, { status: error.status, retryMs });
      else await freshness.release(key, error.status);
      return;
    }
    if (known?.digest && policy.keepDeleted) {
      await freshness.noteFailure(key, known, { status: 404, retryMs: policy.negativeTtlMs });
      return;
    }
    await freshness.confirm(key, { digest: null, mediaType: null, size: null, etag: null, freshMs: policy.negativeTtlMs, status: 404 });
    if (known?.digest) await writer.deleteTag(name.repository, key.tag, { principal: FILLER, origin: "fill" });
  }

  async #fetch(name: ProxyName, reference: string, priority: Priority): Promise<CheckResult> {
    const client = await this.#options.clientOf(name.project);
    const askedAt = performance.now();
    const answer = await client.getManifest(name.upstreamRepository, reference, { priority });
    const isFar = performance.now() - askedAt > FAR_MS;
    if (answer.notModified) throw new SlipwayError("UPSTREAM_INVALID");
    const policy = this.#options.policyOf(name.project);
    const key = reference.includes(":") ? null : { projectId: name.project.id, repository: name.repository, tag: reference };
    return this.#keep(name, answer, { key, policy, digest: key === null ? reference : null, isFar });
  }

  async #keep(
    name: ProxyName,
    manifest: Manifest,
    { key, policy, digest = null, isFar = false }: { key: TagKey | null; policy: TagPolicy; digest?: string | null; isFar?: boolean },
  ): Promise<CheckResult> {
    const { writer, freshness } = this.#options;
    if (digest !== null && manifest.digest !== digest)
      throw new SlipwayError("DIGEST_MISMATCH", { detail: { expected: digest, found: manifest.digest } });
    const put = {
      repository: name.repository,
      project: name.project,
      tags: key === null ? [] : [key.tag],
      digest: digest ?? manifest.digest,
      contentType: manifest.mediaType,
      bytes: manifest.bytes,
      principal: FILLER,
      origin: "fill" as const,
      allowMissingBlobs: true,
    };
    const arrived = { digest: put.digest, mediaType: manifest.mediaType, bytes: manifest.bytes };
    if (isFar) this.#options.onArrived(name, arrived);
    await writer.putManifest(put).catch((error: unknown) => {
      // Bad content is upstream's fault here, not the client's.
      if (isSlipwayError(error, "MANIFEST_INVALID", "DIGEST_INVALID", "UNSUPPORTED"))
        throw new SlipwayError("UPSTREAM_INVALID", { message: "the upstream registry sent a manifest that is not valid", cause: error });
      throw error;
    });
    if (key !== null) {
      await freshness.confirm(key, {
        digest: manifest.digest,
        mediaType: manifest.mediaType,
        size: manifest.bytes.length,
        etag: manifest.etag,
        freshMs: policy.ttlMs,
        status: 200,
      });
    }
    return { manifest: arrived, cache: "MISS" };
  }
}

function isAbsent(error: unknown): boolean {
  return isSlipwayError(error) && ABSENT.has(error.code);
}

function ageOf(known: TagFreshness | null, now: number): number {
  return known === null ? 0 : Math.max(0, Math.floor((now - known.checkedAt) / 1000));
}

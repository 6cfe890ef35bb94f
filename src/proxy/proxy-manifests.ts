/**
 * Manifests of proxy projects. What to do with a tag is decided in plan/freshness.ts; here it is done: ask upstream once for any number of waiters, keep
 * exact bytes, and let nothing that upstream does take away what is here.
 */
import type { Project, RegistryReader, RegistryWriter, StoredManifest } from "../catalog/registry.ts";
import { LRUCache } from "lru-cache";
import type { Clock } from "../core/clock.ts";
import { sleep } from "../core/clock.ts";
import { isSlipwayError, SlipwayError, toSlipwayError } from "../core/errors.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import type { Manifest, Priority } from "../upstream/types.ts";
import { ArrivedManifests, FILLER } from "./arrived-manifests.ts";
import type { ArrivedManifestsOptions, Asked } from "./arrived-manifests.ts";
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
  /** Told of a manifest that just came, which is stored when what it names is asked for. */
  readonly onArrived: ArrivedManifestsOptions["onArrived"];
  /** Told of what clients pull; must cost next to nothing. */
  readonly onPulled: (repository: string, reference: string, digest: string) => void;
  readonly onServed: (name: ProxyName, manifest: StoredManifest) => Promise<void>;
  /** Told of what came from upstream before anybody asked for it. */
  readonly onBrought: (name: ProxyName, manifest: StoredManifest) => void;
}

const FAILURE_RETRY_MS = 3_000;
const MAX_RETRY_MS = 30_000;
/** Longer than upstream may take to answer. */
const CLAIM_MS = 12_000;
const CLAIM_POLL_MS = 50;
/** Config and layers of most images. */
const BLOBS_TO_FOLLOW = 8;
const ABSENT: ReadonlySet<string> = new Set(["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND", "BLOB_UNKNOWN"]);

export interface CheckResult {
  readonly manifest: StoredManifest;
  readonly cache: CacheState;
}

interface Outcome extends CheckResult {
  /** When the catalog has it; rejects when it could not be stored. */
  readonly stored?: Promise<void>;
}

interface RunningCheck {
  readonly startedAt: number;
  readonly result: Promise<Outcome>;
}

interface Served extends ProxiedManifest {
  readonly stored?: Promise<void> | undefined;
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
  /** Of checks whose answer is being stored: who comes now begins when that is over. */
  readonly #storing = new Map<string, Promise<void>>();
  readonly #arrived: ArrivedManifests;
  /** Digests that upstream does not have. */
  readonly #absent = new LRUCache<string, true>({ max: 20_000 });

  constructor(options: ProxyManifestsOptions) {
    this.#options = options;
    this.#arrived = new ArrivedManifests(options);
  }

  /** Hot path: from memory, and only what is fresh. */
  peek(name: ProxyName, reference: string): ProxiedManifest | undefined {
    const { reader } = this.#options;
    if (reference.includes(":")) {
      const manifest = reader.peekManifest(name.repository, reference);
      if (manifest === undefined) return undefined;
      this.#options.onPulled(name.repository, reference, manifest.digest);
      return { manifest, cache: "HIT", ageSeconds: 0 };
    }
    // By the digest that the tag's row says: nobody looks a proxied tag up in the catalog, so it would not be in memory there.
    const known = this.#options.freshness.peek(name.repository, reference);
    const manifest = known?.digest ? reader.peekManifest(name.repository, known.digest) : undefined;
    if (known === undefined || manifest === undefined) return undefined;
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

  /** Once it is stored: for who goes on by what the catalog says. */
  async get(name: ProxyName, reference: string, signal?: AbortSignal): Promise<ProxiedManifest> {
    const served = await this.#serve(name, reference, signal);
    await served.stored;
    return served;
  }

  /** As soon as it is here: for who takes the content away. */
  answer(name: ProxyName, reference: string, signal?: AbortSignal): Promise<ProxiedManifest> {
    return this.#serve(name, reference, signal);
  }

  /** What was answered before it was stored is stored now, or never will be. */
  async settled(): Promise<void> {
    await this.#arrived.settled();
    await Promise.all(this.#storing.values());
  }

  async #serve(name: ProxyName, reference: string, signal?: AbortSignal): Promise<Served> {
    const served = reference.includes(":") ? await this.#byDigest(name, reference) : await this.#byTag(name, reference, signal);
    this.#options.onPulled(name.repository, reference, served.manifest.digest);
    void this.#options.onServed(name, served.manifest);
    return served;
  }

  /** Asks upstream now about a tag, for work that no client waits for; what is never asked about is told as it is here. */
  async refresh(name: ProxyName, tag: string): Promise<CheckResult> {
    await this.#storing.get(`${name.repository}:${tag}`);
    const { mode } = this.#options.policyOf(name.project);
    const key: TagKey = { projectId: name.project.id, repository: name.repository, tag };
    const seen = await this.#options.freshness.find(key);
    const held = await this.#held(name, seen);
    if (held && (mode === "local-first" || mode === "offline")) return { manifest: held, cache: "HIT" };
    if (mode === "offline") throw new SlipwayError("MANIFEST_UNKNOWN", { detail: { cache: "NEGATIVE" } });
    const result = await this.#check(name, { key, seen, known: held ? seen : null, priority: "revalidation" }).result;
    await result.stored;
    if (result.cache === "MISS") this.#options.onBrought(name, result.manifest);
    return result;
  }

  async #byDigest(name: ProxyName, digest: string): Promise<Served> {
    const arriving = this.#arrived.find(name.repository, digest);
    if (arriving) return { manifest: arriving.manifest, stored: arriving.stored, cache: "HIT", ageSeconds: 0 };
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

  async #fetchDigest(name: ProxyName, digest: string): Promise<Outcome> {
    const held = await this.#options.reader.findManifest(name.repository, digest);
    return held ? { manifest: held, cache: "HIT" } : this.#fetch(name, digest, "interactive");
  }

  async #byTag(name: ProxyName, tag: string, signal?: AbortSignal): Promise<Served> {
    const { freshness, clock } = this.#options;
    await this.#storing.get(`${name.repository}:${tag}`);
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
  ): Promise<Served> {
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

  #once(key: string, work: () => Promise<Outcome>): RunningCheck {
    const running = this.#checks.get(key);
    if (running) return running;
    const started = { startedAt: performance.now(), result: work() };
    this.#checks.set(key, started);
    const leave = (): void => void this.#checks.delete(key);
    started.result.then(({ stored }) => {
      leave();
      if (stored) this.#noteStoring(key, stored);
    }, leave);
    return started;
  }

  #noteStoring(key: string, stored: Promise<void>): void {
    const over = stored
      .catch(() => undefined)
      .then(() => {
        if (this.#storing.get(key) === over) this.#storing.delete(key);
      });
    this.#storing.set(key, over);
  }

  async #ask(name: ProxyName, question: TagQuestion): Promise<Outcome> {
    const { key, known, priority } = question;
    const policy = this.#options.policyOf(name.project);
    if (known === null) {
      const meanwhile = await this.#firstAnswer(name, question, policy);
      if (meanwhile) return meanwhile;
    } else if (policy.mode === "revalidate" && !(await this.#options.freshness.claim(key, known, CLAIM_MS))) {
      return this.#awaitOther(name, key, known);
    }
    const fail = async (error: unknown): Promise<never> => {
      await this.#noteTrouble(name, { key, known, policy }, toSlipwayError(error));
      throw error;
    };
    try {
      const { stored, ...outcome } = (await this.#confirmed(name, question, policy)) ?? (await this.#fetch(name, key.tag, priority));
      return stored ? { ...outcome, stored: stored.catch(fail) } : outcome;
    } catch (error) {
      return fail(error);
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
  async #confirmed(name: ProxyName, { key, known, priority }: TagQuestion, policy: TagPolicy): Promise<Outcome | null> {
    if (known === null || known.digest === null) return null;
    const client = await this.#options.clientOf(name.project);
    const head = await client.headManifest(name.upstreamRepository, key.tag, { priority });
    const held = head.digest === known.digest ? await this.#held(name, known) : null;
    if (!held) return head.manifest ? this.#keep(name, head.manifest, { key, freshMs: policy.ttlMs }) : null;
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

  async #fetch(name: ProxyName, reference: string, priority: Priority): Promise<Outcome> {
    const client = await this.#options.clientOf(name.project);
    const answer = await client.getManifest(name.upstreamRepository, reference, { priority, blobsToFollow: BLOBS_TO_FOLLOW });
    if (answer.notModified) throw new SlipwayError("UPSTREAM_INVALID");
    if (reference.includes(":")) return this.#keep(name, answer, { digest: reference });
    const key = { projectId: name.project.id, repository: name.repository, tag: reference };
    return this.#keep(name, answer, { key, freshMs: this.#options.policyOf(name.project).ttlMs });
  }

  #keep(name: ProxyName, manifest: Manifest, asked: Asked): Outcome {
    const arrival = this.#arrived.take(name, manifest, asked);
    arrival.stored.catch((error: unknown) =>
      this.#options.logger.warn({ repository: name.repository, digest: manifest.digest, error }, "a manifest could not be stored"),
    );
    const { manifest: arrived, stored } = arrival;
    return { manifest: arrived, stored, cache: "MISS" };
  }
}

function isAbsent(error: unknown): boolean {
  return isSlipwayError(error) && ABSENT.has(error.code);
}

function ageOf(known: TagFreshness | null, now: number): number {
  return known === null ? 0 : Math.max(0, Math.floor((now - known.checkedAt) / 1000));
}

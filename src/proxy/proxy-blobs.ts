/** Blobs of proxy projects: from storage when the repository has a link, else by a fill that starts or is joined. */
import { LRUCache } from "lru-cache";
import type { Project, RegistryReader, StoredBlob } from "../catalog/registry.ts";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import type { Queryable } from "../db/pool.ts";
import type { UpstreamClient } from "../upstream/client.ts";
import type { Priority } from "../upstream/types.ts";
import type { FillEngine } from "./fill/fill-engine.ts";
import type { FillRequest } from "./fill/fill-request.ts";
import type { OpenBlob } from "./fill/open-blob.ts";
import type { ProxyName } from "./proxy-manifests.ts";

export interface ProxyBlobsOptions {
  readonly reader: RegistryReader;
  readonly db: Queryable;
  readonly fills: FillEngine;
  readonly clientOf: (project: Project) => Promise<UpstreamClient>;
  readonly isOffline: (project: Project) => boolean;
  readonly negativeMs: (project: Project) => number;
  readonly onServed: (digest: string) => void;
}

export type OpenedBlob = { readonly kind: "stored"; readonly blob: StoredBlob } | { readonly kind: "filling"; readonly blob: OpenBlob };

const REMEMBERED_ABSENT = 20_000;
const REMEMBERED_SIZES = 20_000;
const SIZES_FRESH_MS = 60_000;

export class ProxyBlobs {
  readonly #options: ProxyBlobsOptions;
  readonly #absent = new LRUCache<string, true>({ max: REMEMBERED_ABSENT });
  /** From descriptors of manifests that just came: their blobs are asked for next. */
  readonly #described = new LRUCache<string, number>({ max: REMEMBERED_SIZES, ttl: SIZES_FRESH_MS });

  constructor(options: ProxyBlobsOptions) {
    this.#options = options;
  }

  /** Hot path: small blobs in memory. */
  peek(name: Pick<ProxyName, "repository">, digest: string): StoredBlob | undefined {
    const blob = this.#options.reader.peekBlob(name.repository, digest);
    if (blob) this.#options.onServed(digest);
    return blob;
  }

  /** The size without a byte of the content: from the catalog, from a manifest's descriptor, or by asking upstream. */
  async stat(name: ProxyName, digest: string, signal?: AbortSignal): Promise<{ size: number; cache: "HIT" | "MISS" }> {
    const stored = await this.#options.reader.findBlob(name.repository, digest);
    if (stored) return { size: stored.size, cache: "HIT" };
    this.#refuseKnownAbsent(name, digest);
    const described = await this.#describedSize(name.repository, digest);
    if (described !== null) return { size: described, cache: "MISS" };
    return this.#rememberAbsence(name, digest, async () => {
      const client = await this.#options.clientOf(name.project);
      const head = await client.headBlob(name.upstreamRepository, digest, { priority: "interactive", signal });
      if (head.size === null)
        throw new SlipwayError("UPSTREAM_INVALID", { message: "the upstream registry does not tell the size of a blob" });
      return { size: head.size, cache: "MISS" as const };
    });
  }

  async open(name: ProxyName, digest: string, signal?: AbortSignal): Promise<OpenedBlob> {
    if (!this.#options.fills.isUnderWay(name.repository, digest)) {
      const stored = await this.#options.reader.findBlob(name.repository, digest);
      if (stored) {
        this.#options.onServed(digest);
        return { kind: "stored", blob: stored };
      }
      this.#refuseKnownAbsent(name, digest);
    }
    return this.#rememberAbsence(name, digest, async () => {
      const opened = await this.#options.fills.open(await this.#request(name, digest, "interactive"), signal);
      if (!("bytes" in opened)) return { kind: "filling", blob: opened };
      this.#options.onServed(digest);
      return { kind: "stored", blob: opened };
    });
  }

  /** Told of a manifest before the catalog has it. */
  describe(repository: string, descriptors: readonly { readonly digest: string; readonly size: number }[]): void {
    for (const { digest, size } of descriptors) this.#described.set(`${repository}@${digest}`, size);
  }

  /** Begins to fetch what will be asked for next. */
  async prefetch(name: ProxyName, descriptors: readonly { readonly digest: string; readonly size: number }[]): Promise<void> {
    this.describe(name.repository, descriptors);
    const client = await this.#options.clientOf(name.project);
    const requests = descriptors.map(({ digest, size }) => ({ ...this.#base(name, digest), size, client, priority: "prefetch" as const }));
    await this.#options.fills.prefetch(requests);
  }

  async complete(name: ProxyName, digest: string, signal: AbortSignal): Promise<void> {
    if (await this.#options.reader.findBlob(name.repository, digest)) return;
    await this.#options.fills.complete(await this.#request(name, digest, "prefetch"), signal);
  }

  async #request(name: ProxyName, digest: string, priority: Priority): Promise<FillRequest> {
    const [client, size] = await Promise.all([this.#options.clientOf(name.project), this.#describedSize(name.repository, digest)]);
    return { ...this.#base(name, digest), size, client, priority };
  }

  #base(name: ProxyName, digest: string): Pick<FillRequest, "projectId" | "repository" | "upstreamRepository" | "digest"> {
    return { projectId: name.project.id, repository: name.repository, upstreamRepository: name.upstreamRepository, digest };
  }

  async #describedSize(repository: string, digest: string): Promise<number | null> {
    const described = this.#described.get(`${repository}@${digest}`);
    if (described !== undefined) return described;
    const { rows } = await this.#options.db.query<{ size: number }>(
      `SELECT r.size FROM manifest_references r JOIN repositories n ON n.id = r.repository_id
       WHERE n.name = $1 AND r.digest = $2 AND r.kind <> 'manifest' LIMIT 1`,
      [repository, digest],
    );
    return rows[0]?.size ?? null;
  }

  #refuseKnownAbsent(name: ProxyName, digest: string): void {
    if (this.#options.isOffline(name.project) || this.#absent.get(`${name.repository}@${digest}`)) {
      throw new SlipwayError("BLOB_UNKNOWN", { detail: { digest, cache: "NEGATIVE" } });
    }
  }

  async #rememberAbsence<T>(name: ProxyName, digest: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (isSlipwayError(error, "BLOB_UNKNOWN"))
        this.#absent.set(`${name.repository}@${digest}`, true, { ttl: this.#options.negativeMs(name.project) });
      throw error;
    }
  }
}

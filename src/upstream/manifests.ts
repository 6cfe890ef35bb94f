/** Reading manifests: exact bytes, their digest, their kind; and HEAD with a way around registries that cannot. */
import { createHash } from "node:crypto";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { LIMITS } from "../core/limits.ts";
import { digestHeader, lengthOf } from "./blobs.ts";
import type { Exchange } from "./exchange.ts";
import { bareMediaType, MANIFEST_ACCEPT, manifestMediaType } from "./media-type.ts";
import { isDigest, manifestPath, scopeOf } from "./names.ts";
import type { Quirks } from "./quirks.ts";
import type { CollectedAnswer, UpstreamRequest } from "./request.ts";
import type { CallOptions, Manifest, ManifestAnswer, ManifestHead } from "./types.ts";

export interface ManifestReaderOptions {
  readonly exchange: Exchange;
  readonly quirks: Quirks;
  /** Where the memory about HEAD is kept: the first address of the upstream. */
  readonly origin: string;
}

export interface GetManifestOptions extends CallOptions {
  readonly ifNoneMatch?: string | undefined;
}

const MAX_WARNING_BYTES = 4096;
const ALGORITHMS: ReadonlySet<string> = new Set(["sha256", "sha512"]);

/** Null for an algorithm that we cannot compute. */
export function digestOf(bytes: Buffer, algorithm = "sha256"): string | null {
  return ALGORITHMS.has(algorithm) ? `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}` : null;
}

export class ManifestReader {
  readonly #options: ManifestReaderOptions;

  constructor(options: ManifestReaderOptions) {
    this.#options = options;
  }

  async get(repository: string, reference: string, options: GetManifestOptions = {}): Promise<ManifestAnswer> {
    try {
      return await this.#getOnce(repository, reference, options);
    } catch (error) {
      // A bad edge or proxy on the way: once more, on whatever connection comes next.
      if (!isSlipwayError(error, "DIGEST_MISMATCH")) throw error;
      return await this.#getOnce(repository, reference, options);
    }
  }

  async head(repository: string, reference: string, call: CallOptions = {}): Promise<ManifestHead> {
    const { quirks, origin } = this.#options;
    if (quirks.has(origin, "headUnsupported")) return await this.#headByGet(repository, reference, call);
    const answer = await this.#options.exchange.collect(
      { ...this.#request(repository, reference, call), kind: "manifest-head", method: "HEAD", counted: false, pass: [404, 405, 501] },
      0,
    );
    if (answer.status === 200) return await this.#readHead(answer, { repository, reference, call });
    if (answer.status === 404 && quirks.has(origin, "headReliable")) throw absent(answer);
    try {
      const found = await this.#headByGet(repository, reference, call);
      quirks.note(origin, "headUnsupported");
      return found;
    } catch (error) {
      // Only a 404 to both says that this registry's HEAD can be believed; a 405 never can.
      if (isSlipwayError(error, "MANIFEST_UNKNOWN")) quirks.note(origin, answer.status === 404 ? "headReliable" : "headUnsupported");
      throw error;
    }
  }

  async #readHead(answer: CollectedAnswer, asked: { repository: string; reference: string; call: CallOptions }): Promise<ManifestHead> {
    const { quirks, origin } = this.#options;
    const digest = digestHeader(answer) ?? (isDigest(asked.reference) ? asked.reference : null);
    const mediaType = bareMediaType(answer.header("content-type"));
    // A page of a portal has a 200 as well.
    if (digest === null || mediaType === "text/html") {
      const found = await this.#headByGet(asked.repository, asked.reference, asked.call);
      quirks.note(origin, "headUnsupported");
      return found;
    }
    return { digest, size: lengthOf(answer), mediaType, etag: answer.header("etag") ?? null, manifest: null };
  }

  async #headByGet(repository: string, reference: string, call: CallOptions): Promise<ManifestHead> {
    const answer = await this.get(repository, reference, call);
    if (answer.notModified) throw new SlipwayError("UPSTREAM_INVALID");
    const { notModified: _, ...manifest } = answer;
    return { digest: manifest.digest, size: manifest.bytes.length, mediaType: manifest.mediaType, etag: manifest.etag, manifest };
  }

  async #getOnce(repository: string, reference: string, options: GetManifestOptions): Promise<ManifestAnswer> {
    const request = this.#request(repository, reference, options);
    const conditional = options.ifNoneMatch === undefined ? {} : { "if-none-match": options.ifNoneMatch };
    const answer = await this.#options.exchange.collect(
      { ...request, headers: { ...request.headers, ...conditional } },
      LIMITS.manifestBytes,
    );
    if (answer.status === 304 && options.ifNoneMatch !== undefined) return { notModified: true };
    return { notModified: false, ...readManifest(answer, reference) };
  }

  #request(repository: string, reference: string, call: CallOptions): UpstreamRequest {
    return {
      kind: "manifest-get",
      method: "GET",
      target: { path: manifestPath(repository, reference) },
      headers: { accept: MANIFEST_ACCEPT },
      scopes: [scopeOf(repository, "pull")],
      lane: "meta",
      absent: "MANIFEST_UNKNOWN",
      counted: true,
      call,
      repeatable: true,
    };
  }
}

function absent(answer: CollectedAnswer): SlipwayError {
  return new SlipwayError("MANIFEST_UNKNOWN", { detail: { host: answer.url.host, status: answer.status } });
}

function readManifest(answer: CollectedAnswer, reference: string): Manifest {
  const { bytes } = answer;
  const host = answer.url.host;
  const mediaType = answer.status === 200 ? manifestMediaType(answer.header("content-type"), bytes) : null;
  if (mediaType === null) throw new SlipwayError("UPSTREAM_INVALID", { detail: { host, status: answer.status, reason: "NO_MANIFEST" } });
  const expected = isDigest(reference) ? reference : digestHeader(answer);
  const algorithm = expected?.slice(0, expected.indexOf(":")) ?? "sha256";
  const digest = digestOf(bytes, algorithm) ?? (isDigest(reference) ? null : digestOf(bytes));
  if (digest === null) throw new SlipwayError("UNSUPPORTED", { message: "digest algorithm is not supported" });
  if (expected !== null && digest.startsWith(`${algorithm}:`) && digest !== expected) {
    throw new SlipwayError("DIGEST_MISMATCH", { detail: { host, expected, actual: digest } });
  }
  return { digest, bytes, mediaType, etag: answer.header("etag") ?? null, warnings: warningsOf(answer) };
}

/** Passed on, never acted on. */
function warningsOf(answer: CollectedAnswer): string[] {
  const kept: string[] = [];
  let size = 0;
  for (const warning of answer.headerAll("warning")) {
    size += Buffer.byteLength(warning);
    if (size > MAX_WARNING_BYTES) break;
    if (warning.startsWith("299 ")) kept.push(warning);
  }
  return kept;
}

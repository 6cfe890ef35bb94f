/**
 * Writing to a registry. An upload session is plain data that another process may continue; its Location is resolved against the request
 * that brought it, keeps its query, and is subject to the rules for addresses that a registry names.
 */
import type { Readable } from "node:stream";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { digestHeader } from "./blobs.ts";
import { parseUploadRange } from "./content-range.ts";
import type { ResolvedEndpoint } from "./endpoint.ts";
import type { Exchange } from "./exchange.ts";
import { blobPath, isDigest, manifestPath, repositoryPath, scopeOf } from "./names.ts";
import { resolveNamed } from "./redirects.ts";
import type { CollectedAnswer, Method, UpstreamRequest } from "./request.ts";
import type { CallKind, CallOptions, MountResult, PutResult, UploadSession } from "./types.ts";

export interface BlobWriterOptions {
  readonly exchange: Exchange;
  readonly resolved: ResolvedEndpoint;
  readonly onSecret: (value: string) => void;
}

export interface UploadData {
  readonly bytes: Buffer | Readable;
  readonly size: number;
}

export interface ChunkOptions extends CallOptions {
  /** Without a Content-Range, for a stream of the whole blob in one PATCH. */
  readonly streamed?: boolean | undefined;
}

export interface PutManifestOptions extends CallOptions {
  /** Further tags for the same content, where the registry understands them. */
  readonly tags?: readonly string[] | undefined;
  readonly ifMatch?: string | undefined;
}

/** A registry may copy gigabytes from one bucket to another before it answers. */
const COMMIT_MS = 300_000;
const SEND_MS = 60_000;
const MAX_ANSWER_BYTES = 64 * 1024;

interface WriteCall {
  readonly kind: CallKind;
  readonly method: Method;
  readonly repository: string;
  readonly target: UpstreamRequest["target"];
  readonly call: CallOptions;
  readonly actions?: string;
  readonly data?: UploadData | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly absent?: UpstreamRequest["absent"];
  readonly firstByteMs?: number;
  readonly repeatable?: boolean;
  readonly pass?: readonly number[];
  readonly extraScopes?: readonly string[];
}

export class BlobWriter {
  readonly #options: BlobWriterOptions;

  constructor(options: BlobWriterOptions) {
    this.#options = options;
  }

  async start(repository: string, call: CallOptions & { readonly algorithm?: string | undefined } = {}): Promise<UploadSession> {
    const query = call.algorithm && call.algorithm !== "sha256" ? `?digest-algorithm=${encodeURIComponent(call.algorithm)}` : "";
    const target = { path: `${repositoryPath(repository)}/blobs/uploads/${query}` };
    // A session that is never used costs the registry little; not starting costs the copy.
    const answer = await this.#write({ kind: "upload", method: "POST", repository, target, call, repeatable: true });
    if (answer.status !== 202) throw unexpected(answer);
    return this.#session(answer, 0);
  }

  /** 201 is the only yes; everything that is not about us means: upload it. */
  async mount(repository: string, digest: string, from: string, call: CallOptions = {}): Promise<MountResult> {
    repositoryPath(from);
    blobPath(repository, digest);
    const query = new URLSearchParams({ mount: digest, from });
    const request: WriteCall = {
      kind: "mount",
      method: "POST",
      repository,
      target: { path: `${repositoryPath(repository)}/blobs/uploads/?${query}` },
      call,
      extraScopes: [scopeOf(from, "pull")],
      pass: [400, 401, 403, 404, 405, 501],
    };
    const answer = await this.#write(request).catch((error: unknown) => {
      // A token service that does not give both scopes.
      if (isSlipwayError(error, "UPSTREAM_REFUSED", "NAME_UNKNOWN")) return null;
      throw error;
    });
    if (answer === null) return { mounted: false, session: null };
    if (answer.status === 201) return { mounted: true };
    const named = answer.status === 202 && answer.header("location") !== undefined;
    return { mounted: false, session: named ? this.#session(answer, 0) : null };
  }

  /** Sends bytes at the session's offset and returns the session to go on with. */
  async chunk(repository: string, session: UploadSession, data: UploadData, options: ChunkOptions = {}): Promise<UploadSession> {
    const end = session.offset + data.size;
    const range = options.streamed ? {} : { "content-range": `${session.offset}-${end - 1}` };
    const answer = await this.#write({
      kind: "upload",
      method: "PATCH",
      repository,
      target: { url: session.location },
      call: options,
      data,
      headers: { "content-type": "application/octet-stream", ...range },
      absent: "BLOB_UPLOAD_UNKNOWN",
    });
    // The closing digest decides; a Range that cannot be right is not worth a failed copy, one that says "less" is believed.
    const confirmed = parseUploadRange(answer.header("range"));
    const less = confirmed !== null && confirmed > session.offset && confirmed < end;
    return answer.header("location") === undefined
      ? { ...session, offset: less ? confirmed : end }
      : { ...this.#session(answer, less ? confirmed : end), minChunkBytes: session.minChunkBytes };
  }

  /** Asks what the registry holds; the offset of a session that was kept is confirmed so before it is used again. */
  async status(repository: string, session: UploadSession, call: CallOptions = {}): Promise<UploadSession> {
    const answer = await this.#write({
      kind: "upload",
      method: "GET",
      repository,
      target: { url: session.location },
      call,
      absent: "BLOB_UPLOAD_UNKNOWN",
      repeatable: true,
    });
    if (answer.status !== 204 && answer.status !== 202 && answer.status !== 200) throw unexpected(answer);
    const offset = parseUploadRange(answer.header("range"));
    if (offset === null) throw new SlipwayError("UNSUPPORTED", { message: "the registry does not say what an upload holds" });
    const named = answer.header("location") === undefined ? session : this.#session(answer, offset);
    return { location: named.location, offset, minChunkBytes: session.minChunkBytes };
  }

  async finish(
    repository: string,
    session: UploadSession,
    digest: string,
    options: CallOptions & { readonly lastChunk?: UploadData | undefined } = {},
  ): Promise<PutResult> {
    const { lastChunk } = options;
    const range = lastChunk && session.offset > 0 ? { "content-range": `${session.offset}-${session.offset + lastChunk.size - 1}` } : {};
    const answer = await this.#write({
      kind: "upload",
      method: "PUT",
      repository,
      target: { url: withDigest(session.location, digest) },
      call: options,
      data: lastChunk,
      headers: { "content-type": "application/octet-stream", ...range },
      absent: "BLOB_UPLOAD_UNKNOWN",
      firstByteMs: COMMIT_MS,
    });
    return committed(answer, digest);
  }

  /** In one POST where the registry takes it so; a 202 says that it does not, and gives a session for one PUT. */
  async monolithic(
    repository: string,
    digest: string,
    data: UploadData,
    options: CallOptions & { readonly singlePost?: boolean | undefined } = {},
  ): Promise<PutResult> {
    blobPath(repository, digest);
    if (!options.singlePost || !Buffer.isBuffer(data.bytes)) {
      return await this.finish(repository, await this.start(repository, options), digest, { ...options, lastChunk: data });
    }
    const answer = await this.#write({
      kind: "upload",
      method: "POST",
      repository,
      target: { path: `${repositoryPath(repository)}/blobs/uploads/?${new URLSearchParams({ digest })}` },
      call: options,
      data,
      headers: { "content-type": "application/octet-stream" },
      firstByteMs: COMMIT_MS,
      pass: [400, 405],
    });
    if (answer.status === 201) return committed(answer, digest);
    const session = answer.status === 202 ? this.#session(answer, 0) : await this.start(repository, options);
    return await this.finish(repository, session, digest, { ...options, lastChunk: data });
  }

  async cancel(repository: string, session: UploadSession, call: CallOptions = {}): Promise<void> {
    // Distribution wants the right to delete for this, which other registries refuse to give for a push: without it sessions expire.
    await this.#write({
      kind: "upload",
      method: "DELETE",
      repository,
      target: { url: session.location },
      call,
      pass: [401, 403, 404, 405],
      repeatable: true,
    });
  }

  async putManifest(
    repository: string,
    reference: string,
    manifest: { readonly bytes: Buffer; readonly mediaType: string },
    options: PutManifestOptions = {},
  ): Promise<PutResult> {
    const query = new URLSearchParams((options.tags ?? []).map((tag): [string, string] => ["tag", tag]));
    const path = manifestPath(repository, reference) + (query.size > 0 ? `?${query}` : "");
    const answer = await this.#write({
      kind: "manifest-put",
      method: "PUT",
      repository,
      target: { path },
      call: options,
      data: { bytes: manifest.bytes, size: manifest.bytes.length },
      headers: { "content-type": manifest.mediaType, ...(options.ifMatch === undefined ? {} : { "if-match": options.ifMatch }) },
      absent: "NAME_UNKNOWN",
      firstByteMs: SEND_MS,
      repeatable: true,
    });
    return committed(answer, isDigest(reference) ? reference : null);
  }

  async deleteManifest(repository: string, reference: string, call: CallOptions = {}): Promise<void> {
    await this.#remove("manifest-delete", repository, { path: manifestPath(repository, reference) }, call);
  }

  async deleteBlob(repository: string, digest: string, call: CallOptions = {}): Promise<void> {
    await this.#remove("blob-delete", repository, { path: blobPath(repository, digest) }, call);
  }

  async #remove(kind: CallKind, repository: string, target: { path: string }, call: CallOptions): Promise<void> {
    const absent = kind === "blob-delete" ? "BLOB_UNKNOWN" : "MANIFEST_UNKNOWN";
    await this.#write({ kind, method: "DELETE", repository, target, call, actions: "delete", absent, repeatable: true });
  }

  #write(write: WriteCall): Promise<CollectedAnswer> {
    const { data } = write;
    return this.#options.exchange.collect(
      {
        kind: write.kind,
        method: write.method,
        target: write.target,
        scopes: [scopeOf(write.repository, write.actions ?? "pull,push"), ...(write.extraScopes ?? [])],
        lane: data && write.kind === "upload" ? "bulk" : "meta",
        absent: write.absent ?? "NAME_UNKNOWN",
        call: write.call,
        // Always with a length: some registries never answer a chunked body.
        headers: {
          ...write.headers,
          ...(data ? { "content-length": String(data.size) } : write.method === "GET" ? {} : { "content-length": "0" }),
        },
        body: data?.bytes,
        pass: write.pass,
        firstByteMs: write.firstByteMs ?? SEND_MS,
        repeatable: write.repeatable ?? false,
      },
      MAX_ANSWER_BYTES,
    );
  }

  #session(answer: CollectedAnswer, offset: number): UploadSession {
    const location = answer.header("location");
    if (location === undefined) throw unexpected(answer);
    const url = this.#resolve(location, answer.url);
    for (const [, value] of url.searchParams) if (value.length >= 16) this.#options.onSecret(value);
    const min = answer.header("oci-chunk-min-length");
    return { location: url.href, offset, minChunkBytes: min !== undefined && /^\d{1,12}$/.test(min) ? Number(min) : 0 };
  }

  #resolve(location: string, from: URL): URL {
    const { endpoint } = this.#options.resolved;
    if (endpoint.upgradeLocations && from.protocol === "https:" && URL.canParse(location)) {
      const url = new URL(location);
      if (url.protocol === "http:" && url.hostname === from.hostname)
        return resolveNamed(url.href.replace(/^http:\/\/[^/]+/, from.origin), from);
    }
    return resolveNamed(location, from);
  }
}

/** Appended as text: building the query anew would rewrite the state in it, which is often signed. */
function withDigest(location: string, digest: string): string {
  return `${location}${location.includes("?") ? "&" : "?"}digest=${encodeURIComponent(digest)}`;
}

function committed(answer: CollectedAnswer, expected: string | null): PutResult {
  if (answer.status < 200 || answer.status >= 300) throw unexpected(answer);
  const digest = digestHeader(answer);
  const comparable = digest !== null && expected !== null && digest.split(":")[0] === expected.split(":")[0];
  if (comparable && digest !== expected) {
    throw new SlipwayError("DIGEST_MISMATCH", { detail: { host: answer.url.host, expected, actual: digest } });
  }
  return { digest, subject: answer.header("oci-subject") ?? null };
}

function unexpected(answer: CollectedAnswer): SlipwayError {
  return new SlipwayError("UPSTREAM_INVALID", { detail: { host: answer.url.host, status: answer.status, reason: "ANSWER" } });
}

/** What the rest of Slipway says to the upstream client, and what it hears back. */
import type { Readable } from "node:stream";

export type UpstreamCredential =
  | { readonly type: "none" }
  | { readonly type: "basic"; readonly username: string; readonly password: string }
  /** An OAuth2 refresh token, as `docker login` keeps for registries that give one. */
  | { readonly type: "identity"; readonly token: string; readonly username?: string }
  /** A registry token that is sent as it is. */
  | { readonly type: "bearer"; readonly token: string };

export interface UpstreamEndpoint {
  readonly name: string;
  /** Tried in order when one cannot be reached; a refusal is final and never tries the next. */
  readonly urls: readonly string[];
  readonly credential: UpstreamCredential | null;
  readonly ca?: string | null;
  /** Accepts any TLS certificate. */
  readonly insecure?: boolean;
  /** The addresses come from an operator: any address that is not denied may be reached. */
  readonly trust: "operator";
  /** The hosts are meant as written, also names of Docker Hub where no registry answers: for an API. */
  readonly literal?: boolean;
  /** Origins that may see the credential; by default that of the first URL alone. */
  readonly credentialOrigins?: readonly string[];
  /** Token services that the operator allows although the general rule would not. */
  readonly tokenRealms?: readonly string[];
  /** Statuses that mean "absent or denied" here; by default decided by the host's name. */
  readonly absentStatuses?: readonly number[];
  /** Reads an `http:` Location of the same host as `https:`, for registries behind a proxy that hides TLS. */
  readonly upgradeLocations?: boolean;
}

/** In the order in which they are served. */
export const PRIORITIES = ["interactive", "revalidation", "replication", "prefetch"] as const;
export type Priority = (typeof PRIORITIES)[number];

export type CallKind =
  | "ping"
  | "manifest-head"
  | "manifest-get"
  | "manifest-put"
  | "manifest-delete"
  | "blob-head"
  | "blob-get"
  | "blob-delete"
  | "tags"
  | "referrers"
  | "mount"
  | "upload"
  | "catalog"
  | "api"
  | "token"
  | "probe";

export interface CallOptions {
  readonly priority?: Priority | undefined;
  /** How long the call may wait for its turn; the default depends on the priority. */
  readonly waitMs?: number | undefined;
  /** How long of that it may sit out a Retry-After; longer ones are told to the caller at once. */
  readonly blockWaitMs?: number | undefined;
  /** Begins with another address than usual: what the first one sent was wrong. */
  readonly elsewhere?: boolean | undefined;
  /** So many blobs of the same registry will probably be asked for as soon as the answer is here. */
  readonly blobsToFollow?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface PingResult {
  readonly status: number;
  readonly authenticated: boolean;
}

export interface ManifestHead {
  readonly digest: string;
  readonly size: number | null;
  readonly mediaType: string;
  readonly etag: string | null;
  /** Present when the registry cannot answer HEAD and the content had to be fetched. */
  readonly manifest: Manifest | null;
}

export interface Manifest {
  readonly digest: string;
  readonly bytes: Buffer;
  readonly mediaType: string;
  readonly etag: string | null;
  readonly warnings: readonly string[];
}

export type ManifestAnswer = { readonly notModified: true } | ({ readonly notModified: false } & Manifest);

export interface ByteRange {
  readonly start: number;
  /** Inclusive; to the end when absent. */
  readonly end?: number | undefined;
}

export interface BlobAnswer {
  readonly status: 200 | 206;
  /** Size of the whole blob, when known. */
  readonly size: number | null;
  /** Bytes that the body will deliver, when known. */
  readonly length: number | null;
  readonly start: number;
  /** False when the registry sent everything and the bytes before the range are thrown away. */
  readonly rangeHonoured: boolean;
  /** False when the registry sends the whole blob, asked for or not. */
  readonly isPart: boolean;
  readonly contentType: string | null;
  readonly body: Readable;
}

/** A call to the API that a product has beside the registry protocol. */
export interface ApiCall extends CallOptions {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** Below the address of the endpoint, with its query. */
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Statuses that the caller wants to see itself; any other from 400 on is thrown. */
  readonly pass?: readonly number[] | undefined;
  /** Goes without a credential. */
  readonly anonymous?: boolean | undefined;
}

export interface ApiAnswer {
  readonly status: number;
  /** Null when the body is no JSON. */
  readonly json: unknown;
  /** Target of the Link header's next, as the product wrote it. */
  readonly next: string | null;
  header(name: string): string | undefined;
}

export interface CatalogPage {
  readonly repositories: readonly string[];
  readonly next: string | null;
}

export interface BlobHead {
  readonly size: number | null;
  readonly digest: string | null;
}

export interface TagPage {
  readonly tags: readonly string[];
  /** Hand it back to get the next page; may be kept across restarts. */
  readonly next: string | null;
  /** Strings in the list that are no legal tags. */
  readonly skipped: number;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly artifactType?: string | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

export interface ReferrersAnswer {
  readonly manifests: readonly Descriptor[];
  readonly source: "api" | "tag";
}

/** Plain data, so that an upload may be continued by another process. The location may carry secrets: keep it encrypted. */
export interface UploadSession {
  readonly location: string;
  /** Bytes that the registry confirmed, as far as it says so. */
  readonly offset: number;
  readonly minChunkBytes: number;
}

export type MountResult = { readonly mounted: true } | { readonly mounted: false; readonly session: UploadSession | null };

export interface PutResult {
  /** As the registry said; null when it said nothing and a HEAD should confirm. */
  readonly digest: string | null;
  /** The registry understood the subject field and keeps the referrers list itself. */
  readonly subject: string | null;
}

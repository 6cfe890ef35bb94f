/**
 * What a request is about: which project stands behind a name, and whether its content is ours or another registry's. The resolver is
 * injected, and the handlers of content are chosen by the target's kind.
 */
import type { Project, StoredBlob, StoredManifest } from "../../src/catalog/registry.ts";
import type { HeaderLines } from "../http/ready-answer.ts";
import type { Exchange } from "./exchange.ts";

export interface TargetRequest {
  /** A valid repository name as the client wrote it. */
  readonly requested: string;
  /** The ?ns= parameter. */
  readonly namespace: string | null;
  readonly isWrite?: boolean;
}

export interface LocalTarget {
  readonly kind: "local";
  readonly requested: string;
  readonly repository: string;
  readonly projectName: string;
  /** Null when there is no such project (a push may create it). */
  readonly project: Project | null;
}

export interface ProxyTarget {
  readonly kind: "proxy";
  readonly requested: string;
  /** The name under which the content is kept here. */
  readonly repository: string;
  readonly projectName: string;
  readonly project: Project;
  /** The name at the upstream. */
  readonly upstreamRepository: string;
  /** Echoed as OCI-Namespace when the client named the upstream. */
  readonly namespace: string | null;
}

export type Target = LocalTarget | ProxyTarget;

export interface TargetResolver {
  /** From memory only; undefined when memory does not know. */
  peek(request: TargetRequest): Target | undefined;
  /** As peek, for a request that comes again and again. */
  lookup(request: TargetRequest): () => Target | undefined;
  resolve(request: TargetRequest, signal?: AbortSignal): Promise<Target>;
}

export const OPERATIONS = {
  manifest: { GET: "manifest.read", HEAD: "manifest.read", PUT: "manifest.put", DELETE: "manifest.delete" },
  blob: { GET: "blob.read", HEAD: "blob.read", DELETE: "blob.delete" },
  uploads: { POST: "upload.start" },
  upload: { GET: "upload.status", HEAD: "upload.status", PATCH: "upload.append", PUT: "upload.finish", DELETE: "upload.cancel" },
  tags: { GET: "tags.list", HEAD: "tags.list" },
  referrers: { GET: "referrers.list", HEAD: "referrers.list" },
} as const;

type Values<T> = T[keyof T];
export type Operation = { [Kind in keyof typeof OPERATIONS]: Values<(typeof OPERATIONS)[Kind]> }[keyof typeof OPERATIONS];

export type ContentHandler<T extends Target> = (exchange: Exchange, target: T) => Promise<void>;

/** One kind of content. The peek methods serve the hot path and never wait. */
export interface ContentHandlers<T extends Target> {
  readonly operations: Readonly<Record<Operation, ContentHandler<T>>>;
  peekManifest(target: T, reference: string): StoredManifest | undefined;
  peekBlob(target: T, digest: string): StoredBlob | undefined;
  /** What the answer of the last look says besides the headers of its content. */
  peekLines?(): HeaderLines;
}

/**
 * The contract of blob storage. Two drivers (local disk, S3) pass one conformance test.
 *
 * Writing is two-phase: bytes are appended to a session, which nobody can read as content, and a session becomes a blob atomically once
 * digest and size were verified. A session may be continued by another process that shares the storage.
 */
import type { Readable } from "node:stream";

export type StorageDriver = "fs" | "s3";

export interface BlobStat {
  readonly size: number;
}

/** Inclusive on both ends, as in HTTP. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

export interface AppendResult {
  /** Bytes in the session after this append; everything before the cut is kept when the source ended early. */
  readonly offset: number;
  /** The source ended by error or early close; what arrived before is stored. */
  readonly sourceError: unknown;
}

export interface AppendOptions {
  /** Where the first byte goes; must equal the session's size, else CONFLICT. */
  readonly offset: number;
  /** Called with every chunk in order before it is handed on, for hashing. What it was fed is void when the append throws. */
  readonly onChunk?: (chunk: Uint8Array) => void;
  /** Bytes of this append after this many are refused with PAYLOAD_TOO_LARGE; the chunk that goes beyond is not stored. */
  readonly limit?: number;
  /** An abort cuts the source: what arrived is kept, and `sourceError` is a CANCELLED. */
  readonly signal?: AbortSignal;
}

export interface SessionCommit {
  readonly digest: string;
  readonly size: number;
}

export interface ObjectEntry {
  readonly key: string;
  readonly size: number;
  /** Milliseconds since the epoch. */
  readonly modifiedAt: number;
}

export interface StorageSpace {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

export interface BlobStore {
  readonly driver: StorageDriver;

  stat(digest: string, signal?: AbortSignal): Promise<BlobStat | null>;
  /** Streams a blob or a part of it; BLOB_UNKNOWN when absent. */
  read(digest: string, range?: ByteRange, signal?: AbortSignal): Promise<Readable>;
  readAll(digest: string, maxBytes: number, signal?: AbortSignal): Promise<Buffer>;
  /** The file of a blob where storage is a local disk; null elsewhere. No check that it exists. */
  filePath(digest: string): string | null;
  /** Stages, verifies nothing, promotes; the caller has computed the digest over the very same bytes. */
  put(digest: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Absent blobs are no error. */
  remove(digest: string, signal?: AbortSignal): Promise<void>;
  /** A URL from which a client may fetch the blob itself for a short time; null when redirects are off or impossible. */
  redirectUrl(digest: string, signal?: AbortSignal): Promise<string | null>;
  /** Digests in storage order, for reconciliation. */
  list(after: string | null, limit: number, signal?: AbortSignal): Promise<string[]>;

  /** The least size of every chunk of an upload but the last (OCI-Chunk-Min-Length); 0 when any size will do. */
  readonly chunkMinBytes: number;
  createSession(id: string, signal?: AbortSignal): Promise<void>;
  /**
   * Of two appends to one session at once one fails with CONFLICT; an append at the size that a broken-off one reached takes over from it.
   * The source is returned (`iterator.return`) when the append ends before it does: hand over `stream.iterator({ destroyOnReturn: false })`
   * where the stream is still needed.
   */
  append(id: string, source: AsyncIterable<Uint8Array>, options: AppendOptions): Promise<AppendResult>;
  sessionSize(id: string, signal?: AbortSignal): Promise<number | null>;
  readSession(id: string, signal?: AbortSignal): Promise<Readable>;
  /**
   * Makes the session durable and visible as a blob, atomically. The caller has verified digest and size. Harmless when the blob is there
   * already, also by this very commit; CONFLICT when the session has another size.
   */
  commitSession(id: string, commit: SessionCommit, signal?: AbortSignal): Promise<void>;
  abortSession(id: string, signal?: AbortSignal): Promise<void>;
  /** Takes a finished local file as a blob: a rename on the same file system, an upload elsewhere. The file is gone afterwards. */
  adoptFile(path: string, commit: SessionCommit, signal?: AbortSignal): Promise<void>;
  /** Sessions not touched since the cut-off, for expiry of what no row knows. */
  listSessions(olderThan: number, limit: number, signal?: AbortSignal): Promise<string[]>;

  /** Small named objects beside the blobs: link records, backups. Keys are slash-separated and safe. */
  putObject(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void>;
  getObject(key: string, signal?: AbortSignal): Promise<Buffer | null>;
  removeObject(key: string, signal?: AbortSignal): Promise<void>;
  listObjects(prefix: string, after: string | null, limit: number, signal?: AbortSignal): Promise<ObjectEntry[]>;

  /** Where storage has an end that can be seen; null elsewhere. */
  space(signal?: AbortSignal): Promise<StorageSpace | null>;
  /** Throws STORAGE_UNAVAILABLE (or STORAGE_FULL) when reading or writing would fail now. */
  check(signal?: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

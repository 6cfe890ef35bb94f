/**
 * An upload on S3: immutable segments, and one small state object that names them in order and is only ever replaced conditionally.
 * Whoever loses that race has written a segment that nobody will read.
 *
 *   sessions/<id>/state    what counts
 *   sessions/<id>/<uuid>   a segment: a whole object, or a multipart upload still open
 *
 * An open multipart upload is in the state too: when its writer is dead, the parts that arrived are listed and become a segment. Completing
 * it is also what stops a writer that is not dead after all.
 */
import { randomUUID } from "node:crypto";
import * as z from "zod";
import { SlipwayError } from "../core/errors.ts";
import { collectBody } from "./s3-body.ts";
import type { S3Bucket } from "./s3-bucket.ts";
import { abortUpload, completeUpload, listParts, type S3Part } from "./s3-multipart.ts";

const STATE_SCHEMA = z.object({
  /** Tells our own write apart from another's when the answer to it was lost. */
  nonce: z.string(),
  segments: z.array(z.object({ name: z.string(), size: z.number().int().nonnegative() })),
  /** `base` is the offset of its first byte: the end of one of the segments; those behind it are replaced by it. */
  open: z.object({ name: z.string(), uploadId: z.string(), base: z.number().int().nonnegative() }).nullable(),
});

type StateDocument = z.infer<typeof STATE_SCHEMA>;
export type S3Segment = StateDocument["segments"][number];
export type S3OpenSegment = NonNullable<StateDocument["open"]>;

/** UploadPartCopy takes at most 10,000 parts, and each segment becomes at least one. */
export const MAX_SEGMENTS = 9_000;

export function totalSize(segments: readonly S3Segment[]): number {
  return segments.reduce((sum, segment) => sum + segment.size, 0);
}

/** Those that end at or before an offset. */
export function segmentsUntil(segments: readonly S3Segment[], offset: number): S3Segment[] {
  let end = 0;
  return segments.filter((segment) => {
    end += segment.size;
    return end <= offset;
  });
}

export class S3Session {
  readonly key: string;
  readonly #bucket: S3Bucket;
  readonly #etag: string;
  readonly #document: StateDocument;

  private constructor(bucket: S3Bucket, key: string, version: { readonly etag: string; readonly document: StateDocument }) {
    this.#bucket = bucket;
    this.key = key;
    this.#etag = version.etag;
    this.#document = version.document;
  }

  static async create(bucket: S3Bucket, key: string, signal?: AbortSignal): Promise<void> {
    const document: StateDocument = { nonce: randomUUID(), segments: [], open: null };
    const etag = await bucket.put(`${key}/state`, encodeState(document), { replaces: null }, signal);
    if (etag !== null) return;
    const present = await S3Session.load(bucket, key, signal);
    if (!present || present.#document.nonce !== document.nonce)
      throw new SlipwayError("CONFLICT", { message: "the upload exists already" });
  }

  static async load(bucket: S3Bucket, key: string, signal?: AbortSignal): Promise<S3Session | null> {
    const found = await bucket.get(`${key}/state`, undefined, signal);
    if (!found) return null;
    const bytes = await collectBody(found, bucket.limits.idleMs, signal);
    try {
      return new S3Session(bucket, key, { etag: found.etag, document: STATE_SCHEMA.parse(JSON.parse(bytes.toString("utf8"))) });
    } catch (error) {
      throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "the state of an upload is not readable", cause: error });
    }
  }

  get segments(): readonly S3Segment[] {
    return this.#document.segments;
  }

  get open(): S3OpenSegment | null {
    return this.#document.open;
  }

  segmentKey(name: string): string {
    return `${this.key}/${name}`;
  }

  /** The next version, if nobody was faster; CONFLICT or BLOB_UPLOAD_UNKNOWN otherwise. */
  async replace(segments: readonly S3Segment[], open: S3OpenSegment | null): Promise<S3Session> {
    const document: StateDocument = { nonce: randomUUID(), segments: [...segments], open };
    const etag = await this.#bucket.put(`${this.key}/state`, encodeState(document), { replaces: this.#etag });
    if (etag !== null) return new S3Session(this.#bucket, this.key, { etag, document });
    const present = await S3Session.load(this.#bucket, this.key);
    if (!present) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
    if (present.#document.nonce !== document.nonce) throw busyElsewhere();
    return present;
  }

  /** Bytes that count, those of an open segment included. */
  async size(signal?: AbortSignal): Promise<number> {
    const { open, segments } = this.#document;
    const sealed = totalSize(segments);
    if (!open) return sealed;
    const parts = await this.#openParts(open, signal);
    const arrived = parts === null ? ((await this.#bucket.head(this.segmentKey(open.name), signal))?.size ?? 0) : sizeOf(parts);
    return Math.max(sealed, open.base + arrived);
  }

  /** Without an open segment: what a dead or slower writer sent before `offset` is sealed, the rest is dropped. */
  async settle(offset: number): Promise<S3Session> {
    const { open, segments } = this.#document;
    if (!open) return this;
    const kept = segmentsUntil(segments, open.base);
    const size = offset - open.base;
    if (offset > totalSize(segments) && (await this.#seal(open, size)))
      return await this.replace([...kept, { name: open.name, size }], null);
    if (offset !== totalSize(segments)) throw busyElsewhere();
    const next = await this.replace(segments, null);
    await abortUpload(this.#bucket, { key: this.segmentKey(open.name), uploadId: open.uploadId });
    return next;
  }

  async #seal(open: S3OpenSegment, size: number): Promise<boolean> {
    const key = this.segmentKey(open.name);
    const wanted: S3Part[] = [];
    for (const part of (await this.#openParts(open)) ?? []) {
      if (sizeOf(wanted) + part.size <= size) wanted.push(part);
    }
    const upload = { key, uploadId: open.uploadId };
    if (sizeOf(wanted) === size && (await completeUpload(this.#bucket, upload, wanted))) return true;
    return (await this.#bucket.head(key))?.size === size;
  }

  async #openParts(open: S3OpenSegment, signal?: AbortSignal): Promise<S3Part[] | null> {
    return await listParts(this.#bucket, { key: this.segmentKey(open.name), uploadId: open.uploadId }, signal);
  }
}

function encodeState(document: StateDocument): Buffer {
  return Buffer.from(JSON.stringify(document));
}

function sizeOf(parts: readonly S3Part[]): number {
  return parts.reduce((sum, part) => sum + part.size, 0);
}

export function busyElsewhere(): SlipwayError {
  return new SlipwayError("CONFLICT", { message: "another request writes this upload" });
}

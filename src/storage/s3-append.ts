/**
 * Writes one append into segments: up to one part in memory; what fits into a part becomes a plain object, more becomes a multipart upload
 * that the state knows of from its first byte on.
 */
import { randomUUID } from "node:crypto";
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { collectBody } from "./s3-body.ts";
import type { S3Bucket } from "./s3-bucket.ts";
import { abortUpload, completeUpload, createUpload, S3_MIN_PART, type S3Part, type S3Upload, uploadPart } from "./s3-multipart.ts";
import { busyElsewhere, MAX_SEGMENTS, type S3Segment, type S3Session, segmentsUntil, totalSize } from "./s3-session.ts";

/** A writer that runs for hours shows that it lives, and notices that it was cut off. */
const REFRESH_MS = 5 * 60_000;

interface OpenUpload {
  readonly name: string;
  readonly upload: S3Upload;
  readonly parts: S3Part[];
}

export class S3Writer {
  readonly #bucket: S3Bucket;
  readonly #part: Buffer;
  #session: S3Session;
  #filled = 0;
  /** Offset of the first byte of the segment being written. */
  #base: number;
  #fresh = false;
  #open: OpenUpload | null = null;
  #savedAt = Date.now();

  /** The part buffer is lent until the append is over. */
  constructor(bucket: S3Bucket, session: S3Session, part: Buffer) {
    this.#bucket = bucket;
    this.#session = session;
    this.#part = part;
    this.#base = totalSize(session.segments);
  }

  /** A last segment too small to stand before another is taken in and written again with what follows. */
  async begin(): Promise<void> {
    const last = this.#session.segments.at(-1);
    if (this.#session.segments.length >= MAX_SEGMENTS)
      throw new SlipwayError("PAYLOAD_TOO_LARGE", { message: "the upload has too many chunks" });
    if (!last || last.size >= S3_MIN_PART) return;
    const found = await this.#bucket.get(this.#session.segmentKey(last.name));
    if (!found) throw busyElsewhere();
    const bytes = await collectBody(found, this.#bucket.limits.idleMs);
    this.#part.set(bytes, 0);
    this.#filled = bytes.byteLength;
    this.#base -= bytes.byteLength;
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    this.#fresh = true;
    if (this.#filled + chunk.byteLength > this.#part.byteLength) return this.#writeLong(chunk);
    this.#part.set(chunk, this.#filled);
    this.#filled += chunk.byteLength;
    return undefined;
  }

  /** Everything is in sealed segments that the state names; gives the new size. */
  async finish(): Promise<number> {
    if (this.#open) await this.#sealOpen();
    else if (this.#fresh && this.#filled > 0) await this.#putWhole();
    return totalSize(this.#session.segments);
  }

  async #writeLong(chunk: Uint8Array): Promise<void> {
    for (let from = 0; from < chunk.byteLength;) {
      // A full buffer goes out only when more follows: the last part may have any size, and none may be empty.
      if (this.#filled === this.#part.byteLength) await this.#sendPart();
      const piece = chunk.subarray(from, from + this.#part.byteLength - this.#filled);
      this.#part.set(piece, this.#filled);
      this.#filled += piece.byteLength;
      from += piece.byteLength;
    }
  }

  async #sendPart(): Promise<void> {
    if (this.#open && this.#open.parts.length >= this.#bucket.limits.partsPerSegment - 1) {
      await this.#sealOpen();
      return;
    }
    const open = (this.#open ??= await this.#openSegment());
    const part = await uploadPart(this.#bucket, open.upload, open.parts.length + 1, this.#part.subarray(0, this.#filled));
    if (!part) throw busyElsewhere();
    open.parts.push(part);
    this.#filled = 0;
    if (Date.now() - this.#savedAt > REFRESH_MS) await this.#save(this.#session.segments, this.#session.open);
  }

  async #openSegment(): Promise<OpenUpload> {
    const name = randomUUID();
    const upload = await createUpload(this.#bucket, this.#session.segmentKey(name));
    try {
      await this.#save(this.#session.segments, { name, uploadId: upload.uploadId, base: this.#base });
    } catch (error) {
      await abortUpload(this.#bucket, upload).catch(() => undefined);
      throw error;
    }
    return { name, upload, parts: [] };
  }

  async #sealOpen(): Promise<void> {
    const open = this.#open;
    if (!open) return;
    if (this.#filled > 0) {
      const part = await uploadPart(this.#bucket, open.upload, open.parts.length + 1, this.#part.subarray(0, this.#filled));
      if (!part) throw busyElsewhere();
      open.parts.push(part);
      this.#filled = 0;
    }
    const size = open.parts.reduce((sum, part) => sum + part.size, 0);
    const complete = await completeUpload(this.#bucket, open.upload, open.parts);
    if (!complete && (await this.#bucket.head(open.upload.key))?.size !== size) throw busyElsewhere();
    this.#open = null;
    await this.#adopt({ name: open.name, size });
  }

  async #putWhole(): Promise<void> {
    const segment = { name: randomUUID(), size: this.#filled };
    await this.#bucket.put(this.#session.segmentKey(segment.name), this.#part.subarray(0, this.#filled), {});
    this.#filled = 0;
    await this.#adopt(segment);
  }

  async #adopt(segment: S3Segment): Promise<void> {
    const before = this.#session.segments;
    const kept = segmentsUntil(before, this.#base);
    try {
      await this.#save([...kept, segment], null);
    } catch (error) {
      // Only when the upload is gone for good: after any other failure somebody may have taken the segment over.
      if (isSlipwayError(error, "BLOB_UPLOAD_UNKNOWN"))
        await this.#bucket.delete(this.#session.segmentKey(segment.name)).catch(() => undefined);
      throw error;
    }
    this.#base += segment.size;
    this.#fresh = false;
    const replaced = before.slice(kept.length);
    for (const old of replaced) await this.#bucket.delete(this.#session.segmentKey(old.name)).catch(() => undefined);
  }

  async #save(segments: readonly S3Segment[], open: S3Session["open"]): Promise<void> {
    this.#session = await this.#session.replace(segments, open);
    this.#savedAt = Date.now();
  }
}

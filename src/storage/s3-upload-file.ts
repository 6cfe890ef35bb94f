/** Sends a finished local file straight to its key: its digest is known, so it needs no session. */
import { open, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { SlipwayError } from "../core/errors.ts";
import { throwIfAborted } from "./append-source.ts";
import { withFsErrors } from "./fs-errors.ts";
import type { S3Bucket } from "./s3-bucket.ts";
import { abortUpload, completeUpload, createUpload, type S3Part, uploadPart } from "./s3-multipart.ts";

/** S3 takes so many parts at most. */
const MAX_PARTS = 10_000;

export interface FileUpload {
  readonly path: string;
  readonly key: string;
  readonly size: number;
  /** One part in memory; larger ones are used where the file would need too many. */
  readonly part: Buffer;
  /** The object is there already: the file only has to go. */
  readonly present: boolean;
}

export async function uploadFile(bucket: S3Bucket, upload: FileUpload, signal?: AbortSignal): Promise<void> {
  const handle = await withFsErrors(() => open(upload.path, "r"));
  try {
    const found = (await withFsErrors(() => handle.stat())).size;
    if (found !== upload.size) throw new SlipwayError("SIZE_INVALID", { detail: { expected: upload.size, found } });
    if (!upload.present) await send(bucket, upload, { handle, signal });
  } finally {
    await handle.close();
  }
  await withFsErrors(() => rm(upload.path, { force: true }));
}

interface Source {
  readonly handle: FileHandle;
  readonly signal: AbortSignal | undefined;
}

async function send(bucket: S3Bucket, upload: FileUpload, source: Source): Promise<void> {
  const { key, size } = upload;
  const needed = Math.ceil(size / (MAX_PARTS - 1));
  const part = needed > upload.part.byteLength ? Buffer.allocUnsafeSlow(needed) : upload.part;
  if (size <= part.byteLength) {
    // Null: another wrote the same content meanwhile.
    await bucket.put(key, await readAt(source, part, { position: 0, length: size }), { replaces: null }, source.signal);
    return;
  }
  const multipart = await createUpload(bucket, key, source.signal);
  try {
    const parts: S3Part[] = [];
    for (let position = 0; position < size; position += part.byteLength) {
      throwIfAborted(source.signal);
      const bytes = await readAt(source, part, { position, length: Math.min(part.byteLength, size - position) });
      const sent = await uploadPart(bucket, multipart, parts.length + 1, bytes);
      if (!sent) throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "the storage service lost an upload" });
      parts.push(sent);
    }
    if (!(await completeUpload(bucket, multipart, parts)) && (await bucket.head(key))?.size !== size) {
      throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "the storage service did not assemble the upload" });
    }
  } catch (error) {
    await abortUpload(bucket, multipart).catch(() => undefined);
    throw error;
  }
}

async function readAt(source: Source, part: Buffer, span: { readonly position: number; readonly length: number }): Promise<Buffer> {
  let filled = 0;
  while (filled < span.length) {
    const { bytesRead } = await withFsErrors(() => source.handle.read(part, filled, span.length - filled, span.position + filled));
    if (bytesRead === 0) throw new SlipwayError("STORAGE_UNAVAILABLE", { message: "a staged file is shorter than it was" });
    filled += bytesRead;
  }
  return part.subarray(0, span.length);
}

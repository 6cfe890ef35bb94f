/** How blobs, sessions and objects are named in storage, the same for both drivers; nothing unsafe gets past this file. */
import { SlipwayError } from "../core/errors.ts";
import { isDigest, requireDigest } from "../oci/digests.ts";

const SESSION_ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;
const KEY_SEGMENT = /^[A-Za-z0-9_@][A-Za-z0-9._@:+=~-]{0,199}$/;
const MAX_KEY_LENGTH = 700;
/** Lists are asked for in pages; a page larger than this is a mistake. */
export const MAX_PAGE = 10_000;

/** `blobs/<algorithm>/<2 hex>/<hex>`. */
export function blobKey(digest: string): string {
  const { algorithm, encoded } = requireDigest(digest);
  return `blobs/${algorithm}/${encoded.slice(0, 2)}/${encoded}`;
}

/** Null for what does not lie where a blob would. */
export function digestOfBlobKey(key: string): string | null {
  const [top, algorithm, shard, encoded, ...rest] = key.split("/");
  if (top !== "blobs" || encoded === undefined || rest.length > 0 || shard !== encoded.slice(0, 2)) return null;
  const digest = `${algorithm}:${encoded}`;
  return isDigest(digest) ? digest : null;
}

export function sessionKey(id: string): string {
  if (!SESSION_ID.test(id)) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN", { message: "the upload id is malformed" });
  return `sessions/${id}`;
}

export function objectKey(key: string): string {
  if (key.length > MAX_KEY_LENGTH || !key.split("/").every((segment) => KEY_SEGMENT.test(segment))) {
    throw new SlipwayError("BAD_REQUEST", { message: "the object key is malformed" });
  }
  return `objects/${key}`;
}

/** A prefix may end inside a segment, or with a slash, or be empty. */
export function objectPrefix(prefix: string): string {
  const segments = prefix.split("/");
  const last = segments.pop() ?? "";
  const sound = segments.every((segment) => KEY_SEGMENT.test(segment)) && (last === "" || KEY_SEGMENT.test(last));
  if (prefix.length > MAX_KEY_LENGTH || !sound) throw new SlipwayError("BAD_REQUEST", { message: "the object prefix is malformed" });
  return `objects/${prefix}`;
}

export function requirePage(limit: number): number {
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_PAGE)
    throw new SlipwayError("BAD_REQUEST", { message: "the page size is out of bounds" });
  return limit;
}

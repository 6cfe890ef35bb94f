/** What stands behind `/manifests/`: a tag or a digest. */
import { SlipwayError } from "../core/errors.ts";
import { isDigest, requireDigest } from "./digests.ts";

const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

export type Reference = { readonly kind: "tag"; readonly tag: string } | { readonly kind: "digest"; readonly digest: string };

export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** A colon makes it a digest; null when it is neither. */
export function parseReference(text: string): Reference | null {
  if (text.includes(":")) return isDigest(text) ? { kind: "digest", digest: text } : null;
  return isTag(text) ? { kind: "tag", tag: text } : null;
}

/** For writes: DIGEST_INVALID or MANIFEST_INVALID. Reads may answer an impossible reference as unknown. */
export function requireReference(text: string): Reference {
  if (text.includes(":")) requireDigest(text);
  const reference = parseReference(text);
  if (reference) return reference;
  throw new SlipwayError("MANIFEST_INVALID", { message: "the reference is neither a tag nor a digest" });
}

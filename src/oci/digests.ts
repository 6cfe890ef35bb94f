/** Content digests: which algorithms are served, how they are written, and the tag that stands in for the referrers API. */
import { SlipwayError } from "../core/errors.ts";

export type DigestAlgorithm = "sha256" | "sha512";

export const DEFAULT_DIGEST_ALGORITHM: DigestAlgorithm = "sha256";

const HEX_LENGTH: Readonly<Record<DigestAlgorithm, number>> = { sha256: 64, sha512: 128 };
const LOWER_HEX = /^[a-f0-9]+$/;
/** The referrers tag is `<algorithm, 32 characters>-<encoded, 64 characters>`. */
const REFERRERS_TAG = /^(sha256|sha512)-([a-f0-9]{64})$/;

export interface ParsedDigest {
  readonly algorithm: DigestAlgorithm;
  readonly encoded: string;
}

export function isDigestAlgorithm(value: string): value is DigestAlgorithm {
  return value === "sha256" || value === "sha512";
}

/** Null for anything but a well-formed digest of a served algorithm. */
export function parseDigest(text: string): ParsedDigest | null {
  const colon = text.indexOf(":");
  const algorithm = text.slice(0, Math.max(colon, 0));
  if (!isDigestAlgorithm(algorithm)) return null;
  const encoded = text.slice(colon + 1);
  if (encoded.length !== HEX_LENGTH[algorithm] || !LOWER_HEX.test(encoded)) return null;
  return { algorithm, encoded };
}

export function isDigest(text: string): boolean {
  return parseDigest(text) !== null;
}

export function requireDigest(text: string): ParsedDigest {
  const parsed = parseDigest(text);
  if (parsed) return parsed;
  throw new SlipwayError("DIGEST_INVALID", { message: "the digest is malformed or of an algorithm that is not served" });
}

/** The tag under which clients keep a subject's referrers where the API is missing; sha512 is cut, as the specification says. */
export function referrersTag(digest: string): string {
  const colon = digest.indexOf(":");
  const algorithm = digest.slice(0, colon).slice(0, 32);
  const encoded = digest.slice(colon + 1).slice(0, 64);
  return `${algorithm}-${encoded}`.replaceAll(/[^a-zA-Z0-9._-]/g, "-");
}

/** The beginning of the subject's digest (for sha256 all of it) when the tag has the form of a referrers tag. */
export function subjectPrefixOfTag(tag: string): string | null {
  const match = REFERRERS_TAG.exec(tag);
  return match ? `${match[1]}:${match[2]}` : null;
}

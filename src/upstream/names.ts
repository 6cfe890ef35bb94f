/**
 * Keeps names from becoming other paths. Whether a name is legal is decided where requests come in; here only what could change the
 * meaning of a URL is refused.
 */
import { SlipwayError } from "../core/errors.ts";

const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const DIGEST = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-zA-Z=_-]{32,256}$/;

export function isLegalTag(text: unknown): text is string {
  return typeof text === "string" && TAG.test(text);
}

export function isDigest(text: unknown): text is string {
  return typeof text === "string" && DIGEST.test(text);
}

export function isRepositoryPath(text: unknown): text is string {
  if (typeof text !== "string" || text.length > 1024) return false;
  return text.split("/").every((part) => /^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(part));
}

export function repositoryPath(repository: string): string {
  if (!isRepositoryPath(repository)) throw new SlipwayError("NAME_INVALID");
  return `/v2/${repository}`;
}

export function manifestPath(repository: string, reference: string): string {
  if (!TAG.test(reference) && !DIGEST.test(reference))
    throw new SlipwayError("MANIFEST_UNKNOWN", { message: "not a tag and not a digest" });
  return `${repositoryPath(repository)}/manifests/${reference}`;
}

export function blobPath(repository: string, digest: string): string {
  if (!DIGEST.test(digest)) throw new SlipwayError("DIGEST_INVALID", { message: "not a digest" });
  return `${repositoryPath(repository)}/blobs/${digest}`;
}

export function scopeOf(repository: string, actions: string): string {
  return `repository:${repository}:${actions}`;
}

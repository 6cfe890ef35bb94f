/** The list of referrers that clients keep under a tag where a registry has no API for it. Pure. */
import { isObject } from "./descriptors.ts";
import { MEDIA_TYPES } from "./media-types.ts";

export interface ListedReferrer {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Null when the list has it already. What is no list is replaced. */
export function mergeReferrers(before: Uint8Array | null, added: ListedReferrer): string | null {
  const entries = before === null ? [] : readEntries(before);
  if (entries.some((entry) => isObject(entry) && entry["digest"] === added.digest)) return null;
  return JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests: [...entries, added] });
}

function readEntries(bytes: Uint8Array): readonly unknown[] {
  try {
    const document: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isObject(document) && Array.isArray(document["manifests"]) ? document["manifests"] : [];
  } catch {
    return [];
  }
}

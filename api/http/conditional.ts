/** Entity tags of content: the digest in quotes. Comparison is weak for If-None-Match and strong for If-Match, as RFC 9110 says. */

export type EntityTags = "*" | readonly string[];

const ENTITY_TAG = /(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"|[^\s,"]+/g;

/** The opaque parts of a header's list; weak ones are left out when the comparison is strong. Unquoted values are taken as they are. */
export function parseEntityTags(header: string, comparison: "weak" | "strong"): EntityTags {
  if (header.trim() === "*") return "*";
  const tags: string[] = [];
  for (const match of header.matchAll(ENTITY_TAG)) {
    if (match[1] !== undefined && comparison === "strong") continue;
    tags.push(match[2] ?? match[0]);
  }
  return tags;
}

export function matchesEntityTag(header: string | undefined, digest: string): boolean {
  if (header === undefined) return false;
  const tags = parseEntityTags(header, "weak");
  return tags === "*" || tags.includes(digest);
}

/** The one digest (or "*") that a conditional write names; undefined without the header, null when it can match nothing. */
export function conditionOf(header: string | undefined, comparison: "weak" | "strong"): string | null | undefined {
  if (header === undefined) return undefined;
  const tags = parseEntityTags(header, comparison);
  if (tags === "*") return "*";
  return tags.length === 1 ? (tags[0] ?? null) : null;
}

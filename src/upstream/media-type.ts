/** What a manifest is, when its Content-Type does not say. */

export const MANIFEST_TYPES = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.docker.distribution.manifest.v2+json",
] as const;

const SCHEMA1_TYPES: readonly string[] = [
  "application/vnd.docker.distribution.manifest.v1+prettyjws",
  "application/vnd.docker.distribution.manifest.v1+json",
];

/** Always the whole set: with less, registries convert or name another digest. Schema 1 comes last, so that it is seen and refused by name. */
export const MANIFEST_ACCEPT = [...MANIFEST_TYPES, ...SCHEMA1_TYPES.map((type) => `${type};q=0.1`)].join(", ");

const KNOWN: ReadonlySet<string> = new Set([...MANIFEST_TYPES, ...SCHEMA1_TYPES]);
const GENERIC: ReadonlySet<string> = new Set(["", "application/json", "text/plain", "application/octet-stream", "binary/octet-stream"]);

export function bareMediaType(header: string | undefined): string {
  return (header ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
}

/** Null when this is no manifest at all. */
export function manifestMediaType(contentType: string | undefined, bytes: Buffer): string | null {
  const declared = bareMediaType(contentType);
  if (declared === "text/html") return null;
  const document = parseObject(bytes);
  if (!document) return null;
  const inside = typeof document["mediaType"] === "string" ? document["mediaType"] : null;
  if (KNOWN.has(declared)) return inside !== null && KNOWN.has(inside) && inside !== declared ? null : declared;
  if (inside !== null && inside.length <= 255 && /^[\w.+-]+\/[\w.+-]+$/.test(inside)) return inside;
  if (document["schemaVersion"] === 1) return SCHEMA1_TYPES[0] ?? null;
  if (Array.isArray(document["manifests"])) return MANIFEST_TYPES[0];
  if (Array.isArray(document["layers"])) return MANIFEST_TYPES[1];
  // An artifact type that we do not know is still a manifest if the registry says so; an error document is not.
  return GENERIC.has(declared) || "errors" in document ? null : declared;
}

export function parseObject(bytes: Buffer): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(bytes.toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

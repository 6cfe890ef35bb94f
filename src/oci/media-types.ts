/** The media types that decide how content is read. Everything else is opaque. */
export const MEDIA_TYPES = {
  ociImage: "application/vnd.oci.image.manifest.v1+json",
  ociIndex: "application/vnd.oci.image.index.v1+json",
  /** Withdrawn from the specification, still pushed by older clients. */
  ociArtifact: "application/vnd.oci.artifact.manifest.v1+json",
  ociEmpty: "application/vnd.oci.empty.v1+json",
  dockerImage: "application/vnd.docker.distribution.manifest.v2+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerSchema1: "application/vnd.docker.distribution.manifest.v1+json",
  dockerSchema1Signed: "application/vnd.docker.distribution.manifest.v1+prettyjws",
  octetStream: "application/octet-stream",
} as const;

export type ManifestKind = "image" | "index" | "artifact" | "docker-image" | "docker-list";

const KIND_BY_TYPE: ReadonlyMap<string, ManifestKind> = new Map<string, ManifestKind>([
  [MEDIA_TYPES.ociImage, "image"],
  [MEDIA_TYPES.ociIndex, "index"],
  [MEDIA_TYPES.ociArtifact, "artifact"],
  [MEDIA_TYPES.dockerImage, "docker-image"],
  [MEDIA_TYPES.dockerList, "docker-list"],
]);

const NON_DISTRIBUTABLE =
  /^application\/vnd\.(?:oci\.image\.layer\.nondistributable\.v1\.tar(?:[+.].+)?|docker\.image\.rootfs\.foreign\.diff\.tar(?:\.gzip)?)$/;

/** Types that say nothing about the content; then its own fields decide. */
const GENERIC = new Set(["application/json", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded"]);

/** What an upstream is asked for: always the full set, else it converts or picks a platform. */
export const MANIFEST_ACCEPT: readonly string[] = [
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.ociImage,
  MEDIA_TYPES.dockerList,
  MEDIA_TYPES.dockerImage,
  MEDIA_TYPES.ociArtifact,
];

export function manifestKindOf(mediaType: string): ManifestKind | undefined {
  return KIND_BY_TYPE.get(mediaType);
}

export function isIndexKind(kind: ManifestKind): boolean {
  return kind === "index" || kind === "docker-list";
}

export function isSchema1(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.dockerSchema1 || mediaType === MEDIA_TYPES.dockerSchema1Signed;
}

/** Layers that a registry need not hold. */
export function isNonDistributable(mediaType: string): boolean {
  return NON_DISTRIBUTABLE.test(mediaType);
}

export function isGenericType(mediaType: string): boolean {
  return GENERIC.has(mediaType);
}

/** A Content-Type without its parameters, in lower case. */
export function essence(contentType: string): string {
  const semicolon = contentType.indexOf(";");
  return (semicolon < 0 ? contentType : contentType.slice(0, semicolon)).trim().toLowerCase();
}

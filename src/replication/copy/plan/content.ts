/** What a manifest stands for, as copying sees it: blobs to bring over, children to go into. Pure. */
import { SlipwayError } from "../../../core/errors.ts";
import { parseManifest } from "../../../oci/manifest.ts";
import type { Descriptor } from "../../../oci/manifest.ts";
import { isIndexKind, isNonDistributable, isSchema1 } from "../../../oci/media-types.ts";

export interface BlobRef {
  readonly digest: string;
  readonly size: number;
}

export interface Outline {
  /** Config first, each digest once; layers that nobody has to hold are left out. */
  readonly blobs: readonly BlobRef[];
  readonly children: readonly Descriptor[];
  readonly subject: string | null;
  readonly artifactType: string | null;
  readonly annotations: Readonly<Record<string, string>>;
}

/** MANIFEST_INVALID for what cannot be copied, the old schema 1 among it. */
export function outlineManifest(bytes: Uint8Array, mediaType: string): Outline {
  if (isSchema1(mediaType)) {
    throw new SlipwayError("MANIFEST_INVALID", {
      message: "the manifest is of the old schema 1, which is not copied; push the image again",
    });
  }
  const parsed = parseManifest(bytes, mediaType);
  const { subject, artifactType, annotations } = parsed;
  const common = { subject: subject?.digest ?? null, artifactType, annotations };
  if (isIndexKind(parsed.kind)) return { ...common, blobs: [], children: parsed.manifests };
  const wanted = [...(parsed.config ? [parsed.config] : []), ...parsed.layers].filter((each) => !isNonDistributable(each.mediaType));
  const blobs = new Map(wanted.map(({ digest, size }) => [digest, { digest, size }]));
  return { ...common, blobs: [...blobs.values()], children: [] };
}

/** Of an attestation in an index: the image that it speaks of. */
const ATTESTS = "vnd.docker.reference.digest";

/**
 * The children that a platform filter leaves: those of a wanted platform, with what attests them, and what has no platform at all. Patterns are
 * `os/architecture` with an optional variant.
 */
export function selectChildren(children: readonly Descriptor[], platforms: readonly string[] | null): readonly Descriptor[] {
  if (platforms === null) return children;
  const direct = children.filter((child) => child.annotations?.[ATTESTS] === undefined && matchesPlatform(child, platforms));
  const kept = new Set(direct.map((child) => child.digest));
  return children.filter((child) => kept.has(child.digest) || kept.has(child.annotations?.[ATTESTS] ?? ""));
}

function matchesPlatform(child: Descriptor, patterns: readonly string[]): boolean {
  const { platform } = child;
  if (!platform) return true;
  const short = `${platform.os}/${platform.architecture}`;
  return patterns.some((pattern) => pattern === short || pattern === `${short}/${platform.variant ?? ""}`);
}

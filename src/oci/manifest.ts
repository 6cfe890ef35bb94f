/**
 * Reads a manifest as far as a registry must understand it. The bytes are never rewritten, so fields that are unknown here stay as they
 * came; what is read is checked, since blobs, children and referrers are kept by it.
 */
import { SlipwayError } from "../core/errors.ts";
import { LIMITS } from "../core/limits.ts";
import {
  type Descriptor,
  type JsonObject,
  invalidManifest,
  isAbsent,
  isObject,
  optionalString,
  readAnnotations,
  readDescriptor,
  readDescriptors,
} from "./descriptors.ts";
import { nestsDeeperThan } from "./json-depth.ts";
import { MEDIA_TYPES, type ManifestKind, essence, isGenericType, isSchema1, manifestKindOf } from "./media-types.ts";

export type { Descriptor, Platform } from "./descriptors.ts";

export interface ParsedManifest {
  readonly kind: ManifestKind;
  readonly mediaType: string;
  readonly config: Descriptor | null;
  /** Layers of an image, blobs of an artifact manifest. */
  readonly layers: readonly Descriptor[];
  /** Children of an index. */
  readonly manifests: readonly Descriptor[];
  readonly subject: Descriptor | null;
  /** As declared, else the media type of the config: what referrers and their filter go by. */
  readonly artifactType: string | null;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface ParseOptions {
  readonly maxBytes?: number;
  readonly maxDepth?: number;
}

/** Throws PAYLOAD_TOO_LARGE or MANIFEST_INVALID. Without a telling Content-Type the document's own fields decide. */
export function parseManifest(content: Uint8Array | string, contentType: string | undefined, options: ParseOptions = {}): ParsedManifest {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  if (bytes.length > (options.maxBytes ?? LIMITS.manifestBytes))
    throw new SlipwayError("PAYLOAD_TOO_LARGE", { message: "the manifest is larger than the limit" });
  const document = parseDocument(bytes, options.maxDepth ?? LIMITS.manifestDepth);
  const mediaType = decideMediaType(document, contentType);
  const kind = manifestKindOf(mediaType);
  if (!kind) throw invalidManifest("the media type is not that of a manifest", { mediaType });
  return readManifest(document, mediaType, kind);
}

function parseDocument(bytes: Uint8Array, maxDepth: number): JsonObject {
  if (nestsDeeperThan(bytes, maxDepth)) throw invalidManifest(`the manifest nests deeper than ${maxDepth} levels`);
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw new SlipwayError("MANIFEST_INVALID", { message: "the manifest is not valid JSON", cause });
  }
  if (!isObject(document)) throw invalidManifest("the manifest is not a JSON object");
  return document;
}

function decideMediaType(document: JsonObject, contentType: string | undefined): string {
  const declared = optionalString(document, "mediaType", "manifest");
  const header = contentType === undefined ? "" : essence(contentType);
  const telling = header !== "" && !isGenericType(header);
  if (document["schemaVersion"] === 1 || isSchema1(header) || (declared !== undefined && isSchema1(declared)))
    throw invalidManifest("schema 1 manifests are not accepted; push the image again with a current client");
  if (telling && declared !== undefined && declared !== header)
    throw invalidManifest("the mediaType field differs from the Content-Type", { mediaType: declared, contentType: header });
  return declared ?? (telling ? header : guessMediaType(document));
}

/** OCI documents may leave the field out; Docker's never do. */
function guessMediaType(document: JsonObject): string {
  if (Array.isArray(document["manifests"])) return MEDIA_TYPES.ociIndex;
  if (isObject(document["config"])) return MEDIA_TYPES.ociImage;
  throw invalidManifest("the media type of the manifest is not known");
}

function readManifest(document: JsonObject, mediaType: string, kind: ManifestKind): ParsedManifest {
  if (kind !== "artifact" && document["schemaVersion"] !== 2) throw invalidManifest("schemaVersion must be 2");
  const common = {
    kind,
    mediaType,
    subject: isAbsent(document["subject"]) ? null : readDescriptor(document["subject"], "subject"),
    annotations: readAnnotations(document, "manifest") ?? {},
  };
  const artifactType = optionalString(document, "artifactType", "manifest") ?? null;
  if (kind === "index" || kind === "docker-list") {
    refuseField(document, "layers", kind);
    refuseField(document, "config", kind);
    return { ...common, artifactType, config: null, layers: [], manifests: readDescriptors(document["manifests"], "manifests") };
  }
  refuseField(document, "manifests", kind);
  if (kind === "artifact")
    return { ...common, artifactType, config: null, layers: readDescriptors(document["blobs"], "blobs"), manifests: [] };
  const config = readDescriptor(document["config"], "config");
  const layers = readDescriptors(document["layers"], "layers");
  return { ...common, artifactType: artifactType ?? config.mediaType, config, layers, manifests: [] };
}

/** A document that is an image to one client and an index to another is an attack. */
function refuseField(document: JsonObject, field: string, kind: ManifestKind): void {
  if (!isAbsent(document[field])) throw invalidManifest(`a manifest of kind ${kind} must not have ${field}`);
}

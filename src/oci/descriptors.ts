/** Descriptors, read strictly where the registry depends on a field and left alone elsewhere. */
import { SlipwayError } from "../core/errors.ts";
import { isDigest } from "./digests.ts";

export interface Platform {
  readonly architecture: string;
  readonly os: string;
  readonly variant?: string;
  readonly osVersion?: string;
  readonly osFeatures?: readonly string[];
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly urls?: readonly string[];
  readonly platform?: Platform;
}

export type JsonObject = Readonly<Record<string, unknown>>;

export function invalidManifest(message: string, detail?: unknown): SlipwayError {
  return new SlipwayError("MANIFEST_INVALID", detail === undefined ? { message } : { message, detail });
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Absent and null are the same, as most writers of these documents see it. */
export function isAbsent(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}

/** Text that every store can keep: no NUL, no half of a surrogate pair. */
function isPlainText(value: unknown): value is string {
  return typeof value === "string" && !value.includes("\0") && value.isWellFormed();
}

export function optionalString(source: JsonObject, key: string, where: string): string | undefined {
  const value = source[key];
  if (isAbsent(value)) return undefined;
  if (!isPlainText(value)) throw invalidManifest(`${where}.${key} must be a string`);
  return value === "" ? undefined : value;
}

export function readAnnotations(source: JsonObject, where: string): Readonly<Record<string, string>> | undefined {
  const value = source["annotations"];
  if (isAbsent(value)) return undefined;
  if (!isObject(value) || !Object.entries(value).every((entry) => entry.every(isPlainText)))
    throw invalidManifest(`${where}.annotations must be an object of strings`);
  return value as Readonly<Record<string, string>>;
}

export function readDescriptor(value: unknown, where: string): Descriptor {
  if (!isObject(value)) throw invalidManifest(`${where} must be a descriptor`);
  const { digest, size } = value;
  const mediaType = optionalString(value, "mediaType", where);
  if (mediaType === undefined) throw invalidManifest(`${where}.mediaType is missing`);
  if (typeof digest !== "string" || !isDigest(digest)) throw invalidManifest(`${where}.digest is not a valid digest`);
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) throw invalidManifest(`${where}.size is not a valid size`);
  const artifactType = optionalString(value, "artifactType", where);
  const annotations = readAnnotations(value, where);
  const urls = readUrls(value, where);
  const platform = readPlatform(value["platform"]);
  return {
    mediaType,
    digest,
    size,
    ...(artifactType !== undefined && { artifactType }),
    ...(annotations && { annotations }),
    ...(urls && { urls }),
    ...(platform && { platform }),
  };
}

export function readDescriptors(value: unknown, where: string): Descriptor[] {
  if (isAbsent(value)) return [];
  if (!Array.isArray(value)) throw invalidManifest(`${where} must be a list`);
  return value.map((entry, position) => readDescriptor(entry, `${where}[${position}]`));
}

function readUrls(source: JsonObject, where: string): readonly string[] | undefined {
  const value = source["urls"];
  if (isAbsent(value)) return undefined;
  if (!Array.isArray(value) || !value.every((entry) => typeof entry === "string")) throw invalidManifest(`${where}.urls must be strings`);
  return value.length > 0 ? value : undefined;
}

/** Only informative for the registry, so an odd one is dropped and not refused. */
function readPlatform(value: unknown): Platform | undefined {
  if (!isObject(value)) return undefined;
  const { architecture, os, variant } = value;
  if (!isPlainText(architecture) || !isPlainText(os)) return undefined;
  const osVersion = value["os.version"];
  const osFeatures = value["os.features"];
  return {
    architecture,
    os,
    ...(isPlainText(variant) && { variant }),
    ...(isPlainText(osVersion) && { osVersion }),
    ...(Array.isArray(osFeatures) && { osFeatures: osFeatures.filter(isPlainText) }),
  };
}

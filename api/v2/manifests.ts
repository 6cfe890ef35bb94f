/** Manifests by tag and by digest: exact bytes, exact types, conditional reads and writes. */
import type { ManifestPut, ManifestPutResult, StoredManifest } from "../../src/catalog/registry.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { requireDigest } from "../../src/oci/digests.ts";
import { isTag, parseReference, requireReference } from "../../src/oci/references.ts";
import { readBody } from "../http/body.ts";
import { conditionOf, matchesEntityTag } from "../http/conditional.ts";
import { projectForWrite } from "./access.ts";
import type { Exchange } from "./exchange.ts";
import type { RegistryServices } from "./services.ts";
import type { LocalTarget } from "./target.ts";

export function manifestHeaders(manifest: StoredManifest): string[] {
  return ["Content-Type", manifest.mediaType, "Docker-Content-Digest", manifest.digest, "ETag", `"${manifest.digest}"`];
}

export function sendManifest(exchange: Exchange, manifest: StoredManifest): void {
  const headers = manifestHeaders(manifest);
  if (matchesEntityTag(exchange.req.headers["if-none-match"], manifest.digest)) {
    exchange.send(304, headers.slice(2));
    return;
  }
  exchange.send(200, headers, manifest.bytes);
}

export async function readManifest(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<void> {
  const reference = exchange.route?.reference ?? "";
  if (reference.includes(":")) requireDigest(reference);
  if (parseReference(reference) === null) throw unknownManifest(reference);
  if (target.project === null) throw new SlipwayError("NAME_UNKNOWN", { detail: { name: target.requested } });
  const manifest = await services.reader.findManifest(target.repository, reference, exchange.signal);
  if (!manifest) throw unknownManifest(reference);
  sendManifest(exchange, manifest);
}

function unknownManifest(reference: string): SlipwayError {
  return new SlipwayError("MANIFEST_UNKNOWN", { detail: { reference } });
}

/** `store` takes the manifest in; the catalog does, unless it has to go elsewhere first. */
export async function putManifest(
  exchange: Exchange,
  target: LocalTarget,
  services: RegistryServices,
  store: (put: ManifestPut) => Promise<ManifestPutResult> = (put) => services.writer.putManifest(put),
): Promise<void> {
  const { req, res } = exchange;
  const reference = requireReference(exchange.route?.reference ?? "");
  const parameterTags = tagParameters(exchange);
  const digestParameter = exchange.parameter("digest");
  if (digestParameter !== null) requireDigest(digestParameter);
  const condition = writeCondition(exchange);
  const bytes = await readBody(req, res, LIMITS.manifestBytes);
  const project = await projectForWrite(exchange, target, services);
  const result = await store({
    repository: target.repository,
    project,
    tags: [...new Set(reference.kind === "tag" ? [reference.tag, ...parameterTags] : parameterTags)],
    digest: reference.kind === "digest" ? reference.digest : digestParameter,
    contentType: req.headers["content-type"],
    bytes,
    principal: exchange.principal,
    sparse: services.settings.sparseImages,
    ...condition,
  });
  exchange.send(201, createdHeaders(target.requested, result, parameterTags));
}

function createdHeaders(requested: string, result: ManifestPutResult, parameterTags: readonly string[]): string[] {
  const headers = [
    "Location",
    `/v2/${requested}/manifests/${result.digest}`,
    "Docker-Content-Digest",
    result.digest,
    "ETag",
    `"${result.digest}"`,
  ];
  if (result.subject !== null) headers.push("OCI-Subject", result.subject);
  for (const tag of result.tags) if (parameterTags.includes(tag)) headers.push("OCI-Tag", tag);
  return headers;
}

function tagParameters(exchange: Exchange): string[] {
  const tags = exchange.query.getAll("tag");
  if (tags.length > LIMITS.tagsPerManifestPut) {
    throw new SlipwayError("URI_TOO_LONG", { message: `at most ${LIMITS.tagsPerManifestPut} tags in one request` });
  }
  const wrong = tags.find((tag) => !isTag(tag));
  if (wrong !== undefined) throw new SlipwayError("MANIFEST_INVALID", { message: "a tag parameter is not a valid tag" });
  return tags;
}

function writeCondition(exchange: Exchange): Pick<ManifestPut, "ifMatch" | "ifNoneMatch"> {
  const ifMatch = conditionOf(exchange.req.headers["if-match"], "strong");
  const ifNoneMatch = conditionOf(exchange.req.headers["if-none-match"], "weak");
  // A list that holds no single tag can match nothing that we could store.
  if (ifMatch === null) throw new SlipwayError("PRECONDITION_FAILED");
  return { ...(ifMatch === undefined ? {} : { ifMatch }), ...(typeof ifNoneMatch === "string" ? { ifNoneMatch } : {}) };
}

/** A tag alone goes when the reference is a tag; by digest the manifest goes with every tag that points to it. */
export async function deleteManifest(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<void> {
  const reference = requireReference(exchange.route?.reference ?? "");
  if (target.project === null) throw new SlipwayError("NAME_UNKNOWN", { detail: { name: target.requested } });
  const { principal } = exchange;
  const ifMatch = conditionOf(exchange.req.headers["if-match"], "strong");
  if (ifMatch === null) throw new SlipwayError("PRECONDITION_FAILED");
  let removed: boolean;
  if (reference.kind === "tag") {
    const options = ifMatch === undefined ? { principal } : { principal, ifMatch };
    removed = await services.writer.deleteTag(target.repository, reference.tag, options);
  } else {
    if (ifMatch !== undefined && ifMatch !== "*" && ifMatch !== reference.digest) throw new SlipwayError("PRECONDITION_FAILED");
    removed = await services.writer.deleteManifest(target.repository, reference.digest, { principal });
  }
  if (!removed) throw unknownManifest(exchange.route?.reference ?? "");
  exchange.send(202, []);
}

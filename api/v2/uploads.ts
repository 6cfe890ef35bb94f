/** Uploads: monolithic, in chunks, streamed, mounted. Locations are relative, so that they hold behind any proxy and in any process. */
import type { StoredBlob, UploadAppend, UploadState } from "../../src/catalog/registry.ts";
import { SlipwayError, isSlipwayError } from "../../src/core/errors.ts";
import { parseContentRange } from "../../src/oci/content-range.ts";
import { isDigestAlgorithm, requireDigest } from "../../src/oci/digests.ts";
import { parseRepositoryName } from "../../src/oci/names.ts";
import { declaredLength, invitesBody, waitsForInvitation } from "../http/body.ts";
import { mayMountFrom, projectForWrite } from "./access.ts";
import { withHeaders } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import type { RegistryServices } from "./services.ts";
import type { LocalTarget } from "./target.ts";

const UPLOAD_ID = /^[A-Za-z0-9_-]{1,64}$/;

export async function startUpload(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<void> {
  const digest = exchange.parameter("digest");
  const mount = exchange.parameter("mount");
  const algorithm = exchange.parameter("digest-algorithm");
  if (algorithm !== null && !isDigestAlgorithm(algorithm)) {
    throw new SlipwayError("DIGEST_INVALID", { message: "the digest algorithm is not served", detail: { algorithm } });
  }
  const wanted = digest ?? mount;
  if (wanted !== null) requireDigest(wanted);
  const project = await projectForWrite(exchange, target, services);
  if (mount !== null) {
    const mounted = await mountBlob(exchange, { ...target, project }, { digest: mount, services });
    if (mounted) {
      sendBlobCreated(exchange, target.requested, mount);
      return;
    }
  }
  if (digest !== null) {
    const { source, length, principal } = appendOf(exchange, "", target);
    await services.writer.uploadBlob({ repository: target.repository, project, digest, source, length, principal });
    sendBlobCreated(exchange, target.requested, digest);
    return;
  }
  const upload = await services.writer.startUpload({
    repository: target.repository,
    principal: exchange.principal,
    algorithm: algorithm ?? (mount === null ? null : mount.slice(0, mount.indexOf(":"))),
  });
  const minimum = services.store.chunkMinBytes;
  const headers = minimum > 0 ? ["OCI-Chunk-Min-Length", String(minimum)] : [];
  exchange.send(202, [...uploadHeaders(target.requested, upload), ...headers]);
}

type WritableTarget = LocalTarget & { readonly project: NonNullable<LocalTarget["project"]> };

/** Null when there is nothing to mount or the caller may not read it; the two look the same from outside. */
async function mountBlob(
  exchange: Exchange,
  target: WritableTarget,
  { digest, services }: { digest: string; services: RegistryServices },
): Promise<StoredBlob | null> {
  const asked = exchange.parameter("from");
  const from = asked === null ? null : parseRepositoryName(asked);
  if (asked !== null && from === null) return null;
  return services.writer.mountBlob({
    repository: target.repository,
    project: target.project,
    digest,
    from: from?.name ?? null,
    mayRead: (project) => mayMountFrom(exchange, project, { from: asked, services }),
    principal: exchange.principal,
  });
}

export async function uploadStatus(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<void> {
  const upload = await findUpload(exchange, target, services);
  exchange.send(204, uploadHeaders(target.requested, upload));
}

export async function appendUpload(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<void> {
  const id = uploadId(exchange);
  if (waitsForInvitation(exchange.req)) await findUpload(exchange, target, services);
  try {
    const upload = await services.writer.appendUpload(appendOf(exchange, id, target));
    exchange.send(202, uploadHeaders(target.requested, upload));
  } catch (error) {
    throw await describeRefusal(error, { exchange, target, services });
  }
}

export async function finishUpload(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<void> {
  const id = uploadId(exchange);
  const digest = exchange.parameter("digest");
  if (digest === null) throw new SlipwayError("DIGEST_INVALID", { message: "the digest parameter is missing" });
  requireDigest(digest);
  if (waitsForInvitation(exchange.req)) await findUpload(exchange, target, services);
  const project = await projectForWrite(exchange, target, services);
  try {
    await services.writer.finishUpload({ ...appendOf(exchange, id, target), project, digest });
  } catch (error) {
    throw await describeRefusal(error, { exchange, target, services });
  }
  sendBlobCreated(exchange, target.requested, digest);
}

export async function cancelUpload(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<void> {
  const id = uploadId(exchange);
  if (!(await services.writer.cancelUpload(id, target.repository))) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
  exchange.send(204, []);
}

async function findUpload(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<UploadState> {
  const upload = await services.writer.findUpload(uploadId(exchange), target.repository);
  if (!upload) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
  return upload;
}

function uploadId(exchange: Exchange): string {
  const id = exchange.route?.reference ?? "";
  if (!UPLOAD_ID.test(id)) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
  return id;
}

/** The body as what comes next in the upload. */
function appendOf(exchange: Exchange, id: string, target: LocalTarget): UploadAppend {
  const { req, res, principal } = exchange;
  const declared = declaredLength(req);
  const header = req.headers["content-range"];
  const range = header === undefined ? null : parseContentRange(header);
  if (header !== undefined && range === null) {
    throw new SlipwayError("BLOB_UPLOAD_INVALID", { message: "the Content-Range is not valid" });
  }
  if (range !== null && declared !== null && declared !== range.length) {
    throw new SlipwayError("SIZE_INVALID", { message: "Content-Range and Content-Length do not agree" });
  }
  invitesBody(req, res);
  return { id, repository: target.repository, source: req, start: range?.start ?? null, length: range?.length ?? declared, principal };
}

/** A client that lost count finds in the answer where the upload stands. */
async function describeRefusal(
  error: unknown,
  { exchange, target, services }: { exchange: Exchange; target: LocalTarget; services: RegistryServices },
): Promise<unknown> {
  if (!isSlipwayError(error, "RANGE_INVALID")) return error;
  const upload = await services.writer.findUpload(uploadId(exchange), target.repository);
  return upload ? withHeaders(error, uploadHeaders(target.requested, upload)) : error;
}

/** The Range of an upload has no unit, and "0-0" stands for one byte as well as for none. */
function uploadHeaders(requested: string, upload: UploadState): string[] {
  return [
    "Location",
    `/v2/${requested}/blobs/uploads/${upload.id}`,
    "Range",
    `0-${Math.max(0, upload.offset - 1)}`,
    "Docker-Upload-UUID",
    upload.id,
  ];
}

function sendBlobCreated(exchange: Exchange, requested: string, digest: string): void {
  exchange.send(201, ["Location", `/v2/${requested}/blobs/${digest}`, "Docker-Content-Digest", digest]);
}

/** Blobs: whole, in part, or only their size; and the end of a repository's right to one. */
import type { StoredBlob } from "../../src/catalog/registry.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { requireDigest } from "../../src/oci/digests.ts";
import { parseRange } from "../../src/oci/ranges.ts";
import { matchesEntityTag } from "../http/conditional.ts";
import { withHeaders } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import type { BlobSender } from "./send-blob.ts";
import type { RegistryServices } from "./services.ts";
import type { LocalTarget } from "./target.ts";

export function blobHeaders(digest: string): string[] {
  return ["Content-Type", "application/octet-stream", "Docker-Content-Digest", digest, "ETag", `"${digest}"`, "Accept-Ranges", "bytes"];
}

export async function readBlob(
  exchange: Exchange,
  target: LocalTarget,
  parts: { services: RegistryServices; sender: BlobSender },
): Promise<void> {
  const digest = requireBlobDigest(exchange);
  if (target.project === null) throw new SlipwayError("NAME_UNKNOWN", { detail: { name: target.requested } });
  const blob = await parts.services.reader.findBlob(target.repository, digest, exchange.signal);
  if (!blob) throw new SlipwayError("BLOB_UNKNOWN", { detail: { digest } });
  await answerBlob(exchange, { ...blob, digest }, parts);
}

/** Conditional and partial answers of a blob whose size is known. */
export async function answerBlob(
  exchange: Exchange,
  blob: StoredBlob,
  { sender, extra = [] }: { sender: BlobSender; extra?: readonly string[] },
): Promise<void> {
  const { req } = exchange;
  const headers = [...blobHeaders(blob.digest), ...extra];
  if (matchesEntityTag(req.headers["if-none-match"], blob.digest)) {
    exchange.send(304, headers.slice(2));
    return;
  }
  // Ranges are defined for GET alone, and If-Range names the only version that a digest can have.
  const ifRange = req.headers["if-range"];
  const partial = !exchange.isHead && (ifRange === undefined || ifRange === `"${blob.digest}"`);
  const range = parseRange(partial ? req.headers.range : undefined, blob.size);
  if (range.kind === "unsatisfiable") {
    throw withHeaders(new SlipwayError("RANGE_INVALID"), ["Content-Range", `bytes */${blob.size}`, "Accept-Ranges", "bytes"]);
  }
  if (range.kind === "full") {
    await sender.send(exchange, { blob, status: 200, headers, start: 0, end: blob.size });
    return;
  }
  headers.push("Content-Range", `bytes ${range.start}-${range.end}/${blob.size}`);
  await sender.send(exchange, { blob, status: 206, headers, start: range.start, end: range.end + 1 });
}

export async function deleteBlob(exchange: Exchange, target: LocalTarget, services: RegistryServices): Promise<void> {
  const digest = requireBlobDigest(exchange);
  if (target.project === null) throw new SlipwayError("NAME_UNKNOWN", { detail: { name: target.requested } });
  const removed = await services.writer.deleteBlob(target.repository, digest, { principal: exchange.principal });
  if (!removed) throw new SlipwayError("BLOB_UNKNOWN", { detail: { digest } });
  exchange.send(202, ["Docker-Content-Digest", digest]);
}

function requireBlobDigest(exchange: Exchange): string {
  const digest = exchange.route?.reference ?? "";
  requireDigest(digest);
  return digest;
}

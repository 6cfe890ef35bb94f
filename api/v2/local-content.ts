/** Content that is ours: every operation, from the catalog and blob storage. */
import { deleteBlob, readBlob } from "./blobs.ts";
import { deleteManifest, putManifest, readManifest } from "./manifests.ts";
import { listReferrers } from "./referrers.ts";
import type { BlobSender } from "./send-blob.ts";
import type { RegistryServices } from "./services.ts";
import { listTags } from "./tags.ts";
import type { ContentHandlers, LocalTarget } from "./target.ts";
import { appendUpload, cancelUpload, finishUpload, startUpload, uploadStatus } from "./uploads.ts";

export function createLocalContent(services: RegistryServices, sender: BlobSender): ContentHandlers<LocalTarget> {
  const { reader } = services;
  return {
    operations: {
      "manifest.read": (exchange, target) => readManifest(exchange, target, services),
      "manifest.put": (exchange, target) => putManifest(exchange, target, services),
      "manifest.delete": (exchange, target) => deleteManifest(exchange, target, services),
      "blob.read": (exchange, target) => readBlob(exchange, target, { services, sender }),
      "blob.delete": (exchange, target) => deleteBlob(exchange, target, services),
      "upload.start": (exchange, target) => startUpload(exchange, target, services),
      "upload.status": (exchange, target) => uploadStatus(exchange, target, services),
      "upload.append": (exchange, target) => appendUpload(exchange, target, services),
      "upload.finish": (exchange, target) => finishUpload(exchange, target, services),
      "upload.cancel": (exchange, target) => cancelUpload(exchange, target, services),
      "tags.list": (exchange, target) => listTags(exchange, target, reader),
      "referrers.list": (exchange, target) => listReferrers(exchange, target, reader),
    },
    peekManifest: (target, reference) => reader.peekManifest(target.repository, reference),
    peekBlob: (target, digest) => reader.peekBlob(target.repository, digest),
  };
}

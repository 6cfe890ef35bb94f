/** Takes the bytes of one request into an upload: position, length and hash are checked here, the bytes go to the storage session. */
import type { Readable } from "node:stream";
import { SlipwayError, isSlipwayError } from "../core/errors.ts";
import { DEFAULT_DIGEST_ALGORITHM, type DigestAlgorithm, isDigestAlgorithm } from "../oci/digests.ts";
import type { CatalogContext } from "./catalog-context.ts";
import type { UploadAppend } from "./registry.ts";
import { UploadHasher, type UploadHashers } from "./upload-hashers.ts";
import type { UploadHold } from "./upload-hold.ts";

export interface UploadPosition {
  readonly offset: number;
  /** Covers all bytes before the offset; null when it has to be made from storage. */
  readonly hasher: UploadHasher | null;
}

/** Where the upload stands. Storage decides: a holder that died may have left more bytes than the row tells. */
export async function currentPosition(context: CatalogContext, hashers: UploadHashers, hold: UploadHold): Promise<UploadPosition> {
  const { id, version, offset } = hold.record;
  const kept = hashers.take(id, version - 1, offset);
  if (kept) return { offset, hasher: kept };
  const size = await context.store.sessionSize(id);
  if (size === null) throw new SlipwayError("BLOB_UPLOAD_UNKNOWN");
  return { offset: size, hasher: size === 0 ? new UploadHasher(algorithmOf(hold)) : null };
}

export interface Received {
  readonly position: UploadPosition;
  /** The body was cut or did not have its length; what came before is kept. */
  readonly failure: SlipwayError | null;
}

export async function receiveBody(
  context: CatalogContext,
  hold: UploadHold,
  request: { append: UploadAppend; position: UploadPosition; signal?: AbortSignal },
): Promise<Received> {
  const { append, position } = request;
  if (append.start !== null && append.start !== position.offset)
    throw new SlipwayError("RANGE_INVALID", {
      message: "the chunk does not begin where the upload stands",
      detail: { offset: position.offset },
    });
  const body = new DeclaredBody(append.source, append.length);
  const room = context.limits.blobBytes === null ? null : context.limits.blobBytes - position.offset;
  let hasher = position.hasher;
  const result = await context.store.append(hold.record.id, body.read(room), {
    offset: position.offset,
    signal: request.signal ? AbortSignal.any([request.signal, hold.lost]) : hold.lost,
    ...(hasher && { onChunk: (chunk: Uint8Array): void => hasher?.update(chunk) }),
  });
  if (hasher && hasher.bytes !== result.offset) hasher = null;
  return { position: { offset: result.offset, hasher }, failure: failureOf(result.sourceError, body, result.offset) };
}

function failureOf(sourceError: unknown, body: DeclaredBody, offset: number): SlipwayError | null {
  if (isSlipwayError(sourceError)) return sourceError;
  if (sourceError === undefined && !body.wrongLength) return null;
  return new SlipwayError("SIZE_INVALID", {
    message: "the body did not have the length that was announced",
    detail: { offset },
    cause: sourceError,
  });
}

/** Counts a body against its announced length and cuts off what is more. */
class DeclaredBody {
  readonly #source: Readable;
  readonly #length: number | null;
  #received = 0;

  constructor(source: Readable, length: number | null) {
    this.#source = source;
    this.#length = length;
  }

  get wrongLength(): boolean {
    return this.#length !== null && this.#received !== this.#length;
  }

  async *read(room: number | null): AsyncGenerator<Uint8Array> {
    // Not destroyed when reading stops: it is a request, whose answer has yet to be sent.
    for await (const chunk of this.#source.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>) {
      const before = this.#received;
      this.#received += chunk.byteLength;
      if (room !== null && this.#received > room)
        throw new SlipwayError("PAYLOAD_TOO_LARGE", { message: "the blob is larger than the limit" });
      if (this.#length === null || this.#received <= this.#length) {
        yield chunk;
        continue;
      }
      if (this.#length > before) yield chunk.subarray(0, this.#length - before);
      return;
    }
  }
}

function algorithmOf(hold: UploadHold): DigestAlgorithm {
  const { algorithm } = hold.record;
  return algorithm !== null && isDigestAlgorithm(algorithm) ? algorithm : DEFAULT_DIGEST_ALGORITHM;
}

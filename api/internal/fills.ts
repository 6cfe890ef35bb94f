/**
 * Bytes of a running fill for processes of other hosts. Only those who share the encryption key may ask; what is not verified yet is held back as for any
 * reader, and a fill that fails breaks the connection.
 */
import type { Request, RequestHandler, Response } from "express";
import type { Clock } from "../../src/core/clock.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { isDigest } from "../../src/oci/digests.ts";
import type { FillEngine } from "../../src/proxy/fill/fill-engine.ts";
import { answerOf } from "../../src/proxy/fill/growing.ts";
import { GrowingReader } from "../../src/proxy/fill/growing-reader.ts";
import { INTERNAL_FILL_PATH, isSignatureValid, SIGNATURE_HEADER, SIZE_HEADER } from "../../src/proxy/fill/remote-fills.ts";
import type { Mount } from "../http/mounts.ts";
import { blockWriter } from "../v2/send-blob.ts";

export interface InternalFillsServices {
  readonly fills: Pick<FillEngine, "find">;
  readonly internalKey: Buffer;
  readonly clock: Clock;
}

export function createInternalFills(services: InternalFillsServices): Mount {
  const handler: RequestHandler = (req, res, next) => {
    serve(req, res, services).catch(next);
  };
  return { path: INTERNAL_FILL_PATH, operation: "internal", handler };
}

async function serve(req: Request, res: Response, { fills, internalKey, clock }: InternalFillsServices): Promise<void> {
  const digest = req.path.slice(1);
  const signature = req.get(SIGNATURE_HEADER);
  if (req.method !== "GET" || !isSignatureValid(internalKey, `${INTERNAL_FILL_PATH}${digest}`, signature, clock.now())) {
    throw new SlipwayError("NOT_FOUND");
  }
  const growing = isDigest(digest) ? await fills.find(digest) : null;
  if (growing === null) throw new SlipwayError("NOT_FOUND");
  const gone = new AbortController();
  res.once("close", () => gone.abort(new SlipwayError("CANCELLED")));
  const size = await answerOf(growing, gone.signal);
  res.writeHead(200, { "content-type": "application/octet-stream", "content-length": String(size), [SIZE_HEADER]: String(size) });
  res.flushHeaders();
  const write = blockWriter(res);
  const reader = new GrowingReader({ start: 0, end: size }, { signal: gone.signal });
  try {
    for (let chunk = await reader.next(growing); chunk !== null; chunk = await reader.next(growing)) await write(chunk);
    res.end();
  } catch {
    // The follower takes a broken connection for what it is.
    res.destroy();
  } finally {
    await reader.close();
  }
}

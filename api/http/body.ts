/** Request bodies: read with a bound, continued only when wanted, and left unread without harm to the answer. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { SlipwayError } from "../../src/core/errors.ts";

/** Beyond this much of an unwanted body the connection is given up. */
const DISCARD_BYTES = 8 * 1024 * 1024;
const DISCARD_MS = 3_000;
/** Node reads and drops a rest of this size itself, and the connection lives on. */
const SMALL_REST_BYTES = 64 * 1024;

const awaitingContinue = new WeakSet<IncomingMessage>();

/** The client waits for "100 Continue": it is sent when the body is read, so that a refusal costs no transfer. */
export function markExpectContinue(req: IncomingMessage): void {
  awaitingContinue.add(req);
}

export function waitsForInvitation(req: IncomingMessage): boolean {
  return awaitingContinue.has(req);
}

export function invitesBody(req: IncomingMessage, res: ServerResponse): void {
  if (awaitingContinue.delete(req)) res.writeContinue();
}

/** Null when the body is of unknown length. */
export function declaredLength(req: IncomingMessage): number | null {
  const header = req.headers["content-length"];
  if (header !== undefined) return Number(header);
  return req.headers["transfer-encoding"] === undefined ? 0 : null;
}

/** The whole body in memory; PAYLOAD_TOO_LARGE as soon as the bound is known to be exceeded. */
export async function readBody(req: IncomingMessage, res: ServerResponse, limit: number): Promise<Buffer> {
  const declared = declaredLength(req);
  if (declared !== null && declared > limit) throw tooLarge(limit);
  invitesBody(req, res);
  const chunks: Buffer[] = [];
  let size = 0;
  return new Promise<Buffer>((resolve, reject) => {
    const settle = (finish: () => void): void => {
      req.off("data", onData);
      req.off("end", onEnd);
      req.off("error", onClose);
      req.off("close", onClose);
      finish();
    };
    const onData = (chunk: Buffer): void => {
      size += chunk.length;
      if (size > limit) {
        req.pause();
        settle(() => reject(tooLarge(limit)));
        return;
      }
      chunks.push(chunk);
    };
    const onEnd = (): void => settle(() => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks, size)));
    const onClose = (): void => settle(() => reject(new SlipwayError("SIZE_INVALID", { message: "the body ended before its end" })));
    req.on("data", onData);
    req.on("end", onEnd);
    req.on("error", onClose);
    req.on("close", onClose);
  });
}

function tooLarge(limit: number): SlipwayError {
  return new SlipwayError("PAYLOAD_TOO_LARGE", { detail: { limit } });
}

/** Whether an answer given now leaves a body on the wire that Node's own dump would read to the end. */
export function hasLargeUnreadBody(req: IncomingMessage): boolean {
  if (req.complete) return false;
  if (awaitingContinue.has(req)) return true;
  const declared = declaredLength(req);
  return declared === null || declared > SMALL_REST_BYTES;
}

/**
 * Answers and then reads a bounded part of the unwanted body before the connection closes: closing with unread bytes makes the kernel
 * reset the connection, and the client would lose the answer that says why.
 */
export function endWithUnreadBody(req: IncomingMessage, res: ServerResponse, body: Buffer | null): void {
  if (body !== null && req.method !== "HEAD") res.write(body);
  else res.flushHeaders();
  if (awaitingContinue.delete(req)) {
    res.end();
    return;
  }
  let seen = 0;
  const finish = (): void => {
    clearTimeout(timer);
    req.off("data", onData);
    req.off("end", finish);
    req.off("close", finish);
    if (!res.writableEnded) res.end(() => req.socket.destroySoon());
  };
  const onData = (chunk: Buffer): void => {
    seen += chunk.length;
    if (seen > DISCARD_BYTES) finish();
  };
  const timer = setTimeout(finish, DISCARD_MS);
  req.on("data", onData);
  req.on("end", finish);
  req.on("close", finish);
  req.resume();
}

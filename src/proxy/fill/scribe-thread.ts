/** The thread behind scribe.ts: writes and hashes in the order it is told, and does nothing else. */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { readSync, writeSync } from "node:fs";
import { parentPort } from "node:worker_threads";

/** `hash` names a running digest; the first order that names one begins it. */
export type Order =
  | { readonly kind: "write"; readonly fd: number; readonly position: number; readonly bytes: Uint8Array; readonly hash: HashName | null }
  | { readonly kind: "hash-file"; readonly fd: number; readonly position: number; readonly length: number; readonly hash: HashName }
  | { readonly kind: "digest"; readonly hash: HashName }
  | { readonly kind: "forget"; readonly hash: HashName };

export interface HashName {
  readonly id: number;
  readonly algorithm: string;
}

/** What is left of an error on its way to another thread. */
export interface Failed {
  readonly message: string;
  readonly code: string | undefined;
  readonly errno: number | undefined;
}

/** Of one order: a digest in hex, a number of bytes, or why it failed. */
export type Outcome = string | number | Failed;

const READ_BYTES = 1024 * 1024;
/** Outcomes are told after so much work, so that memory comes back while a long batch is done. */
const TELL_BYTES = 2 * 1024 * 1024;

const hashes = new Map<number, Hash>();
let readBuffer: Buffer | null = null;

function hashOf({ id, algorithm }: HashName): Hash {
  const known = hashes.get(id);
  if (known) return known;
  const hash = createHash(algorithm);
  hashes.set(id, hash);
  return hash;
}

function writeAll(fd: number, bytes: Uint8Array, position: number): number {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  return bytes.length;
}

/** Fewer bytes than wanted when the file is shorter. */
function hashFile({ fd, position, length, hash }: Extract<Order, { kind: "hash-file" }>): number {
  readBuffer ??= Buffer.allocUnsafeSlow(READ_BYTES);
  const running = hashOf(hash);
  let done = 0;
  while (done < length) {
    const count = readSync(fd, readBuffer, 0, Math.min(READ_BYTES, length - done), position + done);
    if (count === 0) break;
    running.update(readBuffer.subarray(0, count));
    done += count;
  }
  return done;
}

function follow(order: Order): string | number {
  switch (order.kind) {
    case "write":
      if (order.hash) hashOf(order.hash).update(order.bytes);
      return writeAll(order.fd, order.bytes, order.position);
    case "hash-file":
      return hashFile(order);
    case "digest":
      return hashOf(order.hash).copy().digest("hex");
    case "forget":
      hashes.delete(order.hash.id);
      return 0;
  }
}

function attempt(order: Order): Outcome {
  try {
    return follow(order);
  } catch (error) {
    const { message, code, errno } = error as NodeJS.ErrnoException;
    return { message, code, errno };
  }
}

parentPort?.on("message", (orders: readonly Order[]) => {
  let outcomes: Outcome[] = [];
  let bytes = 0;
  for (const order of orders) {
    const outcome = attempt(order);
    outcomes.push(outcome);
    if (typeof outcome === "number") bytes += outcome;
    if (bytes < TELL_BYTES) continue;
    parentPort?.postMessage(outcomes);
    outcomes = [];
    bytes = 0;
  }
  if (outcomes.length > 0) parentPort?.postMessage(outcomes);
});

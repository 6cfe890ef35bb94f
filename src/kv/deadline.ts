/** Every call to the key-value service has a deadline, and every failure of it is KV_UNAVAILABLE, so that callers decide by one code. */
import { isSlipwayError, SlipwayError } from "../core/errors.ts";
import { MAX_MESSAGE_BYTES } from "./kv.ts";

/** Rejects after the deadline; the work itself goes on and its outcome is dropped. */
export function withDeadline<T>(work: Promise<T>, milliseconds: number): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => {
      // After a stall of this process the answer may already wait in the socket: let it be read before giving up.
      setImmediate(() => reject(new SlipwayError("KV_UNAVAILABLE", { cause: new Error(`no answer within ${milliseconds} ms`) })));
    }, milliseconds);
    work.then(
      (value) => {
        clearTimeout(timer);
        resolve(value);
      },
      (error: unknown) => {
        clearTimeout(timer);
        reject(toKvUnavailable(error));
      },
    );
  });
}

export function toKvUnavailable(error: unknown): SlipwayError {
  return isSlipwayError(error, "KV_UNAVAILABLE") ? error : new SlipwayError("KV_UNAVAILABLE", { cause: error });
}

export function checkMessageSize(message: string): void {
  const bytes = Buffer.byteLength(message);
  if (bytes <= MAX_MESSAGE_BYTES) return;
  throw new SlipwayError("PAYLOAD_TOO_LARGE", {
    message: `a message of ${bytes} bytes exceeds the ${MAX_MESSAGE_BYTES} that publish/subscribe carries`,
  });
}

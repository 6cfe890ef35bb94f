/** A stream over a part of a file, whose errors are those of the catalogue and which notices a file that is too short. */
import type { FileHandle } from "node:fs/promises";
import { addAbortSignal, Readable } from "node:stream";
import { SlipwayError } from "../core/errors.ts";
import type { Span } from "./byte-range.ts";
import { fsError } from "./fs-errors.ts";

const READ_BYTES = 256 * 1024;

class FileSpanStream extends Readable {
  readonly #handle: FileHandle;
  readonly #end: number;
  #position: number;

  constructor(handle: FileHandle, span: Span) {
    super({ highWaterMark: READ_BYTES });
    this.#handle = handle;
    this.#position = span.start;
    this.#end = span.end;
    // It may be aborted before its reader begins to listen; that must not end the process.
    this.on("error", () => undefined);
  }

  override _read(): void {
    const length = Math.min(READ_BYTES, this.#end - this.#position);
    if (length <= 0) {
      this.push(null);
      return;
    }
    this.#handle.read(Buffer.allocUnsafeSlow(length), 0, length, this.#position).then(
      ({ bytesRead, buffer }) => {
        if (this.destroyed) return;
        if (bytesRead === 0) {
          this.destroy(new SlipwayError("STORAGE_UNAVAILABLE", { message: "a stored file is shorter than it was" }));
          return;
        }
        this.#position += bytesRead;
        this.push(bytesRead === buffer.byteLength ? buffer : buffer.subarray(0, bytesRead));
      },
      (error: unknown) => this.destroy(toError(fsError(error))),
    );
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#handle.close().then(
      () => callback(error),
      (failure: unknown) => callback(error ?? toError(fsError(failure))),
    );
  }
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** Owns the handle from here on. */
export function streamSpan(handle: FileHandle, span: Span, signal?: AbortSignal): Readable {
  const stream = new FileSpanStream(handle, span);
  return signal ? addAbortSignal(signal, stream) : stream;
}

/**
 * A file that is read and written at positions, by callbacks: the calls of a FileHandle cost several times as much each, which shows where every byte of a blob
 * goes through them. Like a FileHandle, it is closed only when no call is under way: the number of a closed file belongs to the next one that is opened.
 */
import { read, write } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";

interface Shared {
  readonly handle: FileHandle;
  users: number;
}

export class PositionedFile {
  readonly #shared: Shared;
  #calls = 0;
  #isClosed = false;
  #onIdle: (() => void) | null = null;

  private constructor(shared: Shared) {
    this.#shared = shared;
  }

  static async open(path: string, flags: string | number, mode?: number): Promise<PositionedFile> {
    return new PositionedFile({ handle: await open(path, flags, mode), users: 1 });
  }

  /** The same open file for somebody else: it is closed with the last of them. */
  share(): PositionedFile {
    if (this.#isClosed) throw new Error("the file is closed");
    this.#shared.users += 1;
    return new PositionedFile(this.#shared);
  }

  async size(): Promise<number> {
    return (await this.#shared.handle.stat()).size;
  }

  /** Fewer than asked for at the end of the file. */
  read(buffer: Buffer, span: { readonly length: number; readonly position: number }): Promise<number> {
    return this.#call((fd, done) => read(fd, buffer, 0, span.length, span.position, done));
  }

  /** All of it. */
  async write(bytes: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      done += await this.#call((fd, called) => write(fd, bytes, done, bytes.length - done, position + done, called));
    }
  }

  /** A call by somebody else, another thread for example, who says when it is over. */
  lend(call: (fd: number, over: () => void) => void): void {
    if (this.#isClosed) throw new Error("the file is closed");
    this.#calls += 1;
    call(this.#shared.handle.fd, () => this.#over());
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#calls > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    this.#shared.users -= 1;
    if (this.#shared.users === 0) await this.#shared.handle.close();
  }

  #call(start: (fd: number, done: (error: Error | null, count: number) => void) => void): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) throw new Error("the file is closed");
      this.#calls += 1;
      start(this.#shared.handle.fd, (error, count) => {
        this.#over();
        if (error) reject(error);
        else resolve(count);
      });
    });
  }

  #over(): void {
    this.#calls -= 1;
    if (this.#calls === 0) this.#onIdle?.();
  }
}

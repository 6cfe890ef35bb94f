/**
 * Fills of other hosts: their bytes come from the owner's internal endpoint. Both sides prove themselves by a keyed hash over path and time, with a key
 * that all processes derive from the encryption key.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { request as httpRequest } from "node:http";
import type { IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { SlipwayError } from "../../core/errors.ts";
import type { FillState } from "./fill.ts";
import type { Growing } from "./growing.ts";
import { handOver, StagingFile } from "./staging-file.ts";
import { Wakeups } from "./wakeups.ts";

export const INTERNAL_FILL_PATH = "/internal/fills/";
export const SIGNATURE_HEADER = "x-slipway-signature";
export const SIZE_HEADER = "x-slipway-blob-size";
const VALID_MS = 60_000;
const CONNECT_MS = 3_000;
/** Of the owner, whose upstream may take its time to answer and to send. */
const IDLE_MS = 45_000;
const LINGER_MS = 30_000;

export function signPath(key: Buffer, path: string, now: number): string {
  return `${now}.${createHmac("sha256", key).update(`${now} ${path}`).digest("hex")}`;
}

export function isSignatureValid(key: Buffer, path: string, signature: string | undefined, now: number): boolean {
  const [time = "", hash = ""] = signature?.split(".") ?? [];
  if (!/^\d{1,15}$/.test(time) || Math.abs(now - Number(time)) > VALID_MS) return false;
  const expected = Buffer.from(createHmac("sha256", key).update(`${time} ${path}`).digest("hex"));
  const given = Buffer.from(hash);
  return given.length === expected.length && timingSafeEqual(given, expected);
}

export interface RemoteFillsOptions {
  readonly key: Buffer;
  readonly clock: Clock;
  /** Of this process's own fills; bytes of other hosts' are kept beside them while they are read. */
  readonly folder: string;
}

interface FollowOptions {
  readonly digest: string;
  readonly address: string;
  /** Links the blob for those who follow. */
  isStored(): Promise<unknown>;
}

export class RemoteFills {
  readonly #options: RemoteFillsOptions;
  readonly #folder: string;
  #hasFolder = false;

  constructor(options: RemoteFillsOptions) {
    this.#options = options;
    this.#folder = join(options.folder, `remote-${process.pid}`);
  }

  /** One connection for all readers of this process; null when the owner cannot be reached just now, or has nothing to send. */
  async follow(options: FollowOptions): Promise<Growing | null> {
    const path = `${INTERNAL_FILL_PATH}${options.digest}`;
    const signature = signPath(this.#options.key, path, this.#options.clock.now());
    const answer = await connect(new URL(path, options.address), signature).catch(() => null);
    if (!answer) return null;
    const size = Number(answer.headers[SIZE_HEADER]);
    this.#hasFolder = true;
    const file = await StagingFile.open({ folder: this.#folder, digest: options.digest, size, fence: 0 });
    if (file.segments.bytes > 0) await file.reset();
    return new RemoteFollower(answer, { file, size, isStored: options.isStored });
  }

  /** What came from an owner that is gone is where this process's own fill goes on. */
  async handOver(digest: string): Promise<void> {
    if (this.#hasFolder) await handOver(digest, this.#folder, this.#options.folder).catch(() => undefined);
  }
}

function connect(url: URL, signature: string): Promise<IncomingMessage | null> {
  return new Promise((resolve, reject) => {
    // The name in a certificate is the one for clients; what arrives is checked by its digest, and no secret goes there.
    const options = { headers: { [SIGNATURE_HEADER]: signature }, agent: false as const };
    const outgoing = url.protocol === "https:" ? httpsRequest(url, { ...options, rejectUnauthorized: false }) : httpRequest(url, options);
    const connecting = setTimeout(() => outgoing.destroy(new Error("the owner of the fill does not answer")), CONNECT_MS);
    outgoing.once("socket", (socket) => socket.once("connect", () => clearTimeout(connecting)));
    outgoing.setTimeout(IDLE_MS, () => outgoing.destroy(new Error("the owner of the fill fell silent")));
    outgoing.once("error", (error) => {
      clearTimeout(connecting);
      reject(error);
    });
    outgoing.once("response", (answer) => {
      if (answer.statusCode === 200) {
        resolve(answer);
      } else {
        answer.resume();
        resolve(null);
      }
    });
    outgoing.end();
  });
}

class RemoteFollower implements Growing {
  readonly #file: StagingFile;
  readonly #wakeups = new Wakeups();
  readonly isAnswered = true;
  readonly size: number;
  readonly finished: Promise<void>;
  state: FillState = "running";
  failure: SlipwayError | null = null;

  constructor(answer: IncomingMessage, { file, size, isStored }: { file: StagingFile; size: number; isStored: () => Promise<unknown> }) {
    this.#file = file;
    this.size = size;
    this.finished = this.#copy(answer, isStored);
  }

  get path(): string {
    return this.#file.path;
  }

  get epoch(): string {
    return this.#file.epoch;
  }

  get prefixEnd(): number {
    return this.#file.segments.contiguousFrom(0);
  }

  /** The owner holds back what is not verified, so whatever arrived may be shown. */
  visibleEnd(position: number): number {
    return Math.max(position, this.#file.segments.contiguousFrom(position));
  }

  whenChanged(wake: () => void): void {
    if (this.state === "running") this.#wakeups.next(wake);
    else wake();
  }

  async #copy(answer: IncomingMessage, isStored: () => Promise<unknown>): Promise<void> {
    try {
      let position = 0;
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        await this.#file.write(position, chunk);
        position += chunk.length;
        this.#wakeups.soon(chunk.length);
      }
      if (!answer.complete || position !== this.size) throw new Error("the owner of the fill ended early");
      // The right to the blob is a link of our own repository.
      await isStored();
      this.state = "done";
    } catch (cause) {
      const message = "the host that fetched this blob is gone";
      this.failure = new SlipwayError("UPSTREAM_UNAVAILABLE", { message, cause, retryAfterSeconds: 1 });
      // Before anyone is told: who goes on takes up the file.
      await this.#file.close().catch(() => undefined);
      this.state = "failed";
      this.#wakeups.close();
      return;
    }
    this.#wakeups.close();
    await this.#file.close().catch(() => undefined);
    // Readers that were just about to open it get a while; the rest find the stored blob.
    setTimeout(() => void this.#file.remove().catch(() => undefined), LINGER_MS).unref();
  }
}

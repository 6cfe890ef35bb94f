/**
 * Fills of other hosts: their bytes come from the owner's internal endpoint. Both sides prove themselves by a keyed hash over path and time, with a key
 * that all processes derive from the encryption key.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { request as httpRequest } from "node:http";
import type { IncomingMessage } from "node:http";
import type { StoredBlob } from "../../catalog/registry.ts";
import type { Clock } from "../../core/clock.ts";
import { SlipwayError } from "../../core/errors.ts";
import { StagingFile } from "./staging-file.ts";
import type { Growing } from "./growing.ts";
import type { FillState } from "./fill.ts";

export const INTERNAL_FILL_PATH = "/internal/fills/";
export const SIGNATURE_HEADER = "x-slipway-signature";
export const SIZE_HEADER = "x-slipway-blob-size";
const VALID_MS = 60_000;
const CONNECT_MS = 3_000;
const IDLE_MS = 30_000;
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
  /** Bytes of other hosts' fills are kept here while they are read. */
  readonly folder: string;
}

interface FollowOptions {
  readonly digest: string;
  readonly address: string;
  isStored(): Promise<StoredBlob | null>;
  isOwned(): Promise<boolean>;
}

export class RemoteFills {
  readonly #options: RemoteFillsOptions;
  readonly #followed = new Map<string, RemoteFollower>();

  constructor(options: RemoteFillsOptions) {
    this.#options = options;
  }

  /** One connection for all readers of this process; null when the owner cannot be reached just now. */
  async follow(options: FollowOptions): Promise<Growing | StoredBlob | null> {
    const known = this.#followed.get(options.digest);
    if (known && known.state === "running") return known;
    const path = `${INTERNAL_FILL_PATH}${options.digest}`;
    const signature = signPath(this.#options.key, path, this.#options.clock.now());
    const answer = await connect(new URL(path, options.address), signature).catch(() => null);
    if (!answer) return (await options.isStored()) ?? null;
    const file = await StagingFile.open({
      folder: `${this.#options.folder}/remote-${process.pid}`,
      digest: options.digest,
      size: null,
      fence: 0,
    });
    await file.reset();
    const follower = new RemoteFollower(answer, file, options);
    this.#followed.set(options.digest, follower);
    void follower.finished.finally(() => this.#followed.delete(options.digest));
    return follower;
  }
}

function connect(url: URL, signature: string): Promise<IncomingMessage | null> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(url, { headers: { [SIGNATURE_HEADER]: signature }, timeout: CONNECT_MS });
    outgoing.once("timeout", () => outgoing.destroy(new Error("the owner of the fill does not answer")));
    outgoing.once("error", reject);
    outgoing.once("response", (answer) => {
      outgoing.setTimeout(IDLE_MS);
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
  readonly #waiters = new Set<() => void>();
  readonly path: string;
  readonly finished: Promise<void>;
  state: FillState = "running";
  failure: SlipwayError | null = null;
  size: number | null;
  #isComplete = false;

  constructor(answer: IncomingMessage, file: StagingFile, options: FollowOptions) {
    this.#file = file;
    this.path = file.paths.data;
    const size = Number(answer.headers[SIZE_HEADER]);
    this.size = Number.isSafeInteger(size) && size >= 0 ? size : null;
    this.finished = this.#copy(answer, options);
  }

  get prefixEnd(): number {
    return this.#file.segments.contiguousFrom(0);
  }

  /** The owner holds back what is not verified, so whatever arrived may be shown. */
  visibleEnd(position: number): number {
    return Math.max(position, this.#file.segments.contiguousFrom(position));
  }

  async change(signal?: AbortSignal): Promise<void> {
    if (this.state !== "running") return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#waiters.delete(done);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      this.#waiters.add(done);
      signal?.addEventListener("abort", done, { once: true });
    });
    signal?.throwIfAborted();
  }

  async #copy(answer: IncomingMessage, options: FollowOptions): Promise<void> {
    try {
      let position = 0;
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        await this.#file.write(position, chunk);
        position += chunk.length;
        this.#wake();
      }
      this.#isComplete = answer.complete && (this.size === null || position === this.size);
      if (!this.#isComplete) throw new Error("the owner of the fill ended early");
      this.size = position;
      // The right to the blob is a link of our own repository.
      await options.isStored();
      this.state = "done";
    } catch (cause) {
      this.failure = new SlipwayError("UPSTREAM_UNAVAILABLE", {
        message: "the host that fetched this blob is gone",
        cause,
        retryAfterSeconds: 1,
      });
      this.state = "failed";
    }
    this.#wake();
    await this.#file.close().catch(() => undefined);
    // Readers that were just about to open it get a while; the rest find the stored blob.
    setTimeout(() => void this.#file.remove(), LINGER_MS).unref();
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter();
  }
}

/** The few S3 operations that the store is made of, each with its deadline and with errors of the catalogue. Keys are below the prefix. */
import {
  CopyObjectCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from "@aws-sdk/client-s3";
import { Readable } from "node:stream";
import { SlipwayError } from "../core/errors.ts";
import type { ByteRange, ObjectEntry } from "./blob-store.ts";
import type { S3Body } from "./s3-body.ts";
import { createS3Client } from "./s3-client.ts";
import { isMissing, isRefusedCondition, s3Error, s3Status } from "./s3-errors.ts";
import { encodePath, presignGet } from "./s3-presign.ts";
import { S3_LIMITS, type S3Limits, type S3StorageConfig } from "./storage-config.ts";

/** The most keys that one answer of S3 holds. */
const S3_PAGE = 1000;

export interface S3Head {
  readonly size: number;
  readonly etag: string;
}

/** Absent: unconditional. `null`: only where nothing is. An ETag: only over that version. */
export interface PutCondition {
  readonly replaces?: string | null;
}

export interface CallOptions {
  readonly abortSignal?: AbortSignal;
  readonly requestTimeout?: number;
}

export class S3Bucket {
  readonly client: S3Client;
  readonly name: string;
  readonly limits: S3Limits;
  readonly #config: S3StorageConfig;
  readonly #prefix: string;

  constructor(config: S3StorageConfig) {
    this.#config = config;
    this.limits = { ...S3_LIMITS, ...config.limits };
    this.client = createS3Client(config, this.limits);
    this.name = config.bucket;
    this.#prefix = config.prefix === "" || config.prefix.endsWith("/") ? config.prefix : `${config.prefix}/`;
  }

  key(relative: string): string {
    return this.#prefix + relative;
  }

  relative(key: string): string {
    return key.slice(this.#prefix.length);
  }

  copySource(relative: string): string {
    return encodePath(`${this.name}/${this.key(relative)}`);
  }

  /** Runs one SDK call; `absorb` may turn an expected refusal into a result. */
  async call<Result>(
    work: (options: CallOptions) => Promise<Result>,
    options: {
      readonly signal?: AbortSignal | undefined;
      readonly answerMs?: number;
      readonly absorb?: (error: unknown) => Result | undefined;
    },
  ): Promise<Result> {
    const { signal, absorb } = options;
    try {
      return await work({
        ...(signal ? { abortSignal: signal } : {}),
        ...(options.answerMs === undefined ? {} : { requestTimeout: options.answerMs }),
      });
    } catch (error) {
      const result = absorb?.(error);
      if (result !== undefined) return result;
      throw s3Error(error, signal);
    }
  }

  async head(key: string, signal?: AbortSignal): Promise<S3Head | null> {
    const command = new HeadObjectCommand({ Bucket: this.name, Key: this.key(key) });
    return await this.call<S3Head | null>(
      async (options) => {
        const found = await this.client.send(command, options);
        return { size: found.ContentLength ?? 0, etag: found.ETag ?? "" };
      },
      { signal, absorb: (error) => (isMissing(error) ? null : undefined) },
    );
  }

  async get(key: string, range?: ByteRange, signal?: AbortSignal): Promise<(S3Body & { readonly etag: string }) | null> {
    const command = new GetObjectCommand({
      Bucket: this.name,
      Key: this.key(key),
      ...(range ? { Range: `bytes=${range.start}-${range.end}` } : {}),
    });
    return await this.call<(S3Body & { readonly etag: string }) | null>(
      async (options) => {
        const found = await this.client.send(command, options);
        if (!(found.Body instanceof Readable)) throw new Error("the answer has no body");
        return { stream: found.Body, length: found.ContentLength ?? 0, etag: found.ETag ?? "" };
      },
      {
        signal,
        absorb: (error) => {
          if (s3Status(error) === 416) throw new SlipwayError("RANGE_INVALID", { cause: error });
          return isMissing(error) ? null : undefined;
        },
      },
    );
  }

  /** The new ETag; null when the condition does not hold. */
  async put(key: string, bytes: Uint8Array, condition: PutCondition, signal?: AbortSignal): Promise<string | null> {
    const { replaces } = condition;
    const command = new PutObjectCommand({
      Bucket: this.name,
      Key: this.key(key),
      Body: bytes,
      ContentLength: bytes.byteLength,
      ...(replaces === null ? { IfNoneMatch: "*" } : {}),
      ...(typeof replaces === "string" ? { IfMatch: replaces } : {}),
    });
    return await this.call<string | null>(async (options) => (await this.client.send(command, options)).ETag ?? "", {
      signal,
      absorb: (error) => (replaces !== undefined && (isRefusedCondition(error) || isMissing(error)) ? null : undefined),
    });
  }

  async delete(key: string, signal?: AbortSignal): Promise<void> {
    const command = new DeleteObjectCommand({ Bucket: this.name, Key: this.key(key) });
    await this.call<unknown>((options) => this.client.send(command, options), {
      signal,
      absorb: (error) => (isMissing(error) ? null : undefined),
    });
  }

  /** Server-side, for objects that S3 copies at once. */
  async copy(from: string, to: string, signal?: AbortSignal): Promise<void> {
    const command = new CopyObjectCommand({ Bucket: this.name, Key: this.key(to), CopySource: this.copySource(from) });
    await this.call((options) => this.client.send(command, options), { signal, answerMs: this.limits.copyAnswerMs });
  }

  /** In key order; `after` need not exist. */
  async *list(prefix: string, after: string | null, signal?: AbortSignal): AsyncGenerator<ObjectEntry> {
    let token: string | undefined;
    do {
      const command = new ListObjectsV2Command({
        Bucket: this.name,
        Prefix: this.key(prefix),
        MaxKeys: S3_PAGE,
        ...(token === undefined ? {} : { ContinuationToken: token }),
        ...(after !== null && token === undefined ? { StartAfter: this.key(after) } : {}),
      });
      const page = await this.call((options) => this.client.send(command, options), { signal });
      for (const entry of page.Contents ?? []) {
        // Gateways over a file system show folders as keys that end with a slash.
        if (entry.Key === undefined || entry.Key.endsWith("/")) continue;
        yield { key: this.relative(entry.Key), size: entry.Size ?? 0, modifiedAt: entry.LastModified?.getTime() ?? 0 };
      }
      token = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
  }

  async presign(key: string): Promise<string> {
    const { region, endpoint, publicEndpoint, pathStyle } = this.#config;
    return await this.call(
      async () =>
        presignGet({
          endpoint: publicEndpoint ?? endpoint ?? `https://s3.${region}.amazonaws.com`,
          bucket: this.name,
          key: this.key(key),
          pathStyle,
          region,
          credentials: await this.client.config.credentials(),
          expiresSeconds: this.limits.redirectSeconds,
          now: Date.now(),
        }),
      {},
    );
  }
}

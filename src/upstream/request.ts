/** One call to a registry, before it is known which of its addresses will answer. */
import type { Readable } from "node:stream";
import type { ErrorCode } from "../core/errors.ts";
import type { CallKind, CallOptions } from "./types.ts";

export type Method = "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
export type Lane = "meta" | "bulk";

export interface UpstreamRequest {
  readonly kind: CallKind;
  readonly method: Method;
  /** Below the base of whichever URL is tried, or one absolute URL that an earlier answer named. */
  readonly target: { readonly path: string } | { readonly url: string };
  readonly scopes: readonly string[];
  readonly lane: Lane;
  /** What a 404 means. */
  readonly absent: ErrorCode;
  readonly call: CallOptions;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly body?: Buffer | Readable | undefined;
  /** Statuses that the caller wants to see itself. */
  readonly pass?: readonly number[] | undefined;
  /** Counts against the announced pull budget. */
  readonly counted?: boolean | undefined;
  readonly firstByteMs?: number | undefined;
  /**
   * How it proves who asks: by answering what the registry demands (the default), with the credential from the first call on (APIs that
   * show less to strangers instead of refusing them), or not at all.
   */
  readonly proof?: "challenge" | "credential" | "none" | undefined;
  /** Whether sending it twice does no harm. */
  readonly repeatable: boolean;
}

export interface UpstreamAnswer {
  readonly status: number;
  /** Base origin that was asked, whatever redirects followed. */
  readonly origin: string;
  /** Where the answer came from in the end. */
  readonly url: URL;
  header(name: string): string | undefined;
  headerAll(name: string): readonly string[];
  readonly body: Readable;
}

export interface CollectedAnswer extends Omit<UpstreamAnswer, "body"> {
  readonly bytes: Buffer;
}

/** What the HTTP surface tells telemetry. One call for each answer, on the hot path too, so implementations only count and append. */
import type { IncomingMessage } from "node:http";
import type { SlipwayError } from "../../src/core/errors.ts";

export interface ResponseInfo {
  readonly requestId: string;
  readonly method: string;
  /** Closed set of low cardinality: "manifest.read", "blob.read", "base", "api" ... */
  readonly operation: string;
  readonly repository: string;
  readonly reference: string;
  readonly status: number;
  /** Body bytes that were handed to the connection. */
  readonly bytes: number;
  readonly durationMs: number;
  readonly principal: string;
  /** The connection closed before the answer was complete. */
  readonly aborted: boolean;
  readonly req: IncomingMessage;
}

export interface RequestObserver {
  onResponse(info: ResponseInfo): void;
  /** For answers of 5xx and for what went wrong after the head was sent. */
  onError(error: SlipwayError, context: { readonly requestId: string; readonly method: string; readonly url: string }): void;
  /** Bytes or connections that were refused by a bound, by the bound's name. */
  onLimit?(limit: string): void;
}

export const silentObserver: RequestObserver = { onResponse: () => undefined, onError: () => undefined };

/** What the HTTP surface tells telemetry: every answer, and every bound that was hit. */
import type { RequestObserver, RequestRecord } from "../../src/telemetry/access-log.ts";

export type { RequestRecord } from "../../src/telemetry/access-log.ts";

export interface HttpObserver extends RequestObserver {
  /** A request or connection was refused by a bound, by the bound's name. */
  onLimit?(limit: string): void;
}

export const silentObserver: HttpObserver = { onResponse: () => undefined };

/** For what goes wrong outside of any request that could be named. */
export function faultRecord(error: unknown): RequestRecord {
  return { requestId: "", method: "", route: "fault", status: 500, bytesSent: 0, bytesReceived: 0, durationMs: 0, error };
}

/**
 * One line for each request, and the request metrics. Both must cost next to nothing: a line is built by concatenation of parts that are
 * known to be safe or are escaped once, and counters are plain numbers in small fixed tables.
 */
import { isSlipwayError } from "../core/errors.ts";
import type { RootLogger } from "./logger.ts";
import { PlainHistogram, SECONDS_BUCKETS } from "./metrics.ts";
import type { MetricFamily } from "./metrics.ts";
import { redact } from "./redact.ts";

export interface RequestRecord {
  readonly requestId: string;
  readonly method: string;
  /** Low-cardinality name of what was asked, such as `manifest` or `blob`; a metric label. */
  readonly route: string;
  readonly repository?: string | undefined;
  readonly reference?: string | undefined;
  readonly path?: string | undefined;
  readonly status: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
  /** Until the first byte of a body; the whole time when absent. */
  readonly firstByteMs?: number | undefined;
  readonly principal?: string | undefined;
  readonly remote?: string | undefined;
  readonly userAgent?: string | undefined;
  /** HIT, MISS, STALE ... where a cache decided. */
  readonly cache?: string | undefined;
  readonly aborted?: boolean;
  /** The cause of a 5xx; the answer to the client names only the request id. */
  readonly error?: unknown;
}

/** Told once for every finished request. */
export interface RequestObserver {
  onResponse(record: RequestRecord): void;
}

const MAX_CAUSES = 4;

interface RouteCounters {
  readonly statuses: Map<number, number>;
  readonly seconds: PlainHistogram;
  sent: number;
  received: number;
}

export class AccessLog implements RequestObserver {
  readonly #logger: RootLogger;
  readonly #enabled: boolean;
  /** By route, then by method: joining them to one key would cost more than counting. */
  readonly #routes = new Map<string, Map<string, RouteCounters>>();
  #second = 0;
  #secondText = "";

  constructor(logger: RootLogger, options: { enabled: boolean }) {
    this.#logger = logger;
    this.#enabled = options.enabled;
  }

  onResponse(record: RequestRecord): void {
    this.#count(record);
    if (record.error !== undefined) {
      const { error, requestId, method, path, repository, reference, status } = record;
      const fields = { requestId, method, path, repository, reference, status, ...describeFailure(error) };
      // What passes by itself calls nobody: an upstream or a part of ours that is away.
      if (isSlipwayError(error) && error.retryable) this.#logger.warn(fields, "request failed");
      else this.#logger.error(fields, "request failed");
    }
    if (this.#enabled) this.#logger.writeLine(this.#line(record));
  }

  metrics(): MetricFamily[] {
    const statuses: { value: number; labels: Record<string, string> }[] = [];
    const sent: { value: number; labels: Record<string, string> }[] = [];
    const received: { value: number; labels: Record<string, string> }[] = [];
    const histograms: { counts: readonly number[]; sum: number; labels: Record<string, string> }[] = [];
    for (const [method, route, counters] of this.#counters()) {
      for (const [status, value] of counters.statuses) statuses.push({ value, labels: { method, route, status: String(status) } });
      sent.push({ value: counters.sent, labels: { method, route } });
      received.push({ value: counters.received, labels: { method, route } });
      histograms.push({ counts: counters.seconds.counts, sum: counters.seconds.sum, labels: { method, route } });
    }
    return [
      { name: "slipway_http_requests_total", help: "Requests answered.", type: "counter", samples: statuses },
      { name: "slipway_http_sent_bytes_total", help: "Body bytes sent to clients.", type: "counter", samples: sent },
      { name: "slipway_http_received_bytes_total", help: "Body bytes received from clients.", type: "counter", samples: received },
      {
        name: "slipway_http_request_seconds",
        help: "Time from the request line to the end of the answer.",
        type: "histogram",
        bounds: SECONDS_BUCKETS,
        histograms,
      },
    ];
  }

  *#counters(): Generator<[method: string, route: string, counters: RouteCounters]> {
    for (const [route, methods] of this.#routes) for (const [method, counters] of methods) yield [method, route, counters];
  }

  #count(record: RequestRecord): void {
    const counters = this.#routes.get(record.route)?.get(record.method) ?? this.#newCounters(record);
    counters.statuses.set(record.status, (counters.statuses.get(record.status) ?? 0) + 1);
    counters.seconds.observe(record.durationMs / 1000);
    counters.sent += record.bytesSent;
    counters.received += record.bytesReceived;
  }

  #newCounters({ route, method }: RequestRecord): RouteCounters {
    const counters: RouteCounters = { statuses: new Map(), seconds: new PlainHistogram(SECONDS_BUCKETS), sent: 0, received: 0 };
    const methods = this.#routes.get(route) ?? new Map<string, RouteCounters>();
    this.#routes.set(route, methods.set(method, counters));
    return counters;
  }

  #line(record: RequestRecord): string {
    let line = `{"level":"info","time":"${this.#time()}","msg":"request","requestId":${quote(record.requestId)},"method":"${record.method}","route":"${record.route}","status":${record.status},"bytes":${record.bytesSent},"durationMs":${record.durationMs.toFixed(2)}`;
    if (record.repository !== undefined) line += `,"repository":${quote(record.repository)}`;
    if (record.reference !== undefined) line += `,"reference":${quote(record.reference)}`;
    if (record.path !== undefined) line += `,"path":${quote(redact(record.path))}`;
    if (record.bytesReceived > 0) line += `,"received":${record.bytesReceived}`;
    if (record.principal !== undefined) line += `,"principal":${quote(record.principal)}`;
    if (record.remote !== undefined) line += `,"remote":${quote(record.remote)}`;
    if (record.userAgent !== undefined) line += `,"agent":${quote(record.userAgent)}`;
    if (record.cache !== undefined) line += `,"cache":"${record.cache}"`;
    if (record.aborted === true) line += `,"aborted":true`;
    return `${line}}\n`;
  }

  /** ISO time; the part up to the second is made once a second. */
  #time(): string {
    const now = Date.now();
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#secondText = new Date(second * 1000).toISOString().slice(0, 20);
    }
    return `${this.#secondText}${String(now - second * 1000).padStart(3, "0")}Z`;
  }
}

const SAFE = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

/** JSON text of a string; plain ASCII needs no escaping. */
function quote(text: string): string {
  return SAFE.test(text) ? `"${text}"` : JSON.stringify(text);
}

/** A known failure is told by its code and causes; where it was thrown helps only with those that nobody foresaw. */
function describeFailure(error: unknown): object {
  if (!isSlipwayError(error) || error.code === "INTERNAL") return { error };
  const causes: string[] = [];
  for (let { cause } = error as Error; cause instanceof Error && causes.length < MAX_CAUSES; { cause } = cause) causes.push(cause.message);
  const { code, message, detail } = error;
  return { failure: { code, message, detail, ...(causes.length === 0 ? {} : { causes }) } };
}

/** One request and its answer, with what the handlers learn on the way. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { ANONYMOUS } from "../../src/auth/principal.ts";
import type { Principal } from "../../src/auth/principal.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { declaredLength, endWithUnreadBody, hasLargeUnreadBody } from "../http/body.ts";
import { requestIdOf } from "../http/request-id.ts";
import type { Route } from "./routes/parse.ts";

const NO_BODY = Buffer.alloc(0);
const LONGEST_PARAMETER = 1_024;
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\u0000-\u001f\u007f]/;

/** Name, value, name, value: the form that writeHead takes without copying. */
export type FlatHeaders = readonly string[];

export class Exchange {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly requestId: string;
  readonly startedAt = performance.now();
  route: Route | null = null;
  /** What went wrong on our side, for the log. */
  error: unknown;
  principal: Principal = ANONYMOUS;
  /** HIT, MISS, STALE ... where a cache decided. */
  cache: string | undefined;
  #bytes = 0;
  #firstByteAt: number | null = null;
  readonly #socketBytes: number;
  #query: URLSearchParams | undefined;
  #controller: AbortController | undefined;

  constructor(req: IncomingMessage, res: ServerResponse) {
    this.req = req;
    this.res = res;
    this.requestId = requestIdOf(req);
    this.#socketBytes = req.socket.bytesRead;
  }

  /** Body bytes that arrived; for bodies of unknown or cut length by what the socket saw, framing included. */
  get bytesReceived(): number {
    const declared = declaredLength(this.req);
    return declared !== null && this.req.complete ? declared : this.req.socket.bytesRead - this.#socketBytes;
  }

  /** Body bytes handed to the connection. */
  get bytes(): number {
    return this.#bytes;
  }

  set bytes(count: number) {
    if (count > 0) this.#firstByteAt ??= performance.now();
    this.#bytes = count;
  }

  /** From the request to the first byte of a body; undefined while there was none. */
  get firstByteMs(): number | undefined {
    return this.#firstByteAt === null ? undefined : this.#firstByteAt - this.startedAt;
  }

  get isHead(): boolean {
    return this.req.method === "HEAD";
  }

  get query(): URLSearchParams {
    this.#query ??= new URLSearchParams(this.route?.search ?? "");
    return this.#query;
  }

  /** Aborted when the client goes away before the answer is complete. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = new AbortController();
      this.#controller = controller;
      const abort = (): void => {
        if (!this.res.writableFinished) controller.abort(new SlipwayError("CANCELLED"));
      };
      if (this.res.closed) abort();
      else this.res.once("close", abort);
    }
    return this.#controller.signal;
  }

  /** A query parameter that is harmless in queries and headers; null when absent. */
  parameter(name: string): string | null {
    const value = this.query.get(name);
    if (value !== null && (value.length > LONGEST_PARAMETER || CONTROL.test(value))) {
      throw new SlipwayError("BAD_REQUEST", { message: `the parameter ${name} is not valid` });
    }
    return value;
  }

  /** Answers with a complete body of known length. */
  send(status: number, headers: FlatHeaders, body: Buffer | null = null): void {
    const content = body ?? NO_BODY;
    const head = this.#head(headers);
    if (status !== 204 && status !== 304) head.push("Content-Length", String(content.length));
    const unread = status >= 400 && hasLargeUnreadBody(this.req);
    if (unread) head.push("Connection", "close");
    this.res.writeHead(status, head);
    if (!this.isHead) this.bytes += content.length;
    if (unread) endWithUnreadBody(this.req, this.res, body);
    else if (content.length === 0 || this.isHead) this.res.end();
    else this.res.end(content);
  }

  sendJson(status: number, headers: FlatHeaders, document: unknown, contentType = "application/json"): void {
    this.send(status, ["Content-Type", contentType, ...headers], Buffer.from(JSON.stringify(document)));
  }

  /** Begins an answer whose body follows; `headers` include Content-Length. */
  begin(status: number, headers: FlatHeaders): void {
    this.res.writeHead(status, this.#head(headers));
  }

  #head(headers: FlatHeaders): string[] {
    return ["Docker-Distribution-Api-Version", "registry/2.0", "X-Request-Id", this.requestId, ...headers];
  }
}

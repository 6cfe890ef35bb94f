/** The express application around the routers that a process's roles bring along. */
import type { IncomingMessage, ServerResponse } from "node:http";
import express from "express";
import type { NextFunction, Request, RequestHandler, Response } from "express";
import { SlipwayError, toSlipwayError } from "../../src/core/errors.ts";
import type { HttpObserver } from "./observer.ts";
import { requestIdOf } from "./request-id.ts";

export interface Mount {
  /** "/api/v2.0", "/service/token", "/" ... Longest prefix first is the caller's order. */
  readonly path: string;
  readonly handler: RequestHandler;
  /** Label of metrics and log lines. */
  readonly operation: string;
}

export type MountApp = (req: IncomingMessage, res: ServerResponse) => void;

export function createMountApp(mounts: readonly Mount[], observer: HttpObserver): MountApp {
  const app = express();
  app.disable("x-powered-by");
  // Entity tags are each router's own business; a hash over every answer is not.
  app.disable("etag");
  app.set("query parser", "simple");
  app.use((req: Request, res: Response, next: NextFunction) => {
    const requestId = requestIdOf(req);
    res.locals["requestId"] = requestId;
    res.setHeader("X-Request-Id", requestId);
    observe(observer, requestId, { req, res });
    next();
  });
  for (const mount of mounts) {
    const label: RequestHandler = (_req, res, next) => {
      res.locals["operation"] = mount.operation;
      next();
    };
    app.use(mount.path, label, mount.handler);
  }
  app.use((_req: Request, res: Response) => {
    res.status(404).json({ errors: [{ code: "NOT_FOUND", message: "not found" }] });
  });
  app.use((thrown: unknown, req: Request, res: Response, _next: NextFunction) => {
    const error = toSlipwayError(fromExpress(thrown));
    const requestId = String(res.locals["requestId"]);
    if (error.status >= 500) res.locals["error"] = thrown;
    if (res.headersSent) {
      res.destroy();
      return;
    }
    if (error.retryAfterSeconds !== undefined) res.setHeader("Retry-After", String(error.retryAfterSeconds));
    const detail = error.status >= 500 ? { requestId } : error.detail;
    res.status(error.status).json({ errors: [{ code: error.code, message: error.message, ...(detail === undefined ? {} : { detail }) }] });
  });
  return app as unknown as MountApp;
}

/** Express and its body parsers throw errors that carry a client status. */
function fromExpress(thrown: unknown): unknown {
  const status = thrown instanceof Error ? (thrown as { status?: unknown }).status : undefined;
  if (thrown instanceof SlipwayError || typeof status !== "number" || status < 400 || status > 499) return thrown;
  return toSlipwayError(status === 413 ? new SlipwayError("PAYLOAD_TOO_LARGE") : new SlipwayError("BAD_REQUEST"));
}

function observe(observer: HttpObserver, requestId: string, { req, res }: { req: Request; res: Response }): void {
  const startedAt = performance.now();
  res.once("close", () => {
    const { locals } = res;
    observer.onResponse({
      requestId,
      method: req.method,
      route: typeof locals["operation"] === "string" ? locals["operation"] : "other",
      path: pathOf(req.originalUrl),
      status: res.statusCode,
      bytesSent: req.method === "HEAD" ? 0 : Number(res.getHeader("content-length") ?? 0),
      bytesReceived: Number(req.headers["content-length"] ?? 0),
      durationMs: performance.now() - startedAt,
      principal: typeof locals["principal"] === "string" ? locals["principal"] : undefined,
      remote: req.socket.remoteAddress,
      userAgent: req.headers["user-agent"],
      aborted: !res.writableFinished,
      error: locals["error"],
    });
  });
}

/** Query strings may carry what does not belong in a log. */
function pathOf(url: string): string {
  const mark = url.indexOf("?");
  return mark < 0 ? url : url.slice(0, mark);
}

/** Server-sent events of one run: its whole state whenever it changes, until it has ended. */
import { createHash } from "node:crypto";
import type { Response, Router } from "express";
import type { RunDetail } from "../../../src/replication/run-view.ts";
import { requireSystemRight } from "../access.ts";
import { readId } from "../conventions.ts";
import { describeDetail } from "./execution-mapping.ts";
import { executionNotFound, extrasOf } from "./found.ts";
import type { ReplicationServices } from "./services.ts";

const HEARTBEAT_MS = 15_000;
/** Then the client comes again and shows its credentials anew. */
const LONGEST_MS = 10 * 60_000;
const RECONNECT_MS = 2_000;
/** How often a stream looks whether its process is about to end. */
const DRAIN_CHECK_MS = 500;

export function addEvents(router: Router, services: ReplicationServices): void {
  router.get("/replication/executions/:id/events", async (request, response) => {
    await requireSystemRight(services, request, "replication:read");
    const id = readId(request, "id");
    const detail = await services.view.find(id);
    if (!detail) throw executionNotFound(id);
    const stream = new EventStream(response, services, request.get("last-event-id") ?? "");
    if (stream.isDone(detail)) {
      // Browsers connect again after every end, except after this answer.
      response.status(204).end();
      return;
    }
    // Before anything is sent: too many watchers are a plain 429.
    const stop = services.feed.watch(id, (found) => {
      // While the database is away the stream waits with it.
      if ("detail" in found) stream.show(found.detail);
    });
    stream.open(stop);
  });
}

class EventStream {
  readonly #response: Response;
  readonly #services: ReplicationServices;
  #lastId: string;
  readonly #timers: NodeJS.Timeout[] = [];

  constructor(response: Response, services: ReplicationServices, lastId: string) {
    this.#response = response;
    this.#services = services;
    this.#lastId = lastId;
  }

  /** The client knows the final state already. */
  isDone(detail: RunDetail): boolean {
    return detail.execution.endedAt !== null && this.#describe(detail).id === this.#lastId;
  }

  open(onClose: () => void): void {
    const response = this.#response;
    response.once("close", () => {
      for (const timer of this.#timers) clearInterval(timer);
      onClose();
    });
    // Proxies in between must not collect events before they pass them on.
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no" });
    response.write(`retry: ${RECONNECT_MS}\n\n`);
    this.#timers.push(
      setInterval(() => this.#write(": alive\n\n"), HEARTBEAT_MS),
      setInterval(() => {
        if (this.#services.isDraining()) response.end();
      }, DRAIN_CHECK_MS),
      setTimeout(() => response.end(), LONGEST_MS),
    );
  }

  /** Sends what changed since the last event, which may have been sent on an earlier connection; a null detail is a run that is gone. */
  show(detail: RunDetail | null): void {
    if (detail === null) {
      this.#response.end();
      return;
    }
    const { id, data } = this.#describe(detail);
    const isFinal = detail.execution.endedAt !== null;
    if (id !== this.#lastId && this.#write(`id: ${id}\nevent: progress\ndata: ${data}\n\n`)) this.#lastId = id;
    if (isFinal && this.#lastId === id) this.#response.end(`id: ${id}\nevent: end\ndata: {}\n\n`);
  }

  #describe(detail: RunDetail): { id: string; data: string } {
    const progress = this.#services.progress.of(detail);
    const extras = extrasOf(this.#services, detail);
    // The pace moves by itself and makes no news.
    const steady = describeDetail(detail, { ...progress, bytesPerSecond: null, secondsLeft: null }, extras);
    const id = createHash("sha256").update(JSON.stringify(steady)).digest("hex").slice(0, 20);
    return { id, data: JSON.stringify(describeDetail(detail, progress, extras)) };
  }

  /** Nothing piles up for a client that does not read: it gets a later state instead. */
  #write(text: string): boolean {
    if (this.#response.writableEnded || this.#response.writableNeedDrain) return false;
    this.#response.write(text);
    return true;
  }
}

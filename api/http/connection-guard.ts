/**
 * Ends connections whose client does not move: a body that drips, an answer that is not read. A transfer that the server itself holds up
 * (storage, upstream) is left alone, however long it takes; a whole transfer has no limit either.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

export interface GuardOptions {
  /** A client that moves less than `minBytes` in this time is cut. */
  readonly windowMs: number;
  readonly minBytes: number;
  readonly onCut: () => void;
}

interface Watched {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  moved: number;
  since: number;
}

export class ConnectionGuard {
  readonly #active = new Set<Watched>();
  readonly #perSocket = new WeakMap<Duplex, Set<Watched>>();
  readonly #options: GuardOptions;
  readonly #timer: NodeJS.Timeout;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#sweep(), Math.max(100, options.windowMs / 4));
    this.#timer.unref();
  }

  /** Watches one exchange until its answer is complete or the connection is gone. */
  watch(req: IncomingMessage, res: ServerResponse): void {
    const entry: Watched = { req, res, moved: bytesMoved(req), since: Date.now() };
    const onSocket = this.#entriesOf(req.socket);
    this.#active.add(entry);
    onSocket.add(entry);
    res.once("close", () => {
      this.#active.delete(entry);
      onSocket.delete(entry);
    });
  }

  isActive(socket: Duplex): boolean {
    return (this.#perSocket.get(socket)?.size ?? 0) > 0;
  }

  /** After what cannot be read: answers to requests that arrived whole still go out. False when there is none, or one is half here. */
  closeAfterAnswers(socket: Duplex): boolean {
    const entries = [...(this.#perSocket.get(socket) ?? [])];
    if (entries.length === 0 || entries.some(({ req }) => !req.complete)) return false;
    for (const { res } of entries) res.shouldKeepAlive = false;
    entries.at(-1)?.res.once("close", () => socket.end());
    return true;
  }

  #entriesOf(socket: Duplex): Set<Watched> {
    const known = this.#perSocket.get(socket);
    if (known) return known;
    const entries = new Set<Watched>();
    this.#perSocket.set(socket, entries);
    // Of several pipelined answers Node tells only the one whose turn it is; the others would wait for ever.
    socket.once("close", () => {
      setImmediate(() => {
        for (const { res } of entries) {
          res.destroy();
          res.emit("close");
        }
      });
    });
    return entries;
  }

  get active(): number {
    return this.#active.size;
  }

  /** Answers not yet begun will close their connection. */
  announceClose(): void {
    for (const { res } of this.#active) res.shouldKeepAlive = false;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #sweep(): void {
    const now = Date.now();
    for (const entry of this.#active) {
      const moved = bytesMoved(entry.req);
      if (!waitsForClient(entry) || moved - entry.moved >= this.#options.minBytes) {
        entry.moved = moved;
        entry.since = now;
      } else if (now - entry.since >= this.#options.windowMs) {
        this.#options.onCut();
        entry.req.socket.destroy();
      }
    }
  }
}

function bytesMoved(req: IncomingMessage): number {
  return req.socket.bytesRead + req.socket.bytesWritten - req.socket.writableLength;
}

function waitsForClient({ req, res }: Watched): boolean {
  if (res.writableLength > 0 || req.socket.writableLength > 0) return true;
  return !req.complete && req.readableLength === 0;
}

/** The connections over which bodies come, by origin and kind; each is used again after its answer is over. How many there are is bounded by who may ask at a time. */
import type { Socket } from "node:net";
import { Line } from "./line.ts";
import type { LineAnswer, LineRequest } from "./line.ts";

export interface LinesRequest extends Omit<LineRequest, "head"> {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Connections of the same key are interchangeable. */
  readonly key: string;
  readonly connect: () => Promise<Socket>;
}

/** Where a connection leads. */
export type Place = Pick<LinesRequest, "key" | "connect">;

const MAX_IDLE = 64;

export class Lines {
  readonly #idle = new Map<string, Line[]>();
  /** Being opened for whoever asks next; null when that failed. */
  readonly #opening = new Map<string, Set<Promise<Line | null>>>();
  readonly #open = new Set<Line>();
  #isClosed = false;

  async get(request: LinesRequest): Promise<LineAnswer> {
    const { firstByteMs, idleBodyMs, signal } = request;
    const head = formatHead(request);
    for (;;) {
      const waiting = this.#takeIdle(request.key) ?? (await this.#takeOpening(request.key));
      const line = waiting ?? (await this.#connect(request));
      try {
        return await line.ask({ head, firstByteMs, idleBodyMs, signal });
      } catch (error) {
        // The other side may close what nobody uses at any time, also in the moment of the request.
        if (waiting === null || line.hasAnswerBegun || signal?.aborted || isTimeout(error)) throw error;
      }
    }
  }

  /** Opens connections for what will be asked for soon, until so many wait for it: one at first, the others when the other side could be reached. */
  async prepare(place: Place, count: number): Promise<void> {
    const missing = count - (this.#idle.get(place.key)?.length ?? 0) - (this.#opening.get(place.key)?.size ?? 0);
    if (missing <= 0 || (await this.#prepareOne(place)) === null) return;
    await Promise.all(Array.from({ length: missing - 1 }, () => this.#prepareOne(place)));
  }

  close(): void {
    this.#isClosed = true;
    for (const line of this.#open) line.destroy();
    this.#idle.clear();
  }

  #takeIdle(key: string): Line | null {
    const lines = this.#idle.get(key) ?? [];
    for (let line = lines.pop(); line; line = lines.pop()) if (line.isOpen) return line;
    this.#idle.delete(key);
    return null;
  }

  async #takeOpening(key: string): Promise<Line | null> {
    const all = this.#opening.get(key);
    const [first] = all ?? [];
    if (first === undefined) return null;
    all?.delete(first);
    const line = await first;
    return line?.isOpen ? line : null;
  }

  async #prepareOne(place: Place): Promise<Line | null> {
    const { key } = place;
    const opening = this.#connect(place).catch(() => null);
    const all = this.#opening.get(key) ?? new Set();
    this.#opening.set(key, all.add(opening));
    const line = await opening;
    // Unless somebody has it already.
    if (all.delete(opening) && line !== null) this.#keep(key, line);
    if (all.size === 0 && this.#opening.get(key) === all) this.#opening.delete(key);
    return line;
  }

  async #connect({ key, connect }: Place): Promise<Line> {
    const socket = await connect();
    const line = new Line(socket, () => this.#keep(key, line));
    this.#open.add(line);
    if (this.#isClosed) line.destroy();
    socket.once("close", () => this.#forget(key, line));
    return line;
  }

  #keep(key: string, line: Line): void {
    const lines = this.#idle.get(key) ?? [];
    if (lines.length >= MAX_IDLE) return line.destroy();
    lines.push(line);
    this.#idle.set(key, lines);
  }

  #forget(key: string, line: Line): void {
    this.#open.delete(line);
    const lines = this.#idle.get(key);
    const at = lines?.indexOf(line) ?? -1;
    if (at >= 0) lines?.splice(at, 1);
    if (lines?.length === 0) this.#idle.delete(key);
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ANSWER_TIMEOUT";
}

const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

function formatHead({ url, headers }: LinesRequest): string {
  const lines = [`GET ${url.pathname}${url.search} HTTP/1.1`, `host: ${url.host}`, "connection: keep-alive"];
  for (const [name, value] of Object.entries(headers)) {
    if (!VALUE.test(value)) throw new TypeError(`invalid value of the header ${name}`);
    lines.push(`${name}: ${value}`);
  }
  return `${lines.join("\r\n")}\r\n\r\n`;
}

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

const MAX_IDLE = 64;

export class Lines {
  readonly #idle = new Map<string, Line[]>();
  readonly #open = new Set<Line>();

  async get(request: LinesRequest): Promise<LineAnswer> {
    const { firstByteMs, idleBodyMs, signal } = request;
    const head = formatHead(request);
    for (;;) {
      const line = this.#takeIdle(request.key) ?? (await this.#connect(request));
      try {
        return await line.ask({ head, firstByteMs, idleBodyMs, signal });
      } catch (error) {
        // The other side may close what nobody uses at any time, also in the moment of the request.
        if (!line.wasUsed || line.hasAnswerBegun || signal?.aborted || isTimeout(error)) throw error;
      }
    }
  }

  close(): void {
    for (const line of this.#open) line.destroy();
    this.#idle.clear();
  }

  #takeIdle(key: string): Line | null {
    const lines = this.#idle.get(key) ?? [];
    for (let line = lines.pop(); line; line = lines.pop()) if (line.isOpen) return line;
    this.#idle.delete(key);
    return null;
  }

  async #connect({ key, connect }: LinesRequest): Promise<Line> {
    const socket = await connect();
    const line = new Line(socket, () => this.#keep(key, line));
    this.#open.add(line);
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

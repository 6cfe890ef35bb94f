/**
 * One connection to a registry, for GETs of long bodies. What the socket reads goes straight to the body, as it came: a general client copies every byte into its parser and
 * passes it through two more streams, which costs more than receiving it.
 */
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import { keep, recycle, takeReads } from "../read-memory.ts";
import { parseAnswerHead } from "./answer-head.ts";
import type { AnswerHead } from "./answer-head.ts";
import { LengthBody, OpenEndedBody } from "./body-framing.ts";
import type { BodyFraming } from "./body-framing.ts";
import { wireError } from "./wire-error.ts";

export interface LineAnswer {
  readonly status: number;
  readonly headers: AnswerHead["headers"];
  readonly body: Readable;
}

export interface LineRequest {
  /** The whole head, as it is sent. */
  readonly head: string;
  readonly firstByteMs: number;
  readonly idleBodyMs: number;
  readonly signal?: AbortSignal | undefined;
}

interface Asked {
  readonly request: LineRequest;
  readonly resolve: (answer: LineAnswer) => void;
  readonly reject: (error: unknown) => void;
  readonly timer: NodeJS.Timeout;
}

const KEPT_IDLE_MS = 15_000;
/** Of a body that is not read at once. */
const BUFFER_BYTES = 256 * 1024;

export class Line {
  readonly #socket: Socket;
  readonly #onFree: (line: Line) => void;
  #asked: Asked | null = null;
  #headBytes: Buffer | null = null;
  #body: LineBody | null = null;
  #framing: BodyFraming = new LengthBody(0);
  #isLast = false;
  #isPaused = false;
  #error: Error | null = null;

  /** `onFree`: an answer is over and the next request may come. */
  constructor(socket: Socket, onFree: (line: Line) => void) {
    this.#socket = socket;
    this.#onFree = onFree;
    takeReads(socket, (chunk) => this.#take(chunk));
    socket.on("error", (error) => {
      this.#error = error;
    });
    socket.once("close", () => this.#closed());
    socket.once("end", () => this.#ended());
    socket.on("timeout", () => this.#silent());
    socket.setTimeout(KEPT_IDLE_MS);
    socket.resume();
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed && this.#socket.writable;
  }

  get hasAnswerBegun(): boolean {
    return this.#headBytes !== null || this.#body !== null;
  }

  ask(request: LineRequest): Promise<LineAnswer> {
    return new Promise((resolve, reject) => {
      request.signal?.throwIfAborted();
      const timer = setTimeout(() => this.#fail(wireError("ANSWER_TIMEOUT", "no answer in time")), request.firstByteMs);
      this.#asked = { request, resolve, reject, timer };
      request.signal?.addEventListener("abort", this.#onAbort, { once: true });
      this.#socket.setTimeout(0);
      this.#socket.write(request.head, "latin1");
    });
  }

  destroy(): void {
    this.#socket.destroy();
  }

  readonly #onAbort = (): void => this.#fail(new Error("the call was ended"));

  #take(chunk: Buffer): boolean {
    try {
      if (this.#body) return this.#deliver(this.#body, chunk);
      if (this.#asked) return this.#takeHead(this.#asked, chunk);
    } catch (error) {
      this.#fail(error as Error);
      return false;
    }
    // Nobody asked for anything.
    this.destroy();
    return false;
  }

  #takeHead({ request, resolve }: Asked, chunk: Buffer): boolean {
    const bytes = this.#headBytes ? Buffer.concat([this.#headBytes, chunk]) : chunk;
    const head = parseAnswerHead(bytes);
    if (head === null) {
      this.#headBytes = bytes === chunk ? Buffer.from(chunk) : bytes;
      recycle(chunk);
      return true;
    }
    this.#stopAsking();
    const body = new LineBody({ resume: () => this.#resume(), abandon: () => this.#abandon(request) });
    this.#body = body;
    this.#framing = head.framing;
    this.#isLast = head.isLast;
    this.#headBytes = null;
    this.#socket.setTimeout(request.idleBodyMs);
    request.signal?.addEventListener("abort", this.#onAbort, { once: true });
    resolve({ status: head.status, headers: head.headers, body });
    return this.#deliver(body, bytes.subarray(head.end));
  }

  #deliver(body: LineBody, chunk: Buffer): boolean {
    if (this.#framing.isOver) {
      // What comes after the end belongs to nothing.
      this.#isLast = true;
      return false;
    }
    let goesOn = true;
    // Chunks of one read share its memory: it is left to the garbage collector.
    if (!(this.#framing instanceof LengthBody)) keep(chunk);
    const used = this.#framing.take(chunk, (data) => {
      goesOn = body.push(data);
    });
    if (this.#framing.isOver) {
      if (used < chunk.length) this.#isLast = true;
      body.push(null);
      return true;
    }
    this.#isPaused = !goesOn;
    return goesOn;
  }

  #resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#socket.resume();
  }

  /** The body was read to its end, or nobody wants the rest. */
  #abandon({ signal }: LineRequest): void {
    signal?.removeEventListener("abort", this.#onAbort);
    this.#body = null;
    if (!this.#framing.isOver || this.#isLast || !this.isOpen) {
      this.destroy();
      return;
    }
    this.#isPaused = false;
    this.#socket.setTimeout(KEPT_IDLE_MS);
    this.#socket.resume();
    this.#onFree(this);
  }

  /** While nobody takes the bytes, silence is ours. */
  #silent(): void {
    if (this.#body && !this.#isPaused && !this.#framing.isOver) this.#fail(wireError("BODY_TIMEOUT", "the body stopped"));
    else if (!this.#body) this.destroy();
  }

  #ended(): void {
    const body = this.#body;
    if (!body || this.#framing.isOver || !(this.#framing instanceof OpenEndedBody)) return;
    this.#body = null;
    body.push(null);
  }

  /** Whoever still reads what came whole does not notice. */
  #closed(): void {
    if (this.#body && this.#framing.isOver) return;
    this.#fail(this.#error ?? wireError("CUT_SHORT", "the other side closed the connection"));
  }

  #fail(error: Error): void {
    const asked = this.#stopAsking();
    const body = this.#body;
    this.#body = null;
    this.destroy();
    asked?.reject(error);
    body?.destroy(error);
  }

  #stopAsking(): Asked | null {
    const asked = this.#asked;
    this.#asked = null;
    if (asked) clearTimeout(asked.timer);
    asked?.request.signal?.removeEventListener("abort", this.#onAbort);
    return asked;
  }
}

class LineBody extends Readable {
  readonly #line: { resume(): void; abandon(): void };

  constructor(line: { resume(): void; abandon(): void }) {
    super({ highWaterMark: BUFFER_BYTES });
    this.#line = line;
    // It may fail before its reader begins to listen; that must not end the process.
    this.on("error", () => undefined);
  }

  override _read(): void {
    this.#line.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#line.abandon();
    callback(error);
  }
}

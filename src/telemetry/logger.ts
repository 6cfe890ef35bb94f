/** Logs: JSON lines (pretty in a terminal), a constant message plus fields, written in batches so that a line costs no system call. */
import { createRequire } from "node:module";
import { pino } from "pino";
import type { DestinationStream, Logger as PinoLogger } from "pino";
import { redact } from "./redact.ts";

/** What domains need of a logger; pino has it. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface LoggerOptions {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly format: "auto" | "json" | "pretty";
  /** Fields of every line, such as role and process. */
  readonly base?: Readonly<Record<string, unknown>>;
}

const BUFFER_BYTES = 64 * 1024;
const FLUSH_MS = 250;

export interface RootLogger extends Logger {
  readonly pino: PinoLogger;
  /** Writes a finished JSON line without another serialisation. */
  writeLine(line: string): void;
  flush(): void;
  close(): void;
}

export function createLogger(options: LoggerOptions): RootLogger {
  const isPretty = options.format === "pretty" || (options.format === "auto" && process.stdout.isTTY === true);
  const lines = new LineBuffer(isPretty ? openPretty() : null);
  const root = pino(
    {
      level: options.level,
      base: { pid: process.pid, ...options.base },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err, err: pino.stdSerializers.err },
    },
    { write: (line: string) => lines.write(redact(line)) },
  );
  return {
    pino: root,
    debug: (fields, message) => root.debug(fields, message),
    info: (fields, message) => root.info(fields, message),
    warn: (fields, message) => root.warn(fields, message),
    error: (fields, message) => root.error(fields, message),
    writeLine: (line) => lines.write(line),
    flush: () => lines.flush(),
    close: () => lines.close(),
  };
}

/** Only a terminal needs it; everybody else does without its memory. */
function openPretty(): DestinationStream {
  const pretty = createRequire(import.meta.url)("pino-pretty") as (options: object) => DestinationStream;
  return pretty({ colorize: process.stdout.isTTY === true, ignore: "pid,hostname", sync: true });
}

/** Collects lines and hands them on at 64 KiB or after 250 ms. Stdout of a process is a pipe or a file: one large write beats many. */
class LineBuffer {
  #parts: string[] = [];
  #bytes = 0;
  readonly #pretty: DestinationStream | null;
  readonly #timer: NodeJS.Timeout;

  constructor(prettyStream: DestinationStream | null) {
    this.#pretty = prettyStream;
    this.#timer = setInterval(() => this.flush(), FLUSH_MS);
    this.#timer.unref();
    process.once("exit", () => this.flush());
  }

  write(line: string): void {
    if (this.#pretty) {
      this.#pretty.write(line);
      return;
    }
    this.#parts.push(line);
    this.#bytes += line.length;
    if (this.#bytes >= BUFFER_BYTES) this.flush();
  }

  flush(): void {
    if (this.#bytes === 0) return;
    const text = this.#parts.join("");
    this.#parts = [];
    this.#bytes = 0;
    process.stdout.write(text);
  }

  close(): void {
    clearInterval(this.#timer);
    this.flush();
  }
}

/** For tests and tools. */
export const silentLogger: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

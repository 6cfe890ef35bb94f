/**
 * Answers whose head is the same each time but for the date. Node checks and joins every header of every answer, and writes head and body as two pieces: a third of the cost of
 * a small answer. Here its own rendering is kept from the first answer, and head and small body leave as one text.
 */
import type { ServerResponse } from "node:http";

/** A header for one answer only, as it is sent: `name: value`, CRLF. Made by us alone: nothing of a request may be in it. */
export type HeaderLines = string;

export interface ReadyAnswer {
  readonly headers: readonly string[];
  readonly bytes: Buffer;
  /** Undefined before the first answer; null when Node's rendering is not as it was known. */
  head?: Head | null;
}

interface Head {
  readonly beforeLines: string;
  readonly afterDate: string;
}

/** Where Node keeps the rendered head until the first bytes are written. Were it gone, every answer would go the ordinary way. */
interface Rendering {
  _header?: unknown;
}

/** Larger bodies are not worth a copy. */
const TEXT_BYTES = 8 * 1024;
const MAX_TEXTS = 512;
const DATE = "Date: ";
const DATE_LINE = /^Date: [^\r\n]{25} GMT\r\n/;

export interface ReadySend {
  /** What this answer says besides. */
  readonly lines: HeaderLines;
  readonly isHead: boolean;
}

export function sendReady(res: ServerResponse, answer: ReadyAnswer, { lines, isHead }: ReadySend): void {
  const { bytes } = answer;
  // A connection that ends after this answer says so in its head.
  const head = res.shouldKeepAlive ? answer.head : null;
  if (head) {
    const isWhole = !isHead && bytes.length <= TEXT_BYTES;
    (res as Rendering)._header = isWhole ? wholeText(answer, head, lines) : headText(head, lines, dateLine());
    if (isHead || isWhole) res.end();
    else res.end(bytes);
    return;
  }
  res.writeHead(200, [...answer.headers, ...pairsOf(lines)]);
  if (head === undefined) answer.head = headOf(res, lines);
  if (isHead) res.end();
  else res.end(bytes);
}

function headText({ beforeLines, afterDate }: Head, lines: HeaderLines, date: string): string {
  return `${beforeLines}${lines}${date}${afterDate}`;
}

/** What many ask for at once is joined once for all of them. */
function wholeText(answer: ReadyAnswer, head: Head, lines: HeaderLines): string {
  // First: with a new second the texts of the last one are forgotten.
  const date = dateLine();
  const known = ofThisSecond.get(answer);
  if (known?.lines === lines) return known.text;
  const text = headText(head, lines, date) + answer.bytes.toString("latin1");
  if (ofThisSecond.size < MAX_TEXTS) ofThisSecond.set(answer, { lines, text });
  return text;
}

function headOf(res: ServerResponse, lines: HeaderLines): Head | null {
  const rendered = (res as Rendering)._header;
  if (typeof rendered !== "string" || !rendered.startsWith("HTTP/1.1 200 OK\r\n")) return null;
  const end = rendered.lastIndexOf(`${lines}${DATE}`);
  const rest = rendered.slice(end + lines.length);
  if (end < 0 || !DATE_LINE.test(rest)) return null;
  return { beforeLines: rendered.slice(0, end), afterDate: rest.replace(DATE_LINE, "") };
}

function pairsOf(lines: HeaderLines): string[] {
  return lines === "" ? [] : lines.trimEnd().split(/: |\r\n/);
}

let second = Number.NaN;
let secondLine = "";
const ofThisSecond = new Map<ReadyAnswer, { readonly lines: HeaderLines; readonly text: string }>();

function dateLine(): string {
  const now = Math.floor(Date.now() / 1000);
  if (now !== second) {
    second = now;
    secondLine = `${DATE}${new Date(now * 1000).toUTCString()}\r\n`;
    ofThisSecond.clear();
  }
  return secondLine;
}

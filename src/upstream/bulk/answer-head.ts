/** The head of an answer: status, headers, and how its body ends. Pure. What HTTP/1.1 does not allow is an error; what came before the real answer is skipped. */
import { ChunkedBody, LengthBody, OpenEndedBody } from "./body-framing.ts";
import type { BodyFraming } from "./body-framing.ts";
import { malformed } from "./wire-error.ts";

export interface AnswerHead {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly framing: BodyFraming;
  /** The connection ends with this answer. */
  readonly isLast: boolean;
  /** Offset of the first byte after the head. */
  readonly end: number;
}

const MAX_HEAD_BYTES = 64 * 1024;
const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/;
const HEADER_LINE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([\t\x20-\x7e\x80-\xff]*?)[\t ]*$/;
const WITHOUT_BODY: ReadonlySet<number> = new Set([204, 304]);

/** Null while there is more to come. */
export function parseAnswerHead(bytes: Buffer): AnswerHead | null {
  for (let start = 0; ;) {
    const headEnd = bytes.indexOf("\r\n\r\n", start);
    if ((headEnd < 0 ? bytes.length : headEnd) > MAX_HEAD_BYTES) throw malformed("the head of the answer is too long");
    if (headEnd < 0) return null;
    const [statusLine = "", ...lines] = bytes.toString("latin1", start, headEnd).split("\r\n");
    const [, minor, code] = STATUS_LINE.exec(statusLine) ?? [];
    if (code === undefined) throw malformed("the answer does not begin with a status line");
    const status = Number(code);
    const headers = parseHeaders(lines);
    start = headEnd + 4;
    if (status === 101) throw malformed("the answer changes the protocol");
    if (status < 200) continue;
    const framing = framingOf(status, headers);
    const said = valuesOf(headers["connection"]);
    const isLast = said.includes("close") || (minor === "0" && !said.includes("keep-alive")) || framing instanceof OpenEndedBody;
    return { status, headers, framing, isLast: isLast || isAmbiguous(headers), end: start };
  }
}

function parseHeaders(lines: readonly string[]): Record<string, string | string[]> {
  const headers = Object.create(null) as Record<string, string | string[]>;
  for (const line of lines) {
    const [, name, value] = HEADER_LINE.exec(line) ?? [];
    if (name === undefined || value === undefined) throw malformed("a header of the answer is malformed");
    const key = name.toLowerCase();
    const before = headers[key];
    headers[key] = before === undefined ? value : [before, value].flat();
  }
  return headers;
}

function framingOf(status: number, headers: Readonly<Record<string, string | string[]>>): BodyFraming {
  if (WITHOUT_BODY.has(status)) return new LengthBody(0);
  const codings = valuesOf(headers["transfer-encoding"]);
  if (codings.length > 0) {
    if (codings.length > 1 || codings[0] !== "chunked") throw malformed("the answer has an unknown transfer coding");
    return new ChunkedBody();
  }
  const lengths = new Set(valuesOf(headers["content-length"]));
  const [length] = lengths;
  if (length === undefined) return new OpenEndedBody();
  if (lengths.size > 1 || !/^\d{1,15}$/.test(length)) throw malformed("the answer has no valid length");
  return new LengthBody(Number(length));
}

/** Two parties might not agree where such an answer ends. */
function isAmbiguous(headers: Readonly<Record<string, string | string[]>>): boolean {
  return headers["transfer-encoding"] !== undefined && headers["content-length"] !== undefined;
}

function valuesOf(header: string | string[] | undefined): string[] {
  return [header ?? []].flat().flatMap((value) => value.split(",").map((part) => part.trim().toLowerCase()));
}

/** Heads of answers and where their bodies end: what is taken, what is refused, and that it does not matter how the bytes are cut. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAnswerHead } from "../../../src/upstream/bulk/answer-head.ts";
import type { AnswerHead } from "../../../src/upstream/bulk/answer-head.ts";

const parse = (...lines: string[]): AnswerHead | null => parseAnswerHead(Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"));

function bodyOf(head: AnswerHead, ...parts: string[]): { data: string; isOver: boolean; used: number } {
  let data = "";
  let used = 0;
  for (const part of parts) used += head.framing.take(Buffer.from(part, "latin1"), (bytes) => (data += bytes.toString("latin1")));
  return { data, isOver: head.framing.isOver, used };
}

test("a plain answer: status, headers by lower-case name, repeated ones together, a body of the told length", () => {
  const head = parse("HTTP/1.1 206 Partial Content", "Content-Length: 5", "X-Empty:", "Link:  a ", "link: b", "Content-Type: x/y\t");
  assert.ok(head);
  assert.deepEqual({ ...head.headers }, { "content-length": "5", "x-empty": "", link: ["a", "b"], "content-type": "x/y" });
  assert.deepEqual([head.status, head.isLast], [206, false]);
  assert.deepEqual(bodyOf(head, "hel", "lo more"), { data: "hello", isOver: true, used: 5 });
});

test("a head that is not whole yet is waited for, at every cut", () => {
  const bytes = Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  for (let length = 0; length < bytes.length; length += 1) assert.equal(parseAnswerHead(bytes.subarray(0, length)), null);
  assert.equal(parseAnswerHead(bytes)?.framing.isOver, true);
});

test("what comes before the answer is skipped", () => {
  const text =
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
  const head = parseAnswerHead(Buffer.from(text));
  assert.deepEqual([head?.status, head?.end], [404, text.length - 2]);
  assert.equal(parseAnswerHead(Buffer.from("HTTP/1.1 103 Early Hints\r\n\r\n")), null);
});

test("a chunked body, cut anywhere, ends with its last chunk and not before", () => {
  const text = "4;name=value\r\nWiki\r\n00a\r\npedia\r\nin \r\n0\r\nTrailer: x\r\n\r\n";
  for (let cut = 0; cut <= text.length; cut += 1) {
    const head = parse("HTTP/1.1 200 OK", "Transfer-Encoding: Chunked");
    assert.ok(head);
    const before = bodyOf(head, text.slice(0, cut));
    assert.equal(before.isOver, cut === text.length);
    const rest = bodyOf(head, `${text.slice(cut)}HTTP/1.1`);
    assert.deepEqual([before.data + rest.data, rest.isOver, before.used + rest.used], ["Wikipedia\r\nin ".slice(0, 14), true, text.length]);
  }
});

test("a body without a length ends with its connection, and so does an answer that says so or that can be read in two ways", () => {
  const open = parse("HTTP/1.1 200 OK");
  assert.deepEqual([open?.isLast, open?.framing.isOver], [true, false]);
  assert.equal(parse("HTTP/1.1 200 OK", "Content-Length: 1", "Connection: Keep-Alive, close")?.isLast, true);
  assert.equal(parse("HTTP/1.0 200 OK", "Content-Length: 1")?.isLast, true);
  assert.equal(parse("HTTP/1.0 200 OK", "Content-Length: 1", "Connection: keep-alive")?.isLast, false);
  const both = parse("HTTP/1.1 200 OK", "Content-Length: 1", "Transfer-Encoding: chunked");
  assert.equal(both?.isLast, true);
  assert.equal(bodyOf(both as AnswerHead, "2\r\nab\r\n0\r\n\r\n").data, "ab");
  assert.equal(parse("HTTP/1.1 304 Not Modified", "Content-Length: 10")?.framing.isOver, true);
  assert.equal(parse("HTTP/1.1 200 OK", "Content-Length: 3", "Content-Length: 3")?.isLast, false);
});

const REFUSED: Readonly<Record<string, readonly string[]>> = {
  "another protocol": ["SSH-2.0-OpenSSH"],
  "HTTP/2": ["HTTP/2 200"],
  "a status that is none": ["HTTP/1.1 20 OK"],
  "another protocol later": ["HTTP/1.1 101 Switching Protocols", "Upgrade: x"],
  "a folded header": ["HTTP/1.1 200 OK", "A: b", " c", "Content-Length: 1"],
  "a space before the colon": ["HTTP/1.1 200 OK", "Content-Length : 1"],
  "a control character": ["HTTP/1.1 200 OK", "A: b\u0000c"],
  "a line feed alone": ["HTTP/1.1 200 OK", "A: b\nContent-Length: 1"],
  "two lengths": ["HTTP/1.1 200 OK", "Content-Length: 1", "Content-Length: 2"],
  "a length that is none": ["HTTP/1.1 200 OK", "Content-Length: +1"],
  "an unknown coding": ["HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked"],
  "a head without end": ["HTTP/1.1 200 OK", `A: ${"b".repeat(70_000)}`],
};
for (const [what, lines] of Object.entries(REFUSED)) {
  test(`refused: ${what}`, () => {
    assert.throws(() => parse(...lines), { code: "MALFORMED_ANSWER" });
  });
}

for (const [what, body] of Object.entries({
  "a size that is none": "x\r\n",
  "a negative size": "-1\r\n",
  "a size without end": "1".repeat(20_000),
  "a chunk longer than it says": "1\r\nab\r\n",
  "a line feed alone": "1\nab",
})) {
  test(`refused between chunks: ${what}`, () => {
    const head = parse("HTTP/1.1 200 OK", "Transfer-Encoding: chunked");
    assert.throws(() => bodyOf(head as AnswerHead, body), { code: "MALFORMED_ANSWER" });
  });
}

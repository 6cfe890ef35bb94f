/** Answers as registries write them, for the fake registry and for the scripts of tests. */
import { createHash } from "node:crypto";
import type { ServerResponse } from "node:http";

export function sha256(bytes: Buffer | string): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

export function send(response: ServerResponse, status: number, headers: Record<string, string | number>, body?: Buffer | string): void {
  response.writeHead(
    status,
    body === undefined || "content-length" in headers ? headers : { ...headers, "content-length": Buffer.byteLength(body) },
  );
  response.end(body);
}

export function fail(response: ServerResponse, status: number, code: string, headers: Record<string, string> = {}): void {
  send(
    response,
    status,
    { "content-type": "application/json", ...headers },
    JSON.stringify({ errors: [{ code, message: code.toLowerCase() }] }),
  );
}

export function sendRange(response: ServerResponse, bytes: Buffer, range: string | undefined, headers: Record<string, string> = {}): void {
  const match = /^bytes=(\d+)-(\d*)$/.exec(range ?? "");
  if (!match) return send(response, 200, { ...headers, "content-length": bytes.length }, bytes);
  const start = Number(match[1]);
  const end = match[2] ? Math.min(Number(match[2]), bytes.length - 1) : bytes.length - 1;
  if (start >= bytes.length) return send(response, 416, { "content-range": `bytes */${bytes.length}` });
  const part = bytes.subarray(start, end + 1);
  send(response, 206, { ...headers, "content-range": `bytes ${start}-${end}/${bytes.length}`, "content-length": part.length }, part);
}

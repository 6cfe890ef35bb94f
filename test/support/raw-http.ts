/** Requests that no HTTP client would send: bytes on a socket, and what came back. */
import { connect } from "node:net";
import type { Socket } from "node:net";

export interface RawAnswer {
  readonly status: number;
  readonly head: string;
  readonly body: string;
  /** Everything that arrived, also of further answers. */
  readonly text: string;
}

export interface RawOptions {
  readonly port: number;
  /** Resolve when the connection closed or after this time. */
  readonly waitMs?: number;
  /** Close our side after writing. */
  readonly end?: boolean;
}

/** Sends the parts in order and collects until the server closes or the time is up. */
export async function rawRequest(parts: readonly (string | Buffer)[], options: RawOptions): Promise<RawAnswer> {
  const socket = await openSocket(options.port);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  for (const part of parts) if (!socket.destroyed) socket.write(part);
  if (options.end === true) socket.end();
  await closedWithin(socket, options.waitMs ?? 5_000, () => isComplete(Buffer.concat(chunks)));
  socket.destroy();
  return parseAnswer(Buffer.concat(chunks).toString("latin1"));
}

export function openSocket(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.off("error", reject);
      socket.on("error", () => undefined);
      resolve(socket);
    });
    socket.once("error", reject);
  });
}

/** True when the connection closed in time. */
export function closedWithin(socket: Socket, ms: number, enough: () => boolean = () => false): Promise<boolean> {
  return new Promise((resolve) => {
    if (socket.destroyed) {
      resolve(true);
      return;
    }
    const settle = (closed: boolean): void => {
      clearTimeout(timer);
      clearInterval(poll);
      resolve(closed);
    };
    const timer = setTimeout(() => settle(false), ms);
    const poll = setInterval(() => {
      if (enough()) settle(false);
    }, 5);
    socket.once("close", () => settle(true));
  });
}

function isComplete(bytes: Buffer): boolean {
  const text = bytes.toString("latin1");
  const end = text.indexOf("\r\n\r\n");
  if (end < 0 || text.startsWith("HTTP/1.1 100")) return false;
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, end + 2));
  return length !== null && text.length >= end + 4 + Number(length[1]);
}

function parseAnswer(text: string): RawAnswer {
  const end = text.indexOf("\r\n\r\n");
  const head = end < 0 ? text : text.slice(0, end);
  return { status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0), head, body: end < 0 ? "" : text.slice(end + 4), text };
}

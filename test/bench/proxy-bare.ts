/**
 * The least that a cache in Node has to do, as a measure beside the real one: passes each answer on to its client, hashes it and writes it to a file, and knows no names,
 * rights, database, joining readers or held-back bytes. What it costs is the floor on the machine at hand, where client, upstream and cache share the cores.
 */
import { createHash } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, write } from "node:fs";
import { Agent, createServer, get } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PIECE_BYTES = 256 * 1024;
const OWN_MEMORY_BYTES = 16 * 1024;

const target = Number(process.env["SLIPWAY_BENCH_TARGET"]);
const agent = new Agent({ keepAlive: true });
const folder = mkdtempSync(join(tmpdir(), "slipway-bench-bare-"));
const spare: Buffer[] = [];
let files = 0;

function pass(source: IncomingMessage, res: ServerResponse): void {
  const path = join(folder, String((files += 1)));
  const fd = openSync(path, "w");
  const hash = createHash("sha256");
  let piece = spare.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
  let length = 0;
  let position = 0;
  let open = 1;
  const done = (): void => {
    open -= 1;
    if (open > 0) return;
    closeSync(fd);
    rmSync(path);
  };
  const flush = (): void => {
    const whole = piece;
    const bytes = whole.subarray(0, length);
    piece = spare.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
    length = 0;
    let users = 2;
    const released = (): void => {
      users -= 1;
      if (users === 0) spare.push(whole);
    };
    open += 1;
    write(fd, bytes, 0, bytes.length, position, () => {
      released();
      done();
    });
    hash.update(bytes);
    position += bytes.length;
    if (res.write(bytes, released)) return;
    source.pause();
    res.once("drain", () => source.resume());
  };
  source.on("data", (chunk: Buffer) => {
    for (let taken = 0; taken < chunk.length;) {
      const count = chunk.copy(piece, length, taken);
      taken += count;
      length += count;
      if (length === piece.length) flush();
    }
    const memory = chunk.buffer as ArrayBuffer;
    if (memory.byteLength >= OWN_MEMORY_BYTES && chunk.byteOffset + chunk.length === memory.byteLength)
      setImmediate(() => memory.transfer(0));
  });
  source.once("end", () => {
    if (length > 0) flush();
    hash.digest();
    res.end();
    done();
  });
}

const server = createServer((req, res) => {
  const asked = get(
    { port: target, host: "127.0.0.1", path: req.url, agent, headers: { accept: req.headers.accept ?? "*/*" } },
    (source) => {
      res.writeHead(source.statusCode ?? 502, { "content-length": source.headers["content-length"] });
      res.flushHeaders();
      pass(source, res);
    },
  );
  asked.once("error", () => res.destroy());
});
server.listen(0, "127.0.0.1", () => process.send?.({ port: (server.address() as AddressInfo).port }));
process.once("disconnect", () => {
  rmSync(folder, { recursive: true, force: true });
  process.exit(0);
});

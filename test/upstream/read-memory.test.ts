import assert from "node:assert/strict";
import { createHash, randomFillSync } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { eachPiece } from "../../src/proxy/fill/body-pieces.ts";
import { AddressGuard } from "../../src/upstream/address-guard.ts";
import { readBounded } from "../../src/upstream/body.ts";
import { Connections } from "../../src/upstream/connections.ts";
import type { WireAnswer } from "../../src/upstream/connections.ts";
import { recycle } from "../../src/upstream/read-memory.ts";

const CONTENTS = Array.from({ length: 12 }, (_, index) => randomFillSync(Buffer.alloc(1_500_000 + index * 77_777)));
const digestOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const DIGESTS = CONTENTS.map(digestOf);

/** `/whole/n` has a length, `/pieces/n` comes in chunks of all sizes, several of which fit into one read; a PUT answers with the digest of what came. */
async function answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
  const [, kind, index] = (req.url ?? "").split("/");
  const content = CONTENTS[Number(index)] ?? Buffer.alloc(0);
  if (req.method === "PUT") {
    const hash = createHash("sha256");
    for await (const chunk of req as AsyncIterable<Buffer>) hash.update(chunk);
    res.end(hash.digest("hex"));
  } else if (kind === "whole") {
    res.setHeader("content-length", content.length).end(content);
  } else {
    for (let start = 0, size = 1; start < content.length; start += size, size = (size * 7 + 13) % 40_000) {
      if (!res.write(content.subarray(start, start + size))) await once(res, "drain");
    }
    res.end();
  }
}

/** Over both kinds of connections in turn. */
async function wire(t: TestContext): Promise<(path: string, put?: { body: WireAnswer["body"]; size: number }) => Promise<WireAnswer>> {
  const server = createServer((req, res) => void answer(req, res));
  await once(server.listen(0, "127.0.0.1"), "listening");
  const connections = new Connections({ guard: new AddressGuard() });
  t.after(async () => {
    await connections.close();
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  let calls = 0;
  return (path, put) =>
    connections.send({
      isBulk: (calls += 1) % 2 === 0,
      url: new URL(`http://127.0.0.1:${port}/${path}`),
      method: put ? "PUT" : "GET",
      headers: put ? { "content-length": String(put.size) } : {},
      body: put?.body,
      reach: "operator",
      tls: { ca: null, insecure: false },
      firstByteMs: 10_000,
      idleBodyMs: 10_000,
    });
}

const KINDS = ["whole", "pieces"] as const;

test("bytes in memory that is used again stay those of their body while others read beside", async (t) => {
  const send = await wire(t);
  const read = async (index: number): Promise<void> => {
    const hash = createHash("sha256");
    for await (const chunk of (await send(`whole/${index}`)).body as AsyncIterable<Buffer>) {
      await turn();
      hash.update(chunk);
      recycle(chunk);
    }
    assert.equal(hash.digest("hex"), DIGESTS[index]);
  };
  for (let round = 0; round < 3; round += 1) await Promise.all(CONTENTS.map((_, index) => read(index)));
});

test("memory that chunks of a chunked body share is not used again, even when one of them is given back", async (t) => {
  const send = await wire(t);
  const read = async (index: number): Promise<void> => {
    const chunks: Buffer[] = [];
    const { body } = await send(`pieces/${index}`);
    body.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      recycle(chunk);
    });
    await once(body, "end");
    assert.equal(digestOf(Buffer.concat(chunks)), DIGESTS[index]);
  };
  await Promise.all(CONTENTS.map((_, index) => read(index)));
});

test("bodies that are gathered into pieces, and bodies that go on to another registry, arrive as they are", async (t) => {
  const send = await wire(t);
  const gather = async (kind: string, index: number): Promise<void> => {
    const hash = createHash("sha256");
    await eachPiece((await send(`${kind}/${index}`)).body, (piece) => {
      hash.update(piece);
      return null;
    });
    assert.equal(hash.digest("hex"), DIGESTS[index]);
  };
  const relay = async (kind: string, index: number): Promise<void> => {
    const { body } = await send(`${kind}/${index}`);
    const stored = await send("stored", { body, size: CONTENTS[index]?.length ?? 0 });
    assert.equal((await readBounded(stored.body, 1_000)).toString(), DIGESTS[index]);
  };
  const all = CONTENTS.flatMap((_, index) => KINDS.flatMap((kind) => [gather(kind, index), relay(kind, index)]));
  await Promise.all(all);
});

/** Connections for long bodies, against a server that answers byte by byte as it is told. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectPlain, createServer as createPlainServer } from "node:net";
import type { AddressInfo, NetConnectOpts, Server, Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { createServer as createTlsServer } from "node:tls";
import { AddressGuard } from "../../../src/upstream/address-guard.ts";
import { Lines } from "../../../src/upstream/bulk/lines.ts";
import { Connections } from "../../../src/upstream/connections.ts";
import type { WireAnswer, WireRequest } from "../../../src/upstream/connections.ts";
import { reusedReads } from "../../../src/upstream/read-memory.ts";
import { readAll, testCertificate, until } from "../support.ts";

interface Seen {
  readonly socket: Socket;
  /** Which connection, from 1. */
  readonly connection: number;
  /** Which request on it, from 1. */
  readonly request: number;
  readonly head: string;
}

interface Played {
  readonly get: (options?: Partial<WireRequest>) => Promise<WireAnswer>;
  readonly seen: readonly Seen[];
  /** Connections so far. */
  readonly opened: () => number;
}

/** `answer` is called for each request. */
async function play(t: TestContext, answer: (seen: Seen) => void, tls?: { key: string; cert: string }): Promise<Played> {
  const seen: Seen[] = [];
  const sockets = new Set<Socket>();
  const accept = (socket: Socket): void => {
    sockets.add(socket);
    const connection = sockets.size;
    let request = 0;
    let text = "";
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
      for (let end = text.indexOf("\r\n\r\n"); end >= 0; end = text.indexOf("\r\n\r\n")) {
        request += 1;
        seen.push({ socket, connection, request, head: text.slice(0, end) });
        text = text.slice(end + 4);
        answer(seen.at(-1) as Seen);
      }
    });
  };
  const server: Server = tls ? createTlsServer(tls, accept) : createPlainServer(accept);
  await once(server.listen(0, "127.0.0.1"), "listening");
  const connections = new Connections({ guard: new AddressGuard() });
  t.after(async () => {
    await connections.close();
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const url = new URL(`${tls ? "https" : "http"}://127.0.0.1:${(server.address() as AddressInfo).port}/v2/a%20b/blobs/x?y=z`);
  return {
    seen,
    opened: () => sockets.size,
    get: (options = {}) =>
      connections.send({
        url,
        method: "GET",
        headers: { accept: "*/*" },
        isBulk: true,
        reach: "operator",
        tls: { ca: tls?.cert ?? null, insecure: false },
        firstByteMs: 10_000,
        idleBodyMs: 10_000,
        ...options,
      }),
  };
}

const reply = (body: string | Buffer, ...headers: string[]): Buffer =>
  Buffer.concat([
    Buffer.from([`HTTP/1.1 200 OK`, `Content-Length: ${body.length}`, ...headers, "", ""].join("\r\n"), "latin1"),
    Buffer.from(body),
  ]);

const text = async ({ body }: WireAnswer): Promise<string> => (await readAll(body)).toString("latin1");

test("one connection serves one answer after the other", async (t) => {
  const { get, seen } = await play(t, ({ socket, request }) => socket.write(reply(`answer ${request}`)));
  for (const expected of ["answer 1", "answer 2", "answer 3"]) assert.equal(await text(await get()), expected);
  assert.deepEqual(
    seen.map(({ connection }) => connection),
    [1, 1, 1],
  );
  assert.match(
    seen[0]?.head ?? "",
    /^GET \/v2\/a%20b\/blobs\/x\?y=z HTTP\/1\.1\r\nhost: 127\.0\.0\.1:\d+\r\nconnection: keep-alive\r\naccept: \*\/\*$/,
  );
});

test("answers side by side have connections of their own", async (t) => {
  const { get, seen } = await play(t, ({ socket, connection }) => setTimeout(() => socket.write(reply(`on ${connection}`)), 20));
  const answers = await Promise.all([get(), get(), get()].map(async (answer) => text(await answer)));
  assert.deepEqual(answers.toSorted(), ["on 1", "on 2", "on 3"]);
  assert.equal(seen.length, 3);
});

test("an answer that comes byte by byte, and one in chunks", async (t) => {
  const { get } = await play(t, ({ socket, request }) => {
    const bytes =
      request === 1
        ? reply("slowly")
        : Buffer.from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    void (async () => {
      for (const byte of bytes) {
        socket.write(Buffer.from([byte]));
        await delay(1);
      }
    })();
  });
  assert.equal(await text(await get()), "slowly");
  assert.equal(await text(await get()), "abcde");
});

test("a large body arrives whole over TLS, however slowly it is read, and its silence meanwhile is no fault of the other side", async (t) => {
  const content = Buffer.alloc(6_000_000, "0123456789abcdefg");
  const { get, seen } = await play(t, ({ socket }) => socket.write(reply(content)), await testCertificate(t));
  const { body } = await get({ idleBodyMs: 150 });
  await delay(500);
  let at = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    assert.ok(content.subarray(at, at + chunk.length).equals(chunk));
    at += chunk.length;
    if (at < 1_000_000) await delay(20);
  }
  assert.equal(at, content.length);
  assert.equal((await readAll((await get()).body)).length, content.length);
  assert.deepEqual(
    seen.map(({ connection }) => connection),
    [1, 1],
  );
});

test("a connection that was closed while nobody used it is replaced without a word", async (t) => {
  const { get, seen } = await play(t, ({ socket, connection, request }) => {
    if (connection === 1 && request === 2) socket.destroy();
    else socket.write(reply(`${connection}.${request}`));
  });
  assert.equal(await text(await get()), "1.1");
  assert.equal(await text(await get()), "2.1", "it was closed in the moment of the request");
  seen.at(-1)?.socket.end();
  await delay(50);
  assert.equal(await text(await get()), "3.1", "it was closed before");
});

test("connections for what will follow are open before it is asked for, and no more are opened while enough wait", async (t) => {
  const { get, seen, opened } = await play(t, ({ socket }) => setTimeout(() => socket.write(reply("here")), 30));
  const first = { isBulk: false, bulkToFollow: 3 };
  await text(await get(first));
  await until(() => opened() === 4, "three besides the first");
  await get(first);
  await Promise.all([get(), get(), get()].map(async (answer) => text(await answer)));
  assert.deepEqual(
    seen
      .slice(-3)
      .map(({ connection }) => connection)
      .toSorted(),
    [2, 3, 4],
  );
  assert.ok(opened() <= 5, "at most one more for the second request");
});

test("one that was opened in advance and is closed in the moment of the request is replaced without a word", async (t) => {
  const { get, opened } = await play(t, ({ socket, connection }) => {
    if (connection === 2) socket.destroy();
    else socket.write(reply(`on ${connection}`));
  });
  await text(await get({ isBulk: false, bulkToFollow: 1 }));
  await until(() => opened() === 2, "one besides the first");
  assert.equal(await text(await get()), "on 3");
});

test("where the other side cannot be reached, one connection is tried in advance and no more", async () => {
  const lines = new Lines();
  let tries = 0;
  const connect = (): Promise<Socket> => {
    tries += 1;
    return Promise.reject(new Error("refused"));
  };
  await lines.prepare({ key: "a", connect }, 8);
  assert.equal(tries, 1);
});

test("who asks while a connection is being opened waits for that one, and asks anew when it fails", async (t) => {
  const { get, seen } = await play(t, ({ socket, connection }) => socket.write(reply(`on ${connection}`)));
  await text(await get());
  const { port } = new URL(`http://${/host: (\S+)/.exec(seen[0]?.head ?? "")?.[1]}`);
  const lines = new Lines();
  t.after(() => lines.close());
  const open: ((socket: Socket | null) => void)[] = [];
  const place = {
    key: "a",
    connect: () =>
      new Promise<Socket>((resolve, reject) => open.push((socket) => (socket ? resolve(socket) : reject(new Error("refused"))))),
  };
  const request = { ...place, url: new URL("http://registry/x"), headers: {}, firstByteMs: 10_000, idleBodyMs: 10_000 };
  void lines.prepare(place, 1);
  const asked = lines.get(request);
  await delay(10);
  assert.equal(open.length, 1);
  open[0]?.(connectPlain({ port: Number(port), host: "127.0.0.1", onread: reusedReads } as NetConnectOpts));
  assert.equal(await text(await asked), "on 2");
  void lines.prepare({ ...place, key: "b" }, 1);
  const again = lines.get({ ...request, key: "b" });
  await delay(10);
  assert.equal(open.length, 2, "nothing of its own is opened yet");
  open[1]?.(null);
  await until(() => open.length === 3, "it opens one itself");
  open[2]?.(null);
  await assert.rejects(again, /refused/);
});

test("a new connection that is closed without an answer is a failure, and so is a body that ends early", async (t) => {
  const { get } = await play(t, ({ socket, connection }) => {
    if (connection === 1) socket.destroy();
    else socket.end("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
  });
  await assert.rejects(get(), /closed|reset/i);
  await assert.rejects(text(await get()), { code: "CUT_SHORT" });
});

test("what comes after an answer belongs to nothing: its connection is not used again", async (t) => {
  const { get, seen } = await play(t, ({ socket, connection }) =>
    socket.write(Buffer.concat([reply("one"), connection === 1 ? reply("smuggled") : Buffer.alloc(0)])),
  );
  assert.equal(await text(await get()), "one");
  assert.equal(await text(await get()), "one");
  assert.deepEqual(
    seen.map(({ connection }) => connection),
    [1, 2],
  );
});

test("what comes later, and the end of the connection, do not harm a body that has come whole and is read slowly", async (t) => {
  const { get, seen } = await play(t, ({ socket, connection }) => {
    socket.write(reply("x".repeat(100_000)));
    if (connection === 1) setTimeout(() => socket.write(reply("smuggled")), 30);
    else socket.end();
  });
  for (const connection of [1, 2]) {
    const { body } = await get({ idleBodyMs: 40 });
    await delay(150);
    assert.equal((await readAll(body)).length, 100_000);
    assert.equal(seen.at(-1)?.connection, connection);
  }
});

test("a body that ends with its connection is whole", async (t) => {
  const { get } = await play(t, ({ socket }) => socket.end("HTTP/1.1 200 OK\r\n\r\nto the end"));
  assert.equal(await text(await get()), "to the end");
});

test("a body that nobody wants any more ends its connection", async (t) => {
  const { get, seen } = await play(t, ({ socket }) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"));
  (await get()).body.destroy();
  await until(() => seen[0]?.socket.destroyed === true || seen[0]?.socket.readableEnded === true, "the connection ends");
});

test("no answer in time, and a body that stops", async (t) => {
  const { get } = await play(t, ({ socket, connection }) => {
    if (connection > 1) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
  });
  await assert.rejects(get({ firstByteMs: 100 }), { code: "ANSWER_TIMEOUT" });
  await assert.rejects(text(await get({ idleBodyMs: 100 })), { code: "BODY_TIMEOUT" });
});

test("a call that is ended ends, before its answer and in the middle of it", async (t) => {
  const { get, seen } = await play(t, ({ socket, connection }) => {
    if (connection > 1) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
  });
  const first = new AbortController();
  const asked = get({ signal: first.signal });
  await until(() => seen.length === 1, "the request arrives");
  first.abort();
  await assert.rejects(asked);
  const second = new AbortController();
  const { body } = await get({ signal: second.signal });
  second.abort();
  await assert.rejects(readAll(body));
});

test("an answer that is none ends its connection", async (t) => {
  const { get } = await play(t, ({ socket }) => socket.write("220 mail.example.org ESMTP\r\n\r\n"));
  await assert.rejects(get(), { code: "MALFORMED_ANSWER" });
});

test("a header that would be two is never sent", async (t) => {
  const { get, seen } = await play(t, ({ socket }) => socket.write(reply("no")));
  await assert.rejects(get({ headers: { authorization: "Bearer x\r\nX-Injected: y" } }), TypeError);
  assert.equal(seen.length, 0);
});

test("a body that stops for the head of a request beside it comes whole, also when that head does not come", async (t) => {
  const content = Buffer.alloc(3_000_000, 7);
  const { get, seen } = await play(t, ({ socket, connection }) => void (connection === 1 && socket.write(reply(content))));
  const second = get();
  const first = get();
  const answers = [first, second].map(async (answer) => readAll((await answer).body));
  const whole = await Promise.race(answers);
  assert.ok(whole.equals(content));
  await until(() => seen.length === 2, "both were asked");
  seen.find(({ connection }) => connection === 2)?.socket.write(reply("late"));
  const bodies = await Promise.all(answers);
  assert.deepEqual(bodies.map(({ length }) => length).toSorted(), [content.length, 4].toSorted());
});

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFile } from "node:fs/promises";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { connect as tlsConnect } from "node:tls";
import express from "express";
import { startServer } from "../../api/server.ts";
import type { RunningServer, ServerOptions } from "../../api/server.ts";
import type { HttpObserver } from "../../api/http/observer.ts";
import { closedWithin, openSocket, rawRequest } from "../support/raw-http.ts";
import { tempDir } from "../support/temp.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

interface Recorded extends HttpObserver {
  readonly errors: string[];
  readonly limits: string[];
}

function recorder(): Recorded {
  const errors: string[] = [];
  const limits: string[] = [];
  return {
    errors,
    limits,
    onResponse: (record) => {
      if (record.error !== undefined) errors.push(record.error instanceof Error ? record.error.message : String(record.error));
    },
    onLimit: (limit) => limits.push(limit),
  };
}

async function serve(t: Cleanable, options: Partial<ServerOptions> = {}): Promise<RunningServer & { observer: Recorded }> {
  const observer = recorder();
  const server = await startServer({ host: "127.0.0.1", port: 0, observer, ...options });
  t.after(() => server.close());
  return Object.assign(server, { observer });
}

const hello: ServerOptions["registry"] = (_req, res) => {
  res.end("hello");
};

test("mounts are served by prefix and the rest is 404", async (t) => {
  const router = express.Router();
  router.get("/thing", (_req, res) => void res.json({ ok: true }));
  router.get("/broken", () => {
    throw new Error("oops");
  });
  router.get("/rejected", () => Promise.reject(new Error("oops")));
  const server = await serve(t, { mounts: [{ path: "/api/v1", handler: router, operation: "cache-api" }] });
  assert.deepEqual(await (await fetch(`${server.url}/api/v1/thing`)).json(), { ok: true });
  assert.equal((await fetch(`${server.url}/other`)).status, 404);
  for (const path of ["/broken", "/rejected"]) {
    const answer = await fetch(`${server.url}/api/v1${path}`);
    assert.equal(answer.status, 500);
    const body = (await answer.json()) as { errors: { code: string; detail: { requestId: string } }[] };
    assert.equal(body.errors[0]?.code, "INTERNAL");
    assert.equal(body.errors[0]?.detail.requestId, answer.headers.get("x-request-id"));
  }
  assert.deepEqual(server.observer.errors, ["oops", "oops"]);
});

test("a handler that throws, now or later, does not end the process", async (t) => {
  const server = await serve(t, {
    registry: (req, res) => {
      if (req.url === "/v2/sync") throw new Error("sync");
      if (req.url === "/v2/async") return Promise.reject(new Error("async"));
      if (req.url === "/v2/late") {
        res.write("part");
        return Promise.reject(new Error("late"));
      }
      res.end("fine");
      return undefined;
    },
    hot: (req) => {
      if (req.url === "/v2/hot") throw new Error("hot");
      return false;
    },
  });
  for (const path of ["sync", "async", "hot"]) assert.equal((await fetch(`${server.url}/v2/${path}`)).status, 500);
  await assert.rejects(async () => (await fetch(`${server.url}/v2/late`)).text());
  assert.equal(await (await fetch(`${server.url}/v2/ok`)).text(), "fine");
});

test("too many or too large header fields are 431", async (t) => {
  const server = await serve(t, { registry: hello });
  const tiny = Array.from({ length: 10_000 }, () => "a:\r\n").join("");
  const many = Array.from({ length: 300 }, (_, index) => `a${index}: b\r\n`).join("");
  for (const fields of [tiny, many, `x: ${"y".repeat(40_000)}\r\n`]) {
    const answer = await rawRequest([`GET /v2/ HTTP/1.1\r\nHost: x\r\n${fields}\r\n`], { port: server.port });
    assert.equal(answer.status, 431);
  }
  assert.equal(await (await fetch(`${server.url}/v2/`)).text(), "hello");
});

test("what is no HTTP gets 400 and the connection closes", async (t) => {
  const server = await serve(t, { registry: hello });
  for (const nonsense of [
    "\u0016\u0003\u0001\r\n\r\n",
    "GET\r\n\r\n",
    "GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
  ]) {
    assert.equal((await rawRequest([nonsense], { port: server.port })).status, 400);
  }
});

test("a head that does not come to its end in time is 408", async (t) => {
  const server = await serve(t, { registry: hello, limits: { headersTimeoutMs: 300 } });
  const socket = await openSocket(server.port);
  const received: string[] = [];
  socket.on("data", (chunk: Buffer) => received.push(chunk.toString()));
  socket.write("GET /v2/ HTTP/1.1\r\nHost: x\r\n");
  const drip = setInterval(() => socket.write("a: b\r\n"), 50);
  const closed = await closedWithin(socket, 5_000);
  clearInterval(drip);
  assert.ok(closed);
  assert.match(received.join(""), /^HTTP\/1\.1 408 /);
});

test("a body that drips and an answer that nobody reads are cut; a slow server is not", async (t) => {
  const big = Buffer.alloc(16 * 1024 * 1024);
  const server = await serve(t, {
    limits: { idleTimeoutMs: 400, minBytesPerWindow: 100 },
    registry: (req, res) => {
      if (req.url === "/v2/slow-server") setTimeout(() => res.end("done"), 1_200);
      else if (req.url === "/v2/big") res.end(big);
      else req.on("data", () => undefined).on("end", () => res.end("read"));
    },
  });
  const dripping = await openSocket(server.port);
  dripping.write("PUT /v2/body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
  const drip = setInterval(() => dripping.write("x"), 50);
  const deaf = await openSocket(server.port);
  deaf.pause();
  deaf.write("GET /v2/big HTTP/1.1\r\nHost: x\r\n\r\n");
  const patient = fetch(`${server.url}/v2/slow-server`).then((answer) => answer.text());
  assert.ok(await closedWithin(dripping, 5_000));
  clearInterval(drip);
  assert.equal(await patient, "done");
  deaf.resume();
  assert.ok(await closedWithin(deaf, 5_000));
  assert.ok(deaf.bytesRead < big.length);
  assert.deepEqual(server.observer.limits, ["idle_client", "idle_client"]);
});

test("connections above the bound are refused and the others live on", async (t) => {
  const server = await serve(t, { registry: hello, limits: { maxConnections: 2 } });
  const first = await openSocket(server.port);
  const second = await openSocket(server.port);
  const third = await openSocket(server.port);
  assert.ok(await closedWithin(third, 5_000));
  second.destroy();
  first.write("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n");
  const [chunk] = (await once(first, "data")) as [Buffer];
  assert.match(chunk.toString(), /200 OK/);
  first.destroy();
});

test("draining lets a running transfer end, closes its connection and refuses new ones", async (t) => {
  let release: (() => void) | undefined;
  const server = await serve(t, {
    registry: (_req, res) => {
      release = () => res.end("complete");
    },
  });
  const idle = await openSocket(server.port);
  const running = fetch(`${server.url}/v2/x`);
  while (!release) await new Promise((resolve) => setTimeout(resolve, 5));
  const drained = server.drain(10_000);
  assert.ok(await closedWithin(idle, 5_000));
  await assert.rejects(openSocket(server.port));
  release();
  const answer = await running;
  assert.equal(answer.headers.get("connection"), "close");
  assert.equal(await answer.text(), "complete");
  assert.deepEqual(await drained, { cut: 0 });
});

test("draining cuts what does not end in its time", async (t) => {
  const server = await serve(t, { registry: (_req, res) => void res.write("never ending") });
  const socket = await openSocket(server.port);
  socket.write("GET /v2/x HTTP/1.1\r\nHost: x\r\n\r\n");
  await once(socket, "data");
  assert.deepEqual(await server.drain(200), { cut: 1 });
  assert.ok(await closedWithin(socket, 5_000));
});

test("two servers share a port when asked to", async (t) => {
  const one = await serve(t, { registry: (_req, res) => void res.end("one"), reusePort: true });
  const two = await serve(t, { registry: (_req, res) => void res.end("two"), reusePort: true, port: one.port });
  assert.equal(two.port, one.port);
  const seen = new Set<string>();
  for (let turn = 0; turn < 200 && seen.size < 2; turn += 1) {
    seen.add(await (await fetch(`${one.url}/v2/`, { headers: { connection: "close" } })).text());
  }
  assert.deepEqual([...seen].toSorted(), ["one", "two"]);
});

test("a taken port is an error of the start", async (t) => {
  const one = await serve(t, { registry: hello });
  await assert.rejects(startServer({ host: "127.0.0.1", port: one.port, observer: recorder() }), { code: "EADDRINUSE" });
});

function makeCertificate(folder: string, name: string): { certFile: string; keyFile: string } {
  const certFile = join(folder, `${name}.crt`);
  const keyFile = join(folder, `${name}.key`);
  const subject = ["-subj", `/CN=${name}`, "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
  execFileSync("openssl", ["req", "-x509", ...subject, "-keyout", keyFile, "-out", certFile], { stdio: "ignore" });
  return { certFile, keyFile };
}

function peerName(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = tlsConnect({ port, host: "127.0.0.1", rejectUnauthorized: false }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.destroy();
    });
    socket.once("error", reject);
  });
}

test("a renewed certificate is taken up while the server runs", async (t) => {
  const folder = await tempDir(t);
  const first = makeCertificate(folder, "first");
  const second = makeCertificate(folder, "second");
  const used = { certFile: join(folder, "tls.crt"), keyFile: join(folder, "tls.key") };
  await copyFile(first.certFile, used.certFile);
  await copyFile(first.keyFile, used.keyFile);
  const server = await serve(t, { registry: hello, tls: used, tlsReloadMs: 50 });
  assert.equal(await peerName(server.port), "first");
  // Between the two copies certificate and key do not belong together: the old pair must stay.
  await copyFile(second.certFile, used.certFile);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(await peerName(server.port), "first");
  await copyFile(second.keyFile, used.keyFile);
  const deadline = Date.now() + 5_000;
  while ((await peerName(server.port)) !== "second") assert.ok(Date.now() < deadline, "the new certificate was not taken up");
});

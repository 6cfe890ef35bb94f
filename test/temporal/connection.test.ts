/** The client's connection: lazy, bounded, and back by itself. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { createServer, connect } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { isSlipwayError } from "../../src/core/errors.ts";
import { TemporalConnection } from "../../src/temporal/connection.ts";
import { testNamespace } from "../support/temporal.ts";

test("a service that is away answers TEMPORAL_UNAVAILABLE within the deadline, and calls work once it is back", async (t) => {
  const { address, namespace } = await testNamespace(t);
  const [host = "", port = ""] = address.split(":");
  const sockets = new Set<Socket>();
  const proxy = createServer((client) => {
    const server = connect(Number(port), host);
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
    }
    client.pipe(server).pipe(client);
  });
  const listen = (at: number): Promise<void> => new Promise((resolve) => proxy.listen(at, "127.0.0.1", () => resolve()));
  const drop = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => proxy.close(() => resolve()));
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  await listen(0);
  const proxyPort = (proxy.address() as AddressInfo).port;
  await drop();

  const temporal = new TemporalConnection({ address: `127.0.0.1:${proxyPort}`, namespace, callTimeoutMs: 1_000 });
  t.after(() => temporal.close());
  const isAway = (error: unknown): boolean => isSlipwayError(error, "TEMPORAL_UNAVAILABLE") && error.retryAfterSeconds !== undefined;
  const before = performance.now();
  await assert.rejects(
    temporal.call((client) => client.workflow.getHandle("x").describe()),
    isAway,
  );
  assert.ok(performance.now() - before < 5_000);

  await listen(proxyPort);
  t.after(drop);
  await temporal.check({ timeoutMs: 8_000 });
  await drop();
  await assert.rejects(temporal.check(), isAway);
  await listen(proxyPort);
  await temporal.check({ timeoutMs: 8_000 });
});

test("an unknown namespace and an unknown run are told apart", async (t) => {
  const { address, temporal } = await testNamespace(t);
  await assert.rejects(
    temporal.call((client) => client.workflow.getHandle("nobody").describe()),
    (error) => isSlipwayError(error, "NOT_FOUND"),
  );
  const other = new TemporalConnection({ address, namespace: "no-such-namespace" });
  t.after(() => other.close());
  await assert.rejects(
    other.check(),
    (error) => isSlipwayError(error, "TEMPORAL_UNAVAILABLE") && error.message.includes("no-such-namespace"),
  );
});

test("the caller's signal ends a call", async (t) => {
  const { temporal } = await testNamespace(t);
  const reason = new Error("gone");
  await assert.rejects(
    temporal.call((client) => client.workflow.getHandle("x").describe(), { signal: AbortSignal.abort(reason) }),
    reason,
  );
});

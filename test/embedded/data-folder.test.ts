import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { openDataFolder } from "../../src/embedded/data-folder.ts";
import { acquireDataLock } from "../../src/embedded/data-lock.ts";
import { identify, isRunning, processStartTime } from "../../src/embedded/process-info.ts";
import type { RunInfo } from "../../src/embedded/run-file.ts";
import { tempDir } from "../support/temp.ts";
import { collectingLog, fixture, inReverse, query, startProgram, until } from "./support.ts";

const OWNER = [process.execPath, fixture("owner.ts")];

test("of several starters at once exactly one owns the folder, and the others name it", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const starters = Array.from({ length: 4 }, () => startProgram(t, [...OWNER, dataDir, "no-postgres"]));
  const outcomes = await Promise.all(
    starters.map((starter) => until("an outcome", () => starter.lines.find((line) => "up" in line || "failed" in line))),
  );
  const owners = outcomes.filter((line) => line["up"] === "owner");
  assert.equal(owners.length, 1);
  const owner = String(owners[0]?.["pid"]);
  for (const line of outcomes.filter((candidate) => "failed" in candidate)) {
    assert.equal(line["failed"], "CONFLICT");
    assert.match(String(line["message"]), new RegExp(`in use by process ${owner}\\b`));
    assert.match(String(line["message"]), /--role/);
  }
});

test("a start that asks for a role joins the owner through run.json", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const owner = startProgram(t, [...OWNER, dataDir]);
  // Begun at the same time: it waits until the owner's services are known.
  const early = startProgram(t, [...OWNER, dataDir, "join"]);
  const up = await Promise.any([owner, early].map((program) => program.line("up", "owner")));
  const joined = await Promise.any(
    [owner, early, startProgram(t, [...OWNER, dataDir, "join"])].map((program) => program.line("up", "joined")),
  );
  assert.equal(joined["owner"], up["pid"]);
  assert.equal(joined["databaseUrl"], up["databaseUrl"]);
  assert.deepEqual(await query(String(joined["databaseUrl"]), "SELECT 1 AS one"), [{ one: 1 }]);
  assert.equal((await stat(join(dataDir, "run.json"))).mode & 0o777, 0o600);
});

test("after kill -9 of the owner its children go, and the next start has the data", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const first = startProgram(t, [...OWNER, dataDir]);
  const up = await first.line("up");
  await query(String(up["databaseUrl"]), "CREATE TABLE kept AS SELECT 42 AS answer");
  const child = await first.line("state", "postgres").then(() => first.lines.findLast((line) => line["state"] === "postgres"));
  first.child.kill("SIGKILL");
  // At once: the new owner has to cope with what is still ending.
  const second = startProgram(t, [...OWNER, dataDir]);
  const next = await second.line("up");
  assert.deepEqual(await query(String(next["databaseUrl"]), "SELECT answer FROM kept"), [{ answer: 42 }]);
  assert.equal(processStartTime(Number(child?.["pid"])), null);
  second.child.kill("SIGTERM");
  assert.equal(await second.exit(), 0);
  assert.equal(existsSync(join(dataDir, "run.json")), false);
});

test("leftovers are ended when folder and start time match, and only then", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const sleepers = [0, 1, 2].map(() => spawn("sleep", ["60"], { detached: true, stdio: "ignore" }));
  t.after(() => {
    for (const sleeper of sleepers) sleeper.kill("SIGKILL");
  });
  const [ours, reused, elsewhere] = sleepers.map((sleeper) => identify(sleeper.pid ?? 0));
  assert.ok(ours && reused && elsewhere);
  const write = (folder: string, children: object[]): Promise<void> => {
    const info: Partial<RunInfo> = { dataDir: folder, owner: { pid: 1, startTime: "gone" }, children: children as RunInfo["children"] };
    return writeFile(join(dataDir, "run.json"), JSON.stringify(info));
  };
  const log = collectingLog();
  await write("/somewhere/else", [{ name: "temporal", ...elsewhere }]);
  const open = async (): Promise<void> => {
    const folder = await openDataFolder({ dataDir, mayJoin: false, log });
    assert.equal(folder.kind, "owner");
    if (folder.kind === "owner") folder.release();
  };
  await open();
  assert.equal(isRunning(elsewhere), true);
  await write(dataDir, [
    { name: "temporal", ...ours },
    { name: "proxy-2", pid: reused.pid, startTime: "another life" },
  ]);
  await open();
  assert.equal(isRunning(ours), false);
  assert.equal(isRunning(reused), true);
  assert.deepEqual(log.warnings, ["ending a process that an earlier start left behind"]);
});

test("the lock is free as soon as its holder is killed, and its file stays empty", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const holder = startProgram(t, [...OWNER, dataDir, "no-postgres"]);
  await holder.line("up");
  assert.equal(await acquireDataLock(dataDir, 100), null);
  holder.child.kill("SIGKILL");
  await holder.exit();
  const lock = await acquireDataLock(dataDir, 0);
  assert.ok(lock);
  assert.equal(await acquireDataLock(dataDir, 0), null, "it also holds against ourselves");
  lock.release();
  assert.equal((await readFile(join(dataDir, "lock"))).length, 0);
});

test("a data folder that cannot be made is one clear problem", async (context) => {
  const t = inReverse(context);
  const folder = await tempDir(t);
  await writeFile(join(folder, "file"), "");
  await assert.rejects(openDataFolder({ dataDir: join(folder, "file", "data"), mayJoin: false, log: collectingLog() }), {
    code: "CONFIG_INVALID",
    message: /cannot make the data folder .*file\/data/,
  });
});

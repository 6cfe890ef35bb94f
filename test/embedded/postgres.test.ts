import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmod, chown, mkdir, mkdtemp, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { makeLinks } from "../../src/embedded/postgres-install.ts";
import { handOverFolder } from "../../src/embedded/postgres-user.ts";
import { startPostgres } from "../../src/embedded/postgres.ts";
import { isRunning } from "../../src/embedded/process-info.ts";
import { tempDir } from "../support/temp.ts";
import { collectingLog, fixture, inReverse, query, startProgram, until } from "./support.ts";

const isRoot = process.getuid?.() === 0;

test("keeps its data over a restart and leaves no process", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const log = collectingLog();
  const first = await startPostgres({ dataDir, log });
  await query(first.url, "CREATE TABLE kept AS SELECT 42 AS answer");
  const process1 = first.state().process;
  assert.ok(process1 && isRunning(process1));
  await first.close();
  assert.equal(isRunning(process1), false);
  assert.equal(first.state().phase, "stopped");

  const second = await startPostgres({ dataDir, log });
  t.after(() => second.close());
  assert.deepEqual(await query(second.url, "SELECT answer FROM kept"), [{ answer: 42 }]);
  const [settings] = await query(
    second.url,
    `SELECT current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync, current_setting('listen_addresses') AS addresses,
      (SELECT datcollate FROM pg_database WHERE datname = current_database()) AS collate`,
  );
  assert.deepEqual(settings, { encoding: "UTF8", fsync: "on", addresses: "", collate: "C" });
  assert.deepEqual(log.warnings, []);
});

test("is started again at the same address when it is killed", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const log = collectingLog();
  const server = await startPostgres({ dataDir, log, forcePort: true });
  t.after(() => server.close());
  await query(server.url, "CREATE TABLE kept AS SELECT 1 AS one");
  const before = server.state().process?.pid;
  assert.ok(before);
  process.kill(before, "SIGKILL");
  await until("the next server", () => server.state().phase === "running" && server.state().process?.pid !== before);
  assert.deepEqual(await query(server.url, "SELECT one FROM kept"), [{ one: 1 }]);
  assert.equal(server.state().restarts >= 1, true);
});

test("a folder whose path is too long for a socket and has spaces gets a port with a password", async (context) => {
  const t = inReverse(context);
  const dataDir = join(await tempDir(t), "with spaces and ünicode, and more than a socket path can hold ".repeat(2).trim());
  await mkdir(dataDir);
  const server = await startPostgres({ dataDir, log: collectingLog(), durable: false });
  t.after(() => server.close());
  const url = new URL(server.url);
  assert.equal(url.hostname, "127.0.0.1");
  assert.deepEqual(await query(server.url, "SELECT 1 AS one"), [{ one: 1 }]);
  url.password = "wrong";
  await assert.rejects(query(url.href, "SELECT 1"), { code: "28P01" });
  assert.equal((await stat(join(dataDir, "postgres-password"))).mode & 0o777, 0o600);
});

test("a pid file whose pid belongs to somebody else does not keep it from starting", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const log = collectingLog();
  const first = await startPostgres({ dataDir, log, durable: false });
  const pidFile = join(dataDir, "postgres", "postmaster.pid");
  const content = await readFile(pidFile, "utf8");
  await first.close();
  // This very process is alive, and is no Postgres.
  await writeFile(pidFile, content.replace(/^\d+/, String(process.pid)), { mode: 0o600 });
  const second = await startPostgres({ dataDir, log, durable: false });
  t.after(() => second.close());
  assert.deepEqual(await query(second.url, "SELECT 1 AS one"), [{ one: 1 }]);
});

test("an interrupted first start leaves no half database", async (context) => {
  const t = inReverse(context);
  const dataDir = await tempDir(t);
  const stop = new AbortController();
  const starting = startPostgres({ dataDir, log: collectingLog(), durable: false }, stop.signal);
  await until("initdb at work", () =>
    stat(join(dataDir, "postgres")).then(
      () => true,
      async () => (await stat(dataDir)).nlink > 2,
    ),
  );
  stop.abort(new Error("interrupted"));
  await assert.rejects(starting);
  const server = await startPostgres({ dataDir, log: collectingLog(), durable: false });
  t.after(() => server.close());
  assert.deepEqual(await query(server.url, "SELECT 1 AS one"), [{ one: 1 }]);
});

test(
  "as root without namespaces it runs as another user, from copies that this user reaches",
  { skip: !isRoot && "needs root" },
  async (context) => {
    const t = inReverse(context);
    const dataDir = await tempDir(t);
    await chmod(dataDir, 0o700);
    // Below a folder that every user can pass, and that is no temporary one.
    const base = await mkdtemp("/var/lib/slipway-test-");
    await chmod(base, 0o755);
    t.after(() => rm(base, { recursive: true, force: true }));
    const namespaced = await startPostgres({ dataDir, log: collectingLog(), durable: false });
    await query(namespaced.url, "CREATE TABLE kept AS SELECT 7 AS seven");
    await namespaced.close();

    const server = await startPostgres({ dataDir, log: collectingLog(), durable: false, avoidNamespace: true, handOverBase: base });
    t.after(() => server.close());
    assert.deepEqual(await query(server.url, "SELECT seven FROM kept"), [{ seven: 7 }]);
    const cluster = await stat(join(handOverFolder(dataDir, base), "postgres"));
    assert.notEqual(cluster.uid, 0);
    const pid = server.state().process?.pid;
    assert.equal((await stat(`/proc/${pid}`)).uid, cluster.uid);
  },
);

test("an unprivileged user runs it without help", { skip: !isRoot && "needs root to become another user" }, async (context) => {
  const t = inReverse(context);
  const uid = 65_534;
  const dataDir = await mkdtemp("/var/tmp/slipway test-");
  t.after(() => rm(dataDir, { recursive: true, force: true }));
  await chown(dataDir, uid, uid);
  try {
    execFileSync("setpriv", [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--", "test", "-r", fixture("owner.ts")]);
  } catch {
    context.skip(`user ${uid} cannot read ${fixture("owner.ts")}, so it cannot run the program`);
    return;
  }
  const user = ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--"];
  const program = startProgram(t, [...user, process.execPath, fixture("owner.ts"), dataDir]);
  const up = await program.line("up", "owner");
  assert.deepEqual(await query(String(up["databaseUrl"]), "SELECT 1 AS one"), [{ one: 1 }]);
  assert.equal((await stat(join(dataDir, "postgres", "PG_VERSION"))).uid, uid);
  assert.equal((await stat(join(dataDir, "run.json"))).mode & 0o777, 0o600);
  program.child.kill("SIGTERM");
  assert.equal(await program.exit(), 0);
});

test("library links are made by several starters at once, and mended", async (context) => {
  const t = inReverse(context);
  const folder = await tempDir(t);
  const lib = join(folder, "native", "lib");
  await mkdir(lib, { recursive: true });
  await writeFile(join(lib, "libpq.so.5.18"), "the library");
  await symlink("elsewhere", join(lib, "libpq.so"));
  const links = ["libpq.so", "libpq.so.5"].map((name) => ({ source: "native/lib/libpq.so.5.18", target: `native/lib/${name}` }));
  await writeFile(join(folder, "native", "pg-symlinks.json"), JSON.stringify(links));
  await Promise.all(Array.from({ length: 16 }, () => makeLinks(folder, lib)));
  assert.equal(await readlink(join(lib, "libpq.so")), "libpq.so.5.18");
  assert.equal(await readFile(join(lib, "libpq.so.5"), "utf8"), "the library");
  // A read-only installation gets its links elsewhere.
  const other = join(folder, "links");
  await mkdir(other);
  await makeLinks(folder, other);
  assert.equal(await readFile(join(other, "libpq.so.5"), "utf8"), "the library");
});

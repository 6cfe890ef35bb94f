/** The outbox relay end to end: order, failures, and a relay killed in the middle. */
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Outbox } from "../../src/catalog/outbox.ts";
import type { Database } from "../../src/db/pool.ts";
import { workflowIds } from "../../src/temporal/ids.ts";
import type { ChildSettings } from "../support/maintenance-child.ts";
import { createHandledTable, eventually, noKv, recordingHandler, startMaintenance, tableCollection } from "../support/maintenance.ts";
import { scope } from "../support/scope.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";
import { testNamespace } from "../support/temporal.ts";

const CHILD = fileURLToPath(new URL("../support/maintenance-child.ts", import.meta.url));

let dataDir = "";
const cleanups: (() => Promise<void> | void)[] = [];
before(async () => {
  dataDir = await tempDir({ after: (fn) => cleanups.push(fn) });
});
after(async () => {
  for (const cleanup of cleanups) await cleanup();
});

async function append(database: Database, key: string, numbers: readonly number[]): Promise<void> {
  await new Outbox(database).append(numbers.map((number) => ({ kind: "event", key, payload: { number } })));
}

interface Handled {
  readonly row_id: number;
  readonly key: string;
  readonly payload: { number: number };
  readonly who: string;
}

async function handled(database: Database): Promise<Handled[]> {
  return (await database.query<Handled>("SELECT * FROM handled ORDER BY position")).rows;
}

async function isEmpty(database: Database): Promise<boolean> {
  return (await database.query("SELECT 1 FROM outbox LIMIT 1")).rowCount === 0;
}

function numbersOf(rows: readonly Handled[], key: string): number[] {
  return rows.filter((row) => row.key === key).map((row) => row.payload.number);
}

test("rows are handled in the order of their key, once, and a failing key does not hold up the others", async (t) => {
  const end = scope(t);
  const { database } = await testDatabase(end);
  const { temporal } = await testNamespace(end);
  await createHandledTable(database);
  const record = recordingHandler(database, "here");
  let failures = 2;
  const group = startMaintenance({
    database,
    temporal,
    dataDir,
    collection: tableCollection(database, 0),
    kv: noKv,
    handlers: {
      event: async (rows, signal) => {
        if (failures > 0 && rows.some((row) => row.key === "bad")) {
          failures -= 1;
          throw new Error("the other side says no");
        }
        await record(rows, signal);
      },
    },
  });
  end.after(() => group.close());
  await append(database, "a", [1, 2, 3]);
  await append(database, "bad", [1, 2]);
  await append(database, "b", [1, 2]);
  await eventually("the outbox is emptied", () => isEmpty(database), 25_000);
  await append(database, "a", [4]);
  await eventually("rows written while the relay is idle are seen", async () => numbersOf(await handled(database), "a").length === 4);
  const rows = await handled(database);
  assert.deepEqual(numbersOf(rows, "a"), [1, 2, 3, 4]);
  assert.deepEqual(numbersOf(rows, "b"), [1, 2]);
  assert.deepEqual(numbersOf(rows, "bad"), [1, 2], "tried again, in order");
  assert.equal(failures, 0);
});

function startChild(settings: ChildSettings): ChildProcess {
  return spawn(process.execPath, [CHILD, JSON.stringify(settings)], { stdio: ["ignore", "ignore", "inherit"] });
}

test("a relay that is killed in the middle is continued by another process, without loss and in order", async (t) => {
  const end = scope(t);
  const { database, url } = await testDatabase(end);
  const { address, namespace, temporal } = await testNamespace(end);
  await createHandledTable(database);
  const numbers = Array.from({ length: 40 }, (_, index) => index);
  for (const key of ["x", "y", "z"]) await append(database, key, numbers);

  const settings: ChildSettings = { address, namespace, databaseUrl: url, dataDir, pauseMs: 25 };
  const victim = startChild(settings);
  const heir = startChild(settings);
  end.after(async () => {
    for (const child of [victim, heir]) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  });
  const busy = await eventually("one of the two relays works", async () => {
    const rows = await handled(database);
    return rows.length >= 25 && rows[0]?.who;
  });
  const [dying, living] = busy === `child ${victim.pid}` ? [victim, heir] : [heir, victim];
  dying.kill("SIGKILL");
  await eventually("the other empties the outbox", () => isEmpty(database), 20_000);

  const rows = await handled(database);
  assert.equal(new Set(rows.map((row) => row.who)).size, 2, "each of the two did a part");
  assert.equal(rows.at(-1)?.who, `child ${living.pid}`);
  for (const key of ["x", "y", "z"]) {
    const seen = numbersOf(rows, key);
    const first = [...new Set(seen)];
    assert.deepEqual(first, numbers, "nothing lost, nothing overtaken");
  }
  const repeated = rows.length - new Set(rows.map((row) => row.row_id)).size;
  assert.ok(repeated <= 10, `only rows of the batch in hand may be seen again: ${repeated}`);
  const runs = await temporal.call(async (client) => client.workflow.getHandle(workflowIds.outboxRelay).describe());
  assert.equal(runs.status.name, "RUNNING");
});

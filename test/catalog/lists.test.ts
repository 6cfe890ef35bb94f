// Pages over 100,000 tags and 100,000 repositories come from an index, wherever the page begins.
import assert from "node:assert/strict";
import { test } from "node:test";
import { RepositoryStore } from "../../src/catalog/repository-store.ts";
import { TagStore } from "../../src/catalog/tag-store.ts";
import type { Database } from "../../src/db/pool.ts";
import { catalogFixture, digestOf, indexManifest, putManifest } from "./support.ts";

const MANY = 100_000;

interface PlanNode {
  readonly "Node Type": string;
  readonly "Relation Name"?: string;
  readonly "Actual Rows"?: number;
  readonly "Actual Loops"?: number;
  readonly Plans?: readonly PlanNode[];
}

/** What the database really did for the last statement of this text, run with these values. */
async function plan(database: Database, sql: string, values: readonly unknown[]): Promise<PlanNode[]> {
  const explained = await database.query<{ "QUERY PLAN": { Plan: PlanNode }[] }>(`EXPLAIN (ANALYZE, FORMAT JSON) ${sql}`, values);
  const nodes: PlanNode[] = [];
  const walk = (node: PlanNode): void => {
    nodes.push(node);
    for (const child of node.Plans ?? []) walk(child);
  };
  for (const { Plan } of explained.rows[0]?.["QUERY PLAN"] ?? []) walk(Plan);
  return nodes;
}

/** Hands the statements that a store sends to the check instead of trusting a copy of its SQL. */
function recording(database: Database): { db: Pick<Database, "query">; sent: { text: string; values: readonly unknown[] }[] } {
  const sent: { text: string; values: readonly unknown[] }[] = [];
  return {
    sent,
    db: {
      query: (text, values) => {
        sent.push({ text, values: values ?? [] });
        return database.query(text, values);
      },
    },
  };
}

function assertNarrow(nodes: readonly PlanNode[], most: number): void {
  for (const node of nodes) {
    assert.notEqual(node["Node Type"], "Seq Scan", `${node["Relation Name"]} is scanned`);
    const rows = (node["Actual Rows"] ?? 0) * (node["Actual Loops"] ?? 1);
    assert.ok(rows <= most, `${node["Node Type"]} reads ${rows} rows`);
  }
}

test("a page of tags reads the page and nothing else", async (t) => {
  const fixture = await catalogFixture(t);
  const bytes = indexManifest([]);
  await putManifest(fixture, "team/many", bytes, ["first"]);
  await fixture.database.query("INSERT INTO repositories (project_id, name) SELECT $1, 'team/r' || n FROM generate_series(1, 5000) n", [
    fixture.project.id,
  ]);
  await fixture.database.query(
    "INSERT INTO tags (repository_id, name, digest) SELECT r.id, 'v' || lpad(n::text, 6, '0'), $2 FROM repositories r, generate_series(1, $1::int) n WHERE r.name = 'team/many'",
    [MANY, digestOf(bytes)],
  );
  await fixture.database.query("ANALYZE");
  const { db, sent } = recording(fixture.database);
  const tags = new TagStore(db);
  const first = await tags.listNames("team/many", 100, null);
  assert.equal(first?.tags[0], "first");
  assert.equal(first?.next, "v000099");
  const middle = await tags.listNames("team/many", 100, "v050000");
  assert.equal(middle?.tags[0], "v050001");
  const end = await tags.listNames("team/many", 100, "v099990");
  assert.deepEqual([end?.tags.length, end?.next], [10, null]);
  assert.deepEqual(await tags.listNames("team/many", 0, null), { tags: [], next: null });
  assert.equal(await tags.listNames("team/none", 10, null), null);
  for (const { text, values } of sent.slice(0, 3)) assertNarrow(await plan(fixture.database, text, values), 101);
});

test("a page of the catalog reads the page and nothing else", async (t) => {
  const fixture = await catalogFixture(t);
  await fixture.database.query(
    "INSERT INTO repositories (project_id, name) SELECT $2, 'team/r' || lpad(n::text, 6, '0') FROM generate_series(1, $1::int) n",
    [MANY, fixture.project.id],
  );
  await fixture.database.query("ANALYZE");
  const counted = await fixture.database.query<{ repo_count: number }>("SELECT repo_count FROM projects");
  assert.equal(counted.rows[0]?.repo_count, MANY);
  const { db, sent } = recording(fixture.database);
  const repositories = new RepositoryStore(db);
  assert.equal((await repositories.listNames(100, null)).next, "team/r000100");
  assert.equal((await repositories.listNames(100, "team/r050000")).names[0], "team/r050001");
  assert.deepEqual((await repositories.listNames(100, "team/r099999")).names, ["team/r100000"]);
  assert.equal((await repositories.listNames(100, "team/r099900")).next, null);
  for (const { text, values } of sent) assertNarrow(await plan(fixture.database, text, values), 101);
});

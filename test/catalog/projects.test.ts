// Projects: creation by many at once, lists for the API, and the guard on removal.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ProjectStore } from "../../src/catalog/project-store.ts";
import { RepositoryStore } from "../../src/catalog/repository-store.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import { PRINCIPAL, catalogFixture, pushBlob } from "./support.ts";

const PAGE = { limit: 10, offset: 0 };

test("twenty creators of one project get the same one", async (t) => {
  const fixture = await catalogFixture(t);
  const made = await Promise.all(Array.from({ length: 20 }, () => fixture.writer.createProject("fresh", { public: false, ownerId: 3 })));
  assert.equal(new Set(made.map((project) => project.id)).size, 1);
  assert.ok(fixture.published.includes("project:fresh"));
  await assert.rejects(fixture.writer.createProject("Not/Valid", { public: false, ownerId: 3 }), (error) =>
    isSlipwayError(error, "NAME_INVALID"),
  );
});

test("lists are filtered, sorted, cut into pages and counted", async (t) => {
  const fixture = await catalogFixture(t);
  const projects = new ProjectStore(fixture.database, fixture.context.invalidator);
  const alpha = await projects.create({ name: "alpha", public: false, ownerId: 5, metadata: { severity: "low" } });
  await projects.create({ name: "al_pha", public: false, ownerId: null });
  const names = async (filter: Parameters<ProjectStore["list"]>[0], page = {}): Promise<string[]> =>
    (await projects.list(filter, { ...PAGE, ...page })).items.map((project) => project.name);
  assert.deepEqual(await names({ visibleIds: null }), ["al_pha", "alpha", "team"]);
  assert.deepEqual(await names({ visibleIds: null, q: "pha" }), ["al_pha", "alpha"]);
  assert.deepEqual(await names({ visibleIds: null, q: "l_p" }), ["al_pha"]);
  assert.deepEqual(await names({ visibleIds: null, q: "%" }), []);
  assert.deepEqual(await names({ visibleIds: [] }), ["team"]);
  assert.deepEqual(await names({ visibleIds: [alpha.id] }), ["alpha", "team"]);
  assert.deepEqual(await names({ visibleIds: null, public: true }), ["team"]);
  assert.deepEqual(await names({ visibleIds: null, ownerId: 5 }), ["alpha"]);
  assert.deepEqual(await names({ visibleIds: null, proxy: true }), []);
  assert.deepEqual(await names({ visibleIds: null }, { sort: "createdAt", descending: true }), ["al_pha", "alpha", "team"]);
  const page = await projects.list({ visibleIds: null }, { limit: 1, offset: 1 });
  assert.deepEqual([page.items[0]?.name, page.total], ["alpha", 3]);
  assert.deepEqual((await projects.findById(alpha.id))?.metadata, { severity: "low" });
});

test("a change touches what it names, and is announced for the project and its rights", async (t) => {
  const fixture = await catalogFixture(t);
  const projects = new ProjectStore(fixture.database, fixture.context.invalidator);
  fixture.published.length = 0;
  const changed = await projects.update(fixture.project.id, { public: false, metadata: { a: "b" } });
  assert.deepEqual([changed?.public, changed?.metadata, changed?.storageLimit], [false, { a: "b" }, -1]);
  assert.deepEqual(fixture.published, ["project:team", "rights:team"]);
  assert.equal(await projects.update(999_999, { public: true }), null);
  await assert.rejects(projects.create({ name: "team", public: true, ownerId: null }), (error) => isSlipwayError(error, "CONFLICT"));
});

test("a project with repositories cannot be removed", async (t) => {
  const fixture = await catalogFixture(t);
  const projects = new ProjectStore(fixture.database, fixture.context.invalidator);
  await pushBlob(fixture, "team/app");
  assert.equal((await projects.find("team"))?.repoCount, 1);
  await assert.rejects(projects.remove(fixture.project.id), (error) => isSlipwayError(error, "PRECONDITION_FAILED"));
  await fixture.writer.deleteRepository("team/app", { principal: PRINCIPAL });
  assert.equal(await projects.remove(fixture.project.id), true);
  assert.equal(await projects.remove(fixture.project.id), false);
  await assert.rejects(pushBlob(fixture, "team/app"), (error) => isSlipwayError(error, "NAME_UNKNOWN"));
});

test("repositories of a project are listed, described and counted", async (t) => {
  const fixture = await catalogFixture(t);
  for (const name of ["team/b", "team/a", "team/c"]) await pushBlob(fixture, name);
  const repositories = new RepositoryStore(fixture.database);
  await repositories.addPulls(
    new Map([
      ["team/c", 5],
      ["team/none", 1],
    ]),
  );
  const listed = await repositories.list({ projectId: fixture.project.id, sort: "pullCount", descending: true, limit: 1, offset: 0 });
  assert.deepEqual([listed.items[0]?.name, listed.items[0]?.pullCount, listed.total], ["team/c", 5, 3]);
  const found = await repositories.find("team/a");
  assert.ok(found && (await repositories.setDescription(found.id, "the a")));
  assert.equal((await repositories.find("team/a"))?.description, "the a");
});

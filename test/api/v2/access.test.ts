import assert from "node:assert/strict";
import { after, test } from "node:test";
import { OciClient, codeOf, contentOf, locationOf, randomContent } from "../../support/oci-client.ts";
import { ADMIN, basic, startRegistry } from "../../support/registry-server.ts";

const registry = await startRegistry({ after }, { auth: "anonymous-pull" });
const anonymous = new OciClient(registry.url);
const admin = new OciClient(registry.url, { authorization: ADMIN });
const { app } = registry;

const USER_PASSWORD = "User-password-1";

async function addUser(username: string): Promise<number> {
  const row = await app.auth.users.create({
    username,
    email: `${username}@example.test`,
    realname: username,
    comment: "",
    passwordHash: await app.auth.passwords.hash(USER_PASSWORD),
    sysadmin: false,
  });
  return row.id;
}

async function makePublic(project: string): Promise<void> {
  const found = await app.catalog.reader.findProject(project);
  assert.ok(found);
  await app.catalog.projects.update(found.id, { public: true });
}

async function tokenFor(scope: string, authorization?: string): Promise<string> {
  const answer = await fetch(`${registry.url}/service/token?service=slipway&scope=${encodeURIComponent(scope)}`, {
    headers: authorization === undefined ? {} : { authorization },
  });
  assert.equal(answer.status, 200);
  return ((await answer.json()) as { token: string }).token;
}

function challengeOf(answer: Response): string {
  assert.equal(answer.status, 401);
  return answer.headers.get("www-authenticate") ?? "";
}

await admin.pushImage("private/app", "v1");
await admin.pushImage("public/app", "v1");
await makePublic("public");
const outsider = new OciClient(registry.url, { authorization: basic("outsider", USER_PASSWORD) });
await addUser("outsider");

test("the version check challenges whoever has no credentials, and accepts good ones", async () => {
  const answer = await anonymous.request("/v2/");
  assert.equal(challengeOf(answer), `Bearer realm="${registry.url}/service/token",service="slipway"`);
  assert.equal(answer.headers.get("docker-distribution-api-version"), "registry/2.0");
  assert.equal(await codeOf(answer), "UNAUTHORIZED");
  assert.equal((await admin.request("/v2/")).status, 200);
  assert.equal((await new OciClient(registry.url, { authorization: basic("admin", "wrong") }).request("/v2/")).status, 401);
  assert.equal((await new OciClient(registry.url, { authorization: "Bearer nonsense" }).request("/v2/")).status, 401);
  const token = await tokenFor("repository:public/app:pull");
  assert.equal((await new OciClient(registry.url, { authorization: `Bearer ${token}` }).request("/v2/")).status, 200);
});

test("public projects are pulled without login, and nothing is pushed without one", async () => {
  assert.equal((await anonymous.request("/v2/public/app/manifests/v1")).status, 200);
  assert.equal((await anonymous.request("/v2/public/app/tags/list")).status, 200);
  const push = await anonymous.start("public/app");
  assert.match(challengeOf(push), /,scope="repository:public\/app:pull,push"$/);
  const remove = await anonymous.request("/v2/public/app/manifests/v1", { method: "DELETE" });
  assert.match(challengeOf(remove), /,scope="repository:public\/app:delete"$/);
});

test("a private project and one that does not exist look the same", async () => {
  for (const path of [
    "app/manifests/v1",
    "app/tags/list",
    `app/blobs/${contentOf("x").digest}`,
    `app/referrers/${contentOf("x").digest}`,
  ]) {
    for (const method of ["GET", "HEAD"]) {
      const [real, unreal] = [
        await anonymous.request(`/v2/private/${path}`, { method }),
        await anonymous.request(`/v2/unreal/${path}`, { method }),
      ];
      assert.equal(challengeOf(real).replaceAll("private", "unreal"), challengeOf(unreal));
      assert.equal(await real.text(), await unreal.text());
    }
    const [denied, unreal] = [await outsider.request(`/v2/private/${path}`), await outsider.request(`/v2/unreal/${path}`)];
    assert.deepEqual([denied.status, unreal.status], [403, 403]);
    assert.equal(await codeOf(denied.clone()), "DENIED");
    assert.equal(await denied.text(), await unreal.text());
  }
  const [real, unreal] = [await outsider.start("private/app"), await outsider.start("unreal/app")];
  assert.deepEqual([real.status, unreal.status], [403, 403]);
  assert.equal(await real.text(), await unreal.text());
});

test("a push by an administrator creates the project, by nobody else", async () => {
  const content = randomContent(100);
  await admin.pushBlob("fresh/app", content);
  const project = await app.catalog.reader.findProject("fresh");
  assert.equal(project?.public, false);
  assert.equal((await admin.request(`/v2/fresh/app/blobs/${content.digest}`)).status, 200);
  assert.equal((await admin.request("/v2/never/app/manifests/v1", { method: "DELETE" })).status, 404);
  assert.equal(await app.catalog.reader.findProject("never"), null);
});

test("bad names are told before anybody is asked who they are", async () => {
  assert.equal(await codeOf(await anonymous.request("/v2/Bad/name/manifests/v1")), "NAME_INVALID");
});

test("a token bounds what its holder may do, and never grants", async () => {
  const pull = new OciClient(registry.url, { authorization: `Bearer ${await tokenFor("repository:private/app:pull", ADMIN)}` });
  for (const turn of [1, 2]) assert.equal((await pull.request("/v2/private/app/manifests/v1")).status, 200, `turn ${turn}`);
  const push = await pull.start("private/app");
  assert.match(challengeOf(push), /scope="repository:private\/app:pull,push",error="insufficient_scope"$/);
  const elsewhere = await pull.request("/v2/fresh/app/tags/list");
  assert.match(challengeOf(elsewhere), /error="insufficient_scope"$/);
  const outside = new OciClient(registry.url, {
    authorization: `Bearer ${await tokenFor("repository:private/app:pull,push", basic("outsider", USER_PASSWORD))}`,
  });
  assert.equal((await outside.request("/v2/private/app/manifests/v1")).status, 403);
  const nobody = new OciClient(registry.url, { authorization: `Bearer ${await tokenFor("repository:private/app:pull")}` });
  assert.match(challengeOf(await nobody.request("/v2/private/app/manifests/v1")), /^Bearer realm/);
});

test("a right that is given or revoked counts for the next request", async () => {
  const id = await addUser("member");
  const member = new OciClient(registry.url, { authorization: basic("member", USER_PASSWORD) });
  const project = await app.catalog.reader.findProject("private");
  assert.ok(project);
  const status = async (): Promise<number> => (await member.request("/v2/private/app/manifests/v1")).status;
  assert.equal(await status(), 403);
  const membership = await app.auth.members.create(project, id, 3);
  assert.equal(await status(), 200);
  assert.equal(await status(), 200);
  await app.auth.members.remove(project, membership);
  assert.equal(await status(), 403);
});

test("a mount from a project that the caller may not read begins an upload and tells nothing", async () => {
  const content = randomContent(200);
  await admin.pushBlob("private/app", content);
  const id = await addUser("pusher");
  const project = await app.catalog.reader.findProject("public");
  assert.ok(project);
  await app.auth.members.create(project, id, 2);
  const pusher = new OciClient(registry.url, { authorization: basic("pusher", USER_PASSWORD) });
  for (const query of [
    `?mount=${content.digest}&from=private/app`,
    `?mount=${content.digest}`,
    `?mount=${content.digest}&from=unreal/app`,
  ]) {
    const answer = await pusher.start("public/other", query);
    assert.equal(answer.status, 202, query);
    assert.equal((await pusher.request(locationOf(answer), { method: "DELETE" })).status, 204);
  }
  assert.equal((await pusher.request(`/v2/public/other/blobs/${content.digest}`)).status, 404);
  await admin.pushBlob("public/app", content);
  for (const [name, query] of [
    ["public/one", `?mount=${content.digest}&from=public/app`],
    ["public/two", `?mount=${content.digest}`],
  ] as const) {
    assert.equal((await pusher.start(name, query)).status, 201);
  }
  const bounded = await tokenFor("repository:fresh/app:pull,push", ADMIN);
  const narrow = new OciClient(registry.url, { authorization: `Bearer ${bounded}` });
  assert.equal((await narrow.start("fresh/app", `?mount=${content.digest}&from=public/app`)).status, 201);
  for (const source of ["private/app", "unreal/app"]) {
    const asked = await anonymous.start("fresh/app", `?mount=${content.digest}&from=${source}`);
    assert.ok(challengeOf(asked).endsWith(`,scope="repository:fresh/app:pull,push repository:${source}:pull"`));
  }
  const secret = randomContent(200);
  await admin.pushBlob("private/app", secret);
  assert.equal((await narrow.start("fresh/app", `?mount=${secret.digest}&from=private/app`)).status, 202);
  assert.equal((await narrow.start("fresh/app", `?mount=${secret.digest}`)).status, 202);
});

test("the catalog is for those who may see everything", async () => {
  assert.match(challengeOf(await anonymous.request("/v2/_catalog")), /,scope="registry:catalog:\*"$/);
  assert.equal((await outsider.request("/v2/_catalog")).status, 403);
  assert.equal((await admin.request("/v2/_catalog")).status, 200);
  const token = await tokenFor("registry:catalog:*", ADMIN);
  assert.equal((await new OciClient(registry.url, { authorization: `Bearer ${token}` }).request("/v2/_catalog")).status, 200);
});

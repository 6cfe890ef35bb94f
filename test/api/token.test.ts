import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeJwt, decodeProtectedHeader } from "jose";
import { challengeFor } from "../../src/auth/challenge.ts";
import { parseScope, parseScopes } from "../../src/auth/scopes.ts";
import { addUser, basic, ORIGIN, PASSWORD, startApi, testAuth } from "../support/auth.ts";
import type { Answer, TestApi, TestAuth } from "../support/auth.ts";
import { testDatabase } from "../support/services.ts";
import { testBus } from "../support/test-bus.ts";

interface Access {
  readonly type: string;
  readonly name: string;
  readonly actions: string[];
}

function accessOf(answer: Answer): Access[] {
  assert.equal(answer.status, 200, answer.text);
  return decodeJwt(answer.json.token)["access"] as Access[];
}

async function start(
  t: { after(fn: () => Promise<void> | void): void },
  config: Parameters<typeof testAuth>[1]["config"] = {},
): Promise<{ api: TestApi; parts: TestAuth }> {
  const { database } = await testDatabase(t);
  const parts = testAuth(t, { database, bus: await testBus(t), config });
  await addUser(parts, "root", { sysadmin: true });
  const alice = await addUser(parts, "alice");
  const web = await parts.projects.create({ name: "web", public: false, ownerId: alice });
  await parts.auth.members.create(web, alice, 2);
  await parts.projects.create({ name: "library", public: true, ownerId: null });
  return { api: await startApi(t, parts), parts };
}

test("the token service", async (t) => {
  const { api, parts } = await start(t);
  const get = (query: string, as?: string): Promise<Answer> =>
    api.request("GET", `/service/token?${query}`, as === undefined ? {} : { as });
  const { registry } = parts.auth;

  await t.test("gives a docker client what it may do, no more", async () => {
    const answer = await get("service=slipway&account=alice&scope=repository:web/app:pull,push,delete", "alice");
    assert.deepEqual(accessOf(answer), [{ type: "repository", name: "web/app", actions: ["pull", "push"] }]);
    assert.equal(answer.json.access_token, answer.json.token);
    assert.equal(answer.json.expires_in, 1800);
    assert.ok(Math.abs(Date.parse(answer.json.issued_at) - Date.now()) < 5_000);
    assert.equal(answer.headers.get("cache-control"), "no-store");
    assert.equal(answer.json.refresh_token, undefined);
    const { sub, iss, aud } = decodeJwt(answer.json.token);
    assert.match(sub ?? "", /^user:\d+$/);
    assert.deepEqual([iss, aud], ["slipway", "slipway"]);
    assert.deepEqual(
      [decodeProtectedHeader(answer.json.token).alg, typeof decodeProtectedHeader(answer.json.token).kid],
      ["EdDSA", "string"],
    );
  });

  await t.test("takes several scopes, in several parameters or in one", async () => {
    const scopes = "scope=repository:web/app:pull&scope=repository:web/b:push%20repository:web/app:push%20nonsense%20registry:catalog:*";
    assert.deepEqual(accessOf(await get(`service=slipway&${scopes}`, "alice")), [
      { type: "repository", name: "web/app", actions: ["pull", "push"] },
      { type: "repository", name: "web/b", actions: ["push"] },
      { type: "registry", name: "catalog", actions: [] },
    ]);
    assert.deepEqual(accessOf(await get("scope=repository:new/app:*&scope=registry:catalog:*", "root")), [
      { type: "repository", name: "new/app", actions: ["pull", "push", "delete"] },
      { type: "registry", name: "catalog", actions: ["*"] },
    ]);
  });

  await t.test("gives strangers the public projects", async () => {
    const scopes = "scope=repository:library/alpine:pull,push&scope=repository:alpine:pull&scope=repository:web/app:pull";
    const answer = await get(`service=slipway&${scopes}`);
    assert.deepEqual(
      accessOf(answer).map((one) => one.actions),
      [["pull"], ["pull"], []],
    );
    const principal = await registry.authenticate(`Bearer ${answer.json.token}`, ORIGIN);
    assert.deepEqual([principal.kind, principal.scopes?.map((scope) => scope.name)], ["anonymous", ["library/alpine", "alpine"]]);
    assert.equal((await get("service=slipway")).status, 401, "nothing to be had without a name and without a scope");
  });

  await t.test("refuses wrong credentials, unknown services and bearer tokens", async () => {
    const wrong = await get("service=slipway&scope=repository:library/alpine:pull", basic("alice", "Wrong12345"));
    assert.equal(wrong.status, 401);
    assert.equal(wrong.json.errors[0].code, "UNAUTHORIZED");
    assert.match(wrong.headers.get("www-authenticate") ?? "", /^Basic /);
    assert.equal((await get("service=other", "alice")).status, 400);
    const { token } = (await get("scope=repository:web/app:pull", "alice")).json;
    assert.equal((await get("scope=repository:web/app:push", `Bearer ${token}`)).status, 401, "a narrow token buys no wider one");
    assert.equal((await get("scope=repository:web/app:push", "Digest abc")).status, 401);
    assert.equal((await get("scope=repository:web/app:push", "Basic !!!")).status, 401);
  });

  await t.test("a token bounds the principal it identifies", async () => {
    const { token } = (await get("scope=repository:web/app:pull,delete", "alice")).json;
    const principal = await registry.authenticate(`Bearer ${token}`, ORIGIN);
    assert.deepEqual(principal.scopes, [{ name: "web/app", actions: ["pull"] }]);
    assert.deepEqual([principal.kind, principal.name], ["user", "alice"]);
    assert.equal(registry.peekPrincipal(`Bearer ${token}`), principal, "known without a wait from now on");
    for (const forged of [`${token}x`, token.slice(0, -4), "", "a.b.c", `${token.split(".").slice(0, 2).join(".")}.`]) {
      await assert.rejects(registry.authenticate(`Bearer ${forged}`, ORIGIN), { code: "UNAUTHORIZED" }, forged.slice(-10));
    }
  });

  await t.test("a token is for the management API only when that was asked for", async () => {
    const narrow = (await get("scope=repository:web/app:pull", "root")).json.token;
    assert.equal((await api.request("GET", "/api/v2.0/users", { as: `Bearer ${narrow}` })).status, 403);
    assert.equal((await api.request("GET", "/api/v2.0/users/current", { as: `Bearer ${narrow}` })).status, 403);
    assert.deepEqual(
      (await api.request("GET", "/api/v2.0/projects", { as: `Bearer ${narrow}` })).json.map((one: { name: string }) => one.name),
      ["library"],
    );
    const wide = (await get("scope=slipway:api:*", "root")).json.token;
    assert.equal((await api.request("GET", "/api/v2.0/users", { as: `Bearer ${wide}` })).status, 200);
    assert.deepEqual(
      accessOf(await get("scope=slipway:api:*&scope=repository:library/x:pull")).map((one) => one.actions),
      [[], ["pull"]],
    );
  });

  await t.test("speaks OAuth2: password and refresh token", async () => {
    const post = (form: Record<string, string>): Promise<Answer> => api.request("POST", "/service/token", { form });
    const login = await post({
      grant_type: "password",
      service: "slipway",
      client_id: "docker",
      username: "alice",
      password: PASSWORD,
      access_type: "offline",
      scope: "repository:web/app:pull",
    });
    assert.deepEqual(accessOf(login)[0]?.actions, ["pull"]);
    const refresh_token: string = login.json.refresh_token;
    const again = await post({ grant_type: "refresh_token", service: "slipway", refresh_token, scope: "repository:web/app:push,pull" });
    assert.deepEqual(accessOf(again)[0]?.actions, ["pull", "push"]);
    assert.equal(again.json.refresh_token, refresh_token);
    assert.equal(again.json.scope, "repository:web/app:pull,push");
    assert.equal((await post({ grant_type: "refresh_token", refresh_token: `${refresh_token}x` })).status, 401);
    assert.equal((await post({ grant_type: "password", username: "alice", password: "Wrong12345" })).status, 401);
    assert.equal((await post({ grant_type: "other" })).status, 400);
    assert.equal((await post({})).status, 400);
    const byGet = await get("service=slipway&offline_token=true", "alice");
    assert.equal((await post({ grant_type: "refresh_token", refresh_token: byGet.json.refresh_token })).status, 200);

    const alice = await parts.auth.users.findByName("alice");
    assert.ok(alice);
    await parts.auth.users.changePassword(alice.id, await parts.auth.passwords.hash("Another12345"));
    assert.equal((await post({ grant_type: "refresh_token", refresh_token })).status, 401, "a new password ends refresh tokens");
    await assert.rejects(registry.authenticate(`Bearer ${again.json.token}`, ORIGIN), { code: "UNAUTHORIZED" });
  });

  await t.test("answers other methods with 405", async () => {
    assert.equal((await fetch(`${api.url}/service/token`, { method: "DELETE" })).status, 405);
  });
});

test("with login required strangers get no token; when open they get every one", async (t) => {
  const required = await start(t, { mode: "required" });
  assert.equal((await required.api.request("GET", "/service/token?scope=repository:library/alpine:pull")).status, 401);
  const open = await start(t, { mode: "open" });
  const answer = await open.api.request("GET", "/service/token?scope=repository:any/thing:pull,push&scope=registry:catalog:*");
  assert.deepEqual(
    accessOf(answer).map((one) => one.actions),
    [["pull", "push"], ["*"]],
  );
});

test("a flood of wrong passwords is answered later and later, then refused, and a known login goes on", async (t) => {
  const { api, parts } = await start(t);
  const good = basic("alice");
  assert.equal((await api.request("GET", "/service/token?service=slipway", { as: good })).status, 200);
  const guess = (round: number): Promise<Answer>[] =>
    Array.from({ length: 12 }, (_, index) => api.request("GET", "/service/token", { as: basic("alice", `Wrong${round}x${index}`) }));
  const first = await Promise.all(guess(1));
  assert.deepEqual([...new Set(first.map((answer) => answer.status))], [401]);
  // One of these waits for its turn; the others are refused at once.
  const refused = await Promise.any(
    guess(2).map(async (pending) => {
      const answer = await pending;
      assert.equal(answer.status, 429);
      return answer;
    }),
  );
  const retryAfter = refused.headers.get("retry-after");
  assert.ok(Number(retryAfter) >= 1);
  assert.ok(parts.auth.stats().throttle.refused > 0);
  assert.equal((await api.request("GET", "/service/token?service=slipway", { as: good })).status, 200);
});

test("the challenge is quoted, and names its scheme once", () => {
  const challenge = challengeFor("https://reg.example", [{ repository: "web/app", actions: ["pull", "push"] }], "invalid_token");
  assert.equal(
    challenge,
    'Bearer realm="https://reg.example/service/token",service="slipway",scope="repository:web/app:pull,push",error="invalid_token"',
  );
  assert.equal(challengeFor("http://x", []), 'Bearer realm="http://x/service/token",service="slipway"');
  assert.match(challengeFor("http://x", [{ repository: null, actions: ["*"] }]), /scope="registry:catalog:\*"$/);
  assert.doesNotMatch(challenge.slice("Bearer ".length), /bearer|basic/i);
  assert.doesNotMatch(challengeFor('http://x"\r\nSet-Cookie: a', []), /[\r\n]|x"/);
});

test("scopes are read from both ends, and joined by name", () => {
  assert.deepEqual(parseScope("repository:host:5000/x:pull"), { type: "repository", name: "host:5000/x", actions: ["pull"] });
  assert.deepEqual(parseScope("repository(plugin):x/y:pull,pull"), { type: "repository", name: "x/y", actions: ["pull"] });
  for (const wrong of ["", "repository", "repository:x", ":x:pull", "repository::pull"]) assert.equal(parseScope(wrong), null, wrong);
  assert.equal(parseScopes([Array.from({ length: 500 }, (_, index) => `repository:a/${index}:pull`).join(" ")]).length, 64);
});

/** Tags through the proxy: when upstream is asked, what is served while it is in trouble, and what each answer says about itself. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { RegistryDraft } from "../../src/proxy/registry-store.ts";
import { sha256 } from "../support/fake-answers.ts";
import { OCI_MANIFEST, startFakeRegistry } from "../support/fake-registry.ts";
import type { FakeRegistry } from "../support/fake-registry.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import type { FaultProxy } from "../support/fault-proxy.ts";
import { ask, createProxyProject, eventually } from "../support/proxy-server.ts";
import type { Answer } from "../support/proxy-server.ts";
import { registryBacking, startRegistry } from "../support/registry-server.ts";
import { scope } from "../support/scope.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

const files = scope({ after });
const backing = await registryBacking(files);
const servers = [await startRegistry(files, { backing }), await startRegistry(files, { backing })] as const;
const [server, other] = servers;
const { database } = server.app;
let projects = 0;

interface World {
  readonly name: string;
  readonly upstream: FakeRegistry;
  readonly faults: FaultProxy;
  tag(tag: string, from?: { url: string }, init?: RequestInit): Promise<Answer>;
  /** Makes the knowledge about a tag older than it is, in all processes. */
  grow(tag: string, seconds: number): Promise<void>;
}

async function start(t: Cleanable, metadata: Record<string, string> = {}, registry: Partial<RegistryDraft> = {}): Promise<World> {
  const upstream = await startFakeRegistry(t);
  const faults = await startFaultProxy(t, { port: upstream.port });
  const name = `tags${(projects += 1)}`;
  await createProxyProject(server.app, { name, url: faults.url, metadata: { proxy_prefetch: "false", ...metadata }, registry });
  return {
    name,
    upstream,
    faults,
    tag: (tag, from = server, init = {}) => ask(`${from.url}/v2/${name}/app/manifests/${tag}`, init),
    grow: async (tag, seconds) => {
      for (const { app } of servers) await app.proxy.manifests.settled();
      await database.query(
        `UPDATE proxy_tags SET checked_at = checked_at - $3 * interval '1 s', fresh_until = fresh_until - $3 * interval '1 s' WHERE repository = $1 AND tag = $2`,
        [`${name}/app`, tag, seconds],
      );
      for (const { app } of servers) app.proxy.manifests.forget(`${name}/app`, tag);
    },
  };
}

test("a fresh tag costs nothing, an older one a HEAD behind the answer, a very old one a HEAD before it", async (t) => {
  const { upstream, tag, grow } = await start(t);
  const digest = upstream.putImage("app", "1");
  const first = await tag("1");
  assert.deepEqual([first.status, first.cache, first.age, first.digest], [200, "MISS", 0, digest]);
  assert.equal((await tag("1")).cache, "HIT");
  assert.equal(upstream.calls.length, 1);
  await grow("1", 90);
  const stale = await tag("1");
  assert.deepEqual([stale.cache, stale.digest], ["STALE", digest]);
  assert.ok((stale.age ?? 0) >= 90);
  await eventually("the check behind is over", async () => (await tag("1")).cache === "HIT");
  assert.equal(upstream.count("manifest-head"), 1);
  await grow("1", 3_600);
  const checked = await tag("1");
  assert.deepEqual([checked.cache, checked.age], ["REVALIDATED", 0]);
  assert.equal(upstream.count("manifest-head"), 2);
  assert.equal(upstream.count("manifest-get"), 1);
});

test("a fresh tag is answered from memory, without the long way, once it was looked at", async (t) => {
  const { upstream, tag } = await start(t);
  const digest = upstream.putImage("app", "1");
  await tag("1");
  await server.app.proxy.manifests.settled();
  await tag("1");
  const long = t.mock.method(server.app.proxy.manifests, "answer");
  for (let turn = 0; turn < 3; turn += 1) {
    const again = await tag("1");
    assert.deepEqual([again.status, again.cache, again.digest], [200, "HIT", digest]);
  }
  assert.equal(long.mock.callCount(), 0);
});

test("a moved tag is found by the check, with one HEAD and one GET", async (t) => {
  const { upstream, tag, grow } = await start(t);
  upstream.putImage("app", "1");
  await tag("1");
  const moved = upstream.putImage("app", "1", [Buffer.from("another layer")]);
  await grow("1", 3_600);
  upstream.resetCalls();
  const answer = await tag("1");
  assert.deepEqual([answer.digest, answer.cache], [moved, "MISS"]);
  assert.deepEqual([upstream.count("manifest-head"), upstream.count("manifest-get"), upstream.calls.length], [1, 1, 2]);
});

for (const seconds of [90, 3_600]) {
  test(`100 clients of two processes cause one HEAD for a tag checked ${seconds} s ago`, async (t) => {
    const { upstream, tag, grow } = await start(t);
    upstream.putImage("app", "1");
    await Promise.all(servers.map((each) => tag("1", each)));
    await grow("1", seconds);
    upstream.resetCalls();
    const answers = await Promise.all(Array.from({ length: 100 }, (_, index) => tag("1", index % 2 === 0 ? server : other)));
    assert.ok(answers.every(({ status }) => status === 200));
    await eventually("both know", async () => (await tag("1", server)).cache === "HIT" && (await tag("1", other)).cache === "HIT");
    assert.deepEqual([upstream.count("manifest-head"), upstream.calls.length], [1, 1]);
  });
}

test("100 clients of two processes cause one GET for a tag that nobody asked for before", async (t) => {
  const { upstream, tag } = await start(t);
  const digest = upstream.putImage("app", "1");
  upstream.on({ method: "GET", path: /manifests/, times: 1 }, async (_request, response) => {
    await new Promise((resolve) => setTimeout(resolve, 300));
    const { bytes, mediaType } = upstream.repository("app").manifests.get(digest)!;
    response.writeHead(200, { "content-type": mediaType }).end(bytes);
  });
  const answers = await Promise.all(Array.from({ length: 100 }, (_, index) => tag("1", index % 2 === 0 ? server : other)));
  assert.ok(answers.every((each) => each.status === 200 && each.digest === digest && each.cache === "MISS"));
  assert.equal(upstream.calls.length, 1);
});

test("when the first question about a tag fails, the other process asks itself, and nobody takes the trouble for absence", async (t) => {
  const { upstream, tag } = await start(t);
  const digest = upstream.putImage("app", "1");
  upstream.on({ method: "GET", path: /manifests/, times: 1 }, async (_request, response) => {
    await new Promise((resolve) => setTimeout(resolve, 200));
    response.writeHead(401, { "www-authenticate": "Basic realm=x" }).end();
  });
  const answers = await Promise.all(servers.map((each) => tag("1", each)));
  assert.deepEqual(answers.map(({ status }) => status).toSorted(), [200, 502]);
  assert.equal((await tag("1")).digest, digest);
});

test("always-check asks each time, local-first and offline never again", async (t) => {
  const always = await start(t, { proxy_mode: "always-check" });
  always.upstream.putImage("app", "1");
  for (const expected of ["MISS", "REVALIDATED", "REVALIDATED"]) assert.equal((await always.tag("1")).cache, expected);
  assert.equal(always.upstream.count("manifest-head"), 2);

  const local = await start(t, { proxy_mode: "local-first" });
  const digest = local.upstream.putImage("app", "1");
  await local.tag("1");
  await local.grow("1", 100_000);
  assert.deepEqual([(await local.tag("1")).digest, local.upstream.calls.length], [digest, 1]);

  const offline = await start(t, { proxy_mode: "offline" });
  offline.upstream.putImage("app", "1");
  const absent = await offline.tag("1");
  assert.deepEqual([absent.status, absent.cache, offline.upstream.calls.length], [404, "NEGATIVE", 0]);
});

interface Trouble {
  readonly what: string;
  readonly begin: (world: World) => void | Promise<void>;
  /** Of an uncached tag. */
  readonly statuses: readonly number[];
}

const answer =
  (status: number, headers: Record<string, string> = {}) =>
  (world: World) =>
    world.upstream.on({ path: /\/v2\// }, (_request, response) => void response.writeHead(status, headers).end());

const refuse = ({ faults }: World): void => {
  faults.set({ refuse: true });
  faults.dropConnections();
};

const troubles: readonly Trouble[] = [
  { what: "answers 429 with Retry-After", begin: answer(429, { "retry-after": "20" }), statuses: [429] },
  { what: "answers 503 with Retry-After", begin: answer(503, { "retry-after": "20" }), statuses: [503] },
  { what: "answers 500", begin: answer(500), statuses: [502, 503] },
  { what: "refuses connections", begin: refuse, statuses: [502, 503] },
  {
    what: "has a name that does not resolve",
    begin: async ({ name }) => {
      const { registries } = server.app.proxy;
      const found = await registries.findByName(`upstream-${name}`);
      assert.ok(found && (await registries.update(found.id, { ...found, url: `http://${name}.invalid:5000` }, found.version)));
    },
    statuses: [502, 503],
  },
  {
    what: "refuses our credential",
    begin: ({ upstream }) => void (upstream.auth = { type: "basic", username: "x", password: "y" }),
    statuses: [502],
  },
  {
    what: "sends a page of a portal",
    begin: ({ upstream }) =>
      upstream.on({ path: /\/v2\// }, (_request, response) => {
        response.writeHead(200, { "content-type": "text/html" }).end("<html>Log in</html>");
      }),
    statuses: [502],
  },
];

for (const { what, begin, statuses } of troubles) {
  test(`an upstream that ${what}: cached tags go on, uncached ones are told the truth`, async (t) => {
    const world = await start(t);
    const { upstream, tag, grow } = world;
    const ages = [90, 3_600];
    const digests = ages.map((age) => upstream.putImage("app", `old-${age}`));
    for (const age of ages) await tag(`old-${age}`);
    await begin(world);
    for (const [index, age] of ages.entries()) {
      await grow(`old-${age}`, age);
      for (const each of servers) {
        const stale = await tag(`old-${age}`, each);
        assert.deepEqual([stale.status, stale.cache, stale.digest], [200, "STALE", digests[index]]);
        assert.ok((stale.age ?? 0) >= age);
      }
    }
    const uncached = await tag("2");
    assert.ok(statuses.includes(uncached.status), `${uncached.status} ${uncached.bytes.toString()}`);
    assert.equal(uncached.cache, "MISS");
    if (uncached.status !== 502 || what === "refuses connections") assert.ok(Number(uncached.retryAfter) > 0, "Retry-After");
    assert.ok(uncached.ms < 5_000, `${uncached.ms} ms`);
    assert.equal((await tag("old-90")).status, 200);
  });
}

test("a name that cannot be resolved is trouble, not absence", async (t) => {
  const { tag } = await start(t, {}, { url: "http://no-such-host.invalid:5000" });
  const answer = await tag("1");
  assert.ok([502, 503, 504].includes(answer.status), String(answer.status));
  assert.ok(Number(answer.retryAfter) > 0);
});

test("what upstream deleted is gone here too, unless deleted tags are kept", async (t) => {
  for (const keep of [false, true]) {
    const { upstream, tag, grow } = await start(t, { proxy_keep_deleted: String(keep) });
    const digest = upstream.putImage("app", "1");
    await tag("1");
    upstream.repository("app").tags.delete("1");
    upstream.repository("app").manifests.delete(digest);
    await grow("1", 3_600);
    const gone = await tag("1");
    assert.equal(gone.status, keep ? 200 : 404);
    if (keep) assert.equal(gone.cache, "STALE");
    assert.equal((await tag(digest)).status, 200, "by digest it stays readable");
  }
});

test("absence is believed for a while and told as such", async (t) => {
  const { upstream, tag, grow } = await start(t, { proxy_negative_ttl: "15" });
  const first = await tag("none");
  assert.deepEqual([first.status, first.cache], [404, "MISS"]);
  upstream.resetCalls();
  for (const each of servers) {
    const negative = await tag("none", each);
    assert.deepEqual([negative.status, negative.cache], [404, "NEGATIVE"]);
  }
  assert.equal(upstream.calls.length, 0);
  const digest = upstream.putImage("app", "none");
  await grow("none", 16);
  assert.equal((await tag("none")).digest, digest);
});

test("an absent blob is believed absent for a while, too", async (t) => {
  const { upstream, name } = await start(t);
  upstream.putImage("app", "1");
  const url = `${server.url}/v2/${name}/app/blobs/sha256:${"12".repeat(32)}`;
  const [first, second] = [await ask(url), await ask(url)];
  assert.deepEqual([first.status, first.cache, second.status, second.cache], [404, "MISS", 404, "NEGATIVE"]);
  assert.equal(upstream.calls.length, 1);
});

test("registries without digest header, with odd types or without HEAD are read all the same", async (t) => {
  const { upstream, tag, grow } = await start(t, { proxy_mode: "always-check" });
  const digest = upstream.putImage("app", "1");
  upstream.digestHeader = false;
  for (let round = 0; round < 2; round += 1) assert.equal((await tag("1")).digest, digest);
  upstream.digestHeader = true;
  upstream.headSupported = false;
  assert.equal((await tag("1")).digest, digest);
  const bytes = upstream.repository("app").manifests.get(digest)!.bytes;
  upstream.on({ method: "GET", path: /manifests/ }, (_request, response) => {
    response.writeHead(200, { "content-type": "text/plain; charset=utf-8" }).end(bytes);
  });
  await grow("1", 3_600);
  const odd = await tag("1");
  assert.deepEqual([odd.digest, odd.headers.get("content-type")], [digest, "application/vnd.oci.image.manifest.v1+json"]);
});

test("the client's Accept changes nothing, and conditional requests are answered here", async (t) => {
  const { upstream, tag } = await start(t);
  const digest = upstream.putImage("app", "1");
  for (const accept of ["application/vnd.docker.distribution.manifest.v2+json", "*/*", "text/html"]) {
    assert.equal((await tag("1", server, { headers: { accept } })).digest, digest);
  }
  assert.match(upstream.calls[0]?.headers.accept ?? "", /oci\.image\.index.*manifest\.list/s);
  const same = await tag("1", server, { headers: { "if-none-match": `"${digest}"` } });
  assert.deepEqual([same.status, same.bytes.length], [304, 0]);
  assert.equal(upstream.calls.length, 1);
});

test("tags and referrers are merged with what is here, paged, remembered, and served stale", async (t) => {
  const { upstream, name, tag, faults } = await start(t);
  for (const each of ["b", "a", "c", "d"]) upstream.putImage("app", each);
  await tag("a");
  const list = (query = ""): Promise<Answer> => ask(`${server.url}/v2/${name}/app/tags/list${query}`);
  const tagsOf = (listed: Answer): unknown => (JSON.parse(listed.bytes.toString()) as { tags: unknown }).tags;
  const whole = await list();
  assert.deepEqual([tagsOf(whole), whole.cache], [["a", "b", "c", "d"], "MISS"]);
  const page = await list("?n=2");
  assert.deepEqual([tagsOf(page), page.cache], [["a", "b"], "HIT"]);
  assert.match(page.headers.get("link") ?? "", new RegExp(`^</v2/${name}/app/tags/list\\?n=2&last=b>; rel="next"$`));
  assert.deepEqual(tagsOf(await list("?n=2&last=b")), ["c", "d"]);
  assert.equal(upstream.count("tags"), 1);
  faults.set({ refuse: true });
  faults.dropConnections();
  await database.query("UPDATE proxy_lists SET checked_at = checked_at - interval '1 h', fresh_until = fresh_until - interval '1 h'");
  const stale = await list();
  assert.deepEqual([stale.status, tagsOf(stale), stale.cache, (stale.age ?? 0) >= 3_600], [200, ["a", "b", "c", "d"], "STALE", true]);
  const unknown = await ask(`${server.url}/v2/${name}/other/tags/list`);
  assert.ok([502, 503].includes(unknown.status) && Number(unknown.retryAfter) > 0, String(unknown.status));
});

test("a list with null is empty, a repository that is not there unknown", async (t) => {
  const { upstream, name } = await start(t);
  upstream.on({ path: "/v2/nulls/tags/list" }, (_request, response) => {
    response.writeHead(200, { "content-type": "application/json" }).end('{"name":"nulls","tags":null}');
  });
  const nulls = await ask(`${server.url}/v2/${name}/nulls/tags/list`);
  assert.deepEqual(JSON.parse(nulls.bytes.toString()), { name: `${name}/nulls`, tags: [] });
  assert.equal((await ask(`${server.url}/v2/${name}/none/tags/list`)).status, 404);
});

test("referrers come from the API, or from the tag where the API is missing", async (t) => {
  for (const api of [true, false]) {
    const { upstream, name, tag } = await start(t);
    upstream.referrersApi = api;
    const subject = upstream.putImage("app", "1");
    const signature = {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      artifactType: "application/vnd.example.signature",
      config: { mediaType: "application/vnd.oci.empty.v1+json", digest: upstream.putBlob("app", Buffer.from("{}")), size: 2 },
      layers: [],
      subject: {
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        digest: subject,
        size: upstream.repository("app").manifests.get(subject)!.bytes.length,
      },
    };
    const digest = upstream.putManifest("app", signature);
    if (!api) {
      const entry = { mediaType: signature.mediaType, digest, size: 1, artifactType: signature.artifactType };
      const index = { schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [entry] };
      upstream.putManifest("app", index, { tag: subject.replace(":", "-"), mediaType: index.mediaType });
    }
    await tag("1");
    const listed = await ask(`${server.url}/v2/${name}/app/referrers/${subject}`);
    const found = (JSON.parse(listed.bytes.toString()) as { manifests: { digest: string }[] }).manifests;
    assert.deepEqual([listed.status, found.map((each) => each.digest)], [200, [digest]]);
    const filtered = await ask(`${server.url}/v2/${name}/app/referrers/${subject}?artifactType=text%2Fnone`);
    assert.deepEqual((JSON.parse(filtered.bytes.toString()) as { manifests: unknown[] }).manifests, []);
  }
});

test("referrers are paged, remembered, merged with what was pushed here, and served stale", async (t) => {
  const { upstream, name, tag, faults } = await start(t, { proxy_push_through: "true" });
  const subject = upstream.putImage("app", "1");
  await tag("1");
  const size = upstream.repository("app").manifests.get(subject)!.bytes.length;
  const empty = Buffer.from("{}");
  const config = { mediaType: "application/vnd.oci.empty.v1+json", digest: upstream.putBlob("app", empty), size: 2 };
  const signature = (index: number): Buffer =>
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        artifactType: "application/vnd.example.signature",
        config,
        layers: [],
        subject: { mediaType: OCI_MANIFEST, digest: subject, size },
        annotations: { index: String(index) },
      }),
    );
  const theirs = [1, 2, 3].map((index) => upstream.putManifest("app", signature(index)));
  const list = async (query = ""): Promise<Answer & { digests: string[] }> => {
    const answer = await ask(`${server.url}/v2/${name}/app/referrers/${subject}${query}`);
    const { manifests } = JSON.parse(answer.bytes.toString()) as { manifests: { digest: string }[] };
    return { ...answer, digests: manifests.map(({ digest }) => digest) };
  };
  const whole = await list();
  assert.deepEqual([whole.digests, whole.cache], [theirs.toSorted(), "MISS"]);
  upstream.resetCalls();
  const page = await list("?n=2");
  assert.deepEqual([page.digests, page.cache], [theirs.toSorted().slice(0, 2), "HIT"]);
  assert.match(page.headers.get("link") ?? "", /rel="next"/);
  const next = /<([^>]+)>/.exec(page.headers.get("link") ?? "")?.[1] ?? "";
  assert.ok(next.startsWith(`/v2/${name}/app/referrers/${subject}?`), next);
  const rest = JSON.parse((await ask(`${server.url}${next}`)).bytes.toString()) as { manifests: { digest: string }[] };
  assert.deepEqual(
    rest.manifests.map(({ digest }) => digest),
    theirs.toSorted().slice(2),
  );
  assert.equal(upstream.calls.length, 0);

  const pushed = await ask(`${server.url}/v2/${name}/app/manifests/${sha256(signature(4))}`, {
    method: "PUT",
    headers: { "content-type": OCI_MANIFEST },
    body: new Uint8Array(signature(4)),
  });
  assert.equal(pushed.status, 201, pushed.bytes.toString());
  assert.deepEqual((await list()).digests, [...theirs, sha256(signature(4))].toSorted());
  faults.set({ refuse: true });
  faults.dropConnections();
  await database.query("UPDATE proxy_lists SET checked_at = checked_at - interval '1 h', fresh_until = fresh_until - interval '1 h'");
  const stale = await list();
  assert.deepEqual([stale.status, stale.cache, stale.digests.length, (stale.age ?? 0) >= 3_600], [200, "STALE", 4, true]);
});

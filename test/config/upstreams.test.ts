import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { loadConfig } from "../../src/config/config.ts";
import type { Config } from "../../src/config/config.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import { tempDir } from "../support/temp.ts";

type Cleanable = Parameters<typeof tempDir>[0];

async function load(t: Cleanable, toml: string, env: NodeJS.ProcessEnv = {}): Promise<Config> {
  const file = join(await tempDir(t), "slipway.toml");
  await writeFile(file, toml);
  return loadConfig({ env: { SLIPWAY_CONFIG: file, ...env } });
}

async function problemsOf(t: Cleanable, toml: string): Promise<string[]> {
  try {
    await load(t, toml);
  } catch (error) {
    assert.ok(isSlipwayError(error, "CONFIG_INVALID"));
    return error.detail as string[];
  }
  return [];
}

test("an upstream needs a name and an address, and is public when it has no credential", async (t) => {
  const { upstreams } = await load(
    t,
    `[[upstreams]]
name = "Hub"
url = "https://registry-1.docker.io/"
[[upstreams]]
name = "corp"
url = "harbor.corp.example"
username = "robot"
password = "pass-of-robot"
`,
  );
  assert.deepEqual(
    upstreams?.map(({ name, url, project, public: isPublic, priority, enabled }) => ({ name, url, project, isPublic, priority, enabled })),
    [
      { name: "Hub", url: "https://registry-1.docker.io", project: "hub", isPublic: true, priority: 100, enabled: true },
      { name: "corp", url: "https://harbor.corp.example", project: "corp", isPublic: false, priority: 100, enabled: true },
    ],
  );
});

test("every key of an upstream is read", async (t) => {
  const folder = await tempDir(t);
  await writeFile(join(folder, "secret"), "from-a-file\n");
  const { upstreams } = await load(
    t,
    `[[upstreams]]
name = "corp"
display_name = "Our Harbor"
url = "https://harbor.corp.example"
registry = "hub-proxy"
username = "robot$reader"
password_file = "${join(folder, "secret")}"
skip_tls_verify = true
priority = 5
enabled = false
cache_isolation = "isolated"
is_default = true
type = "harbor"
mirrors = ["https://second.corp.example"]
hosts = ["harbor.corp.example", "old.corp.example:5000"]
credential_type = "basic"
project = "corp-cache"
public = true
mode = "local-first"
tag_ttl = 300
max_stale = 900
negative_ttl = 15
keep_deleted = true
allow = ["team-*/**", "{a,b}/x"]
deny = ["team-x/**"]
push_through = false
prefetch = true
routes = [{ pattern = "team-*/**", priority = 10 }, { pattern = "web" }]
projects = [{ name = "team-a", pattern = "a-*", priority = 3 }, { name = "misc", is_default = true }]
`,
  );
  assert.deepEqual(upstreams, [
    {
      name: "corp",
      type: "harbor",
      url: "https://harbor.corp.example",
      mirrors: ["https://second.corp.example"],
      hosts: ["harbor.corp.example", "old.corp.example:5000"],
      credentialType: "basic",
      username: "robot$reader",
      password: "from-a-file",
      caCertificate: "",
      insecure: true,
      enabled: false,
      priority: 5,
      isDefault: true,
      routes: [
        { pattern: "team-*/**", priority: 10 },
        { pattern: "web", priority: 100 },
      ],
      prefix: "hub-proxy",
      projects: [
        { name: "team-a", pattern: "a-*", priority: 3, isDefault: false },
        { name: "misc", pattern: "misc/*", priority: 100, isDefault: true },
      ],
      description: "Our Harbor",
      project: "corp-cache",
      public: true,
      metadata: {
        proxy_mode: "local-first",
        proxy_tag_ttl: "300",
        proxy_max_stale: "900",
        proxy_negative_ttl: "15",
        proxy_keep_deleted: "true",
        proxy_allow: "team-*/**,{a,b}/x",
        proxy_deny: "team-x/**",
        proxy_push_through: "false",
        proxy_prefetch: "true",
      },
    },
  ]);
});

test("every problem is one line that names its key and shows no secret", async (t) => {
  const problems = await problemsOf(
    t,
    `[[upstreams]]
name = "one"
url = "ftp://host"
pasword = "typo-secret"
password = 5
routes = [{ pattern = "a" }, { pattern = "${"*".repeat(11)}" }]
projects = [{ name = "a/../b" }]
mode = "sometimes"
[[upstreams]]
url = "https://a.example"
[[upstreams]]
name = "two"
url = "https://a.example"
ca_file = "/does/not/exist"
[[upstreams]]
name = "three"
url = "https://a.example"
is_default = true
project = "Upper"
[[upstreams]]
name = "four"
url = "https://a.example"
[[upstreams]]
name = "four"
url = "https://a.example"
[[upstreams]]
name = "5"
project = "four"
url = "https://a.example"
`,
  );
  assert.deepEqual(
    problems.map((line) => line.slice(0, line.indexOf(": "))).toSorted(),
    [
      "upstreams[0].mode",
      "upstreams[0].password",
      "upstreams[0].pasword",
      "upstreams[0].projects[0].name",
      "upstreams[0].routes[1].pattern",
      "upstreams[0].url",
      "upstreams[1].name",
      "upstreams[2].ca_file",
      "upstreams[3].project",
      "upstreams[5].name",
      "upstreams[6].project",
    ],
    problems.join("\n"),
  );
  assert.ok(!problems.join("\n").includes("typo-secret"));
});

test("a file of Harbor Cache is read as it is", async (t) => {
  const config = await load(
    t,
    `[server]
bind_address = "127.0.0.1"
port = 5000
[cache]
max_size = 107374182400
retention_days = 30
eviction_policy = "LFU"
[upstream]
url = "https://harbor.example.com"
registry = "library"
username = "admin"
password = "pass-of-admin"
skip_tls_verify = false
[storage]
backend = "s3"
[storage.local]
path = "./data/cache"
[storage.s3]
bucket = "harbor-cache"
region = "eu-west-1"
endpoint = "http://minio:9000"
prefix = ""
access_key = "minio"
secret_key = "minio-secret"
allow_http = true
[database]
path = "./data/harbor-cache.db"
[auth]
jwt_secret = "change-me-in-production"
enabled = true
[logging]
level = "trace"
format = "JSON"
[tls]
enabled = false
cert_path = "cert.pem"
key_path = "key.pem"
[blob_serving]
enable_presigned_redirects = true
presigned_url_ttl_secs = 900
`,
  );
  const { server, cache, log } = config.settings;
  assert.deepEqual([server.host, server.port, cache.max_gb, cache.retention_days, cache.eviction], ["127.0.0.1", 5000, 100, 30, "lfu"]);
  assert.deepEqual([log.level, log.format, config.tls], ["debug", "json", null]);
  assert.ok(config.storage.driver === "s3");
  assert.deepEqual(
    [config.storage.bucket, config.storage.endpoint, config.storage.pathStyle, config.storage.secretAccessKey, config.storage.redirect],
    ["harbor-cache", "http://minio:9000", true, "minio-secret", true],
  );
  assert.deepEqual(
    config.upstreams?.map(({ name, url, prefix, isDefault, project }) => [name, url, prefix, isDefault, project]),
    [["default", "https://harbor.example.com", "library", true, "default"]],
  );
  assert.deepEqual(config.notices.map((notice) => notice.split(" ")[0]).toSorted(), [
    "auth.enabled",
    "auth.jwt_secret",
    "blob_serving.presigned_url_ttl_secs",
    "database.path",
    "storage.s3.allow_http",
  ]);
  assert.ok(!config.notices.join("\n").includes("change-me"));
});

test("in a file of Harbor Cache the first enabled upstream is the default when none is marked, in one of ours none is", async (t) => {
  const upstreams = ["off", "first", "second"].map(
    (name) => `[[upstreams]]\nname = "${name}"\nurl = "https://${name}.example.com"\nenabled = ${name !== "off"}\n`,
  );
  const defaults = async (text: string): Promise<string[] | undefined> =>
    (await load(t, text)).upstreams?.filter(({ isDefault }) => isDefault).map(({ name }) => name);
  const theirs = `[cache]\nmax_size = 1073741824\n${upstreams.join("")}`;
  assert.deepEqual(await defaults(theirs), ["first"]);
  assert.match((await load(t, theirs)).notices.join("\n"), /"first" takes the names/);
  assert.deepEqual(await defaults(`${theirs}is_default = true\n`), ["second"]);
  assert.deepEqual(await defaults(upstreams.join("")), []);
});

test("its TLS files count when TLS is on, and its wrong values are named by its own keys", async (t) => {
  const config = await load(t, `[tls]\nenabled = true\ncert_path = "/etc/cert.pem"\nkey_path = "/etc/key.pem"\n`);
  assert.equal(config.tls?.certFile, "/etc/cert.pem");
  const problems = await problemsOf(
    t,
    `[cache]\neviction_policy = "random"\nmax_size = -1\n[storage]\nbackend = "floppy"\n[logging]\nlevel = "loud"\ncolour = "red"\n`,
  );
  assert.deepEqual(
    problems.map((line) => line.split(":")[0]).toSorted(),
    ["cache.eviction_policy", "cache.max_size", "logging", "logging.level", "storage.backend"],
    problems.join("\n"),
  );
});

test("without a file nobody says which upstreams there should be; with one that names none, there are none", async (t) => {
  assert.equal(loadConfig({ env: {} }).upstreams, null);
  assert.deepEqual((await load(t, "[server]\nport = 1\n")).upstreams, []);
});

test("settings of the proxy are checked", () => {
  const { proxy, cache } = loadConfig({ env: {} }).settings;
  assert.deepEqual([proxy.mode, proxy.tag_ttl_seconds, proxy.max_stale_seconds, proxy.default_upstreams], ["revalidate", 60, 600, false]);
  assert.ok(proxy.upstream_deny.includes("169.254.0.0/16"));
  assert.equal(cache.max_gb, 0);
  const wrong = {
    SLIPWAY_UPSTREAM_DENY: "10.0.0.0/8,nonsense",
    SLIPWAY_MIRROR: "https://docker.io",
    SLIPWAY_CACHE_MAX_GB: "-1",
    SLIPWAY_CACHE_EVICTION: "mru",
  };
  assert.throws(
    () => loadConfig({ env: wrong }),
    (error) => {
      assert.ok(isSlipwayError(error, "CONFIG_INVALID"));
      assert.deepEqual((error.detail as string[]).map((line) => line.split(":")[0]).toSorted(), Object.keys(wrong).toSorted());
      return true;
    },
  );
  assert.equal(loadConfig({ env: { SLIPWAY_CACHE_MAX_GB: "0.5" } }).settings.cache.max_gb, 0.5);
});

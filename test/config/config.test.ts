import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { loadConfig } from "../../src/config/config.ts";
import { renderConfigurationDocs } from "../../src/config/docs.ts";
import { isSlipwayError } from "../../src/core/errors.ts";
import { tempDir } from "../support/temp.ts";

function problemsOf(env: NodeJS.ProcessEnv, roles: string[] = []): string[] {
  try {
    loadConfig({ env, roles });
  } catch (error) {
    assert.ok(isSlipwayError(error, "CONFIG_INVALID"));
    return error.detail as string[];
  }
  return [];
}

test("an empty environment gives the documented defaults and all roles", () => {
  const config = loadConfig({ env: {} });
  assert.equal(config.settings.server.port, 5001);
  assert.equal(config.database.mode, "embedded");
  assert.equal(config.storage.driver, "fs");
  assert.equal(config.roles.size, 6);
  assert.equal(config.rolesGiven, false);
});

test("every unknown key, wrong type and contradiction is one line that names the key", () => {
  const problems = problemsOf(
    {
      SLIPWAY_PORT: "eighty",
      SLIPWAY_PROXY_PROCESSES: "0",
      SLIPWAY_LOG_LEVEL: "loud",
      SLIPWAY_TYPO: "1",
      SLIPWAY_TLS_CERT: "cert.pem",
      SLIPWAY_DATABASE_URL: "mysql://db",
      SLIPWAY_TRUSTED_PROXIES: "10.0.0.0/8,nonsense",
      SLIPWAY_EXTERNAL_URL: "https://registry.example.com/path",
    },
    ["proxy", "captain"],
  );
  for (const key of [
    "SLIPWAY_PORT",
    "SLIPWAY_PROXY_PROCESSES",
    "SLIPWAY_LOG_LEVEL",
    "SLIPWAY_TYPO",
    "SLIPWAY_TLS_KEY",
    "SLIPWAY_DATABASE_URL",
    "SLIPWAY_ENCRYPTION_KEY",
    "SLIPWAY_TRUSTED_PROXIES",
    "SLIPWAY_EXTERNAL_URL",
    "--role",
  ]) {
    assert.equal(problems.filter((line) => line.startsWith(`${key}:`)).length, 1, `one line for ${key} in:\n${problems.join("\n")}`);
  }
});

test("the fixed share of the refresh comes from numbers or from a pod's name, and only refreshing processes need one", () => {
  const shard = (env: NodeJS.ProcessEnv, roles: string[] = []) => loadConfig({ env, roles }).refreshShard;
  assert.equal(shard({}), null);
  assert.deepEqual(shard({ CORE_INSTANCE_TOTAL: "5", CORE_INSTANCE_ID: "0" }), { id: 0, total: 5 });
  assert.deepEqual(shard({ CORE_INSTANCE_TOTAL: "5", CORE_INSTANCE_ID: "core-3" }, ["refresh"]), { id: 3, total: 5 });
  assert.equal(shard({ CORE_INSTANCE_TOTAL: "5", CORE_INSTANCE_ID: "core" }, ["proxy"]), null);
  assert.match(problemsOf({ CORE_INSTANCE_TOTAL: "5", CORE_INSTANCE_ID: "core" }).join(), /^CORE_INSTANCE_ID: expected a number/);
  assert.match(problemsOf({ CORE_INSTANCE_TOTAL: "5", CORE_INSTANCE_ID: "core-5" }).join(), /^CORE_INSTANCE_ID: 5 is not below/);
});

test("the file holds the same settings, and the environment wins over it", async (t) => {
  const file = join(await tempDir(t), "slipway.toml");
  await writeFile(file, '[server]\nport = 6001\nhost = "127.0.0.1"\ntrusted_proxies = ["10.0.0.0/8"]\n[auth]\nregistry = "required"\n');
  const config = loadConfig({ env: { SLIPWAY_CONFIG: file, SLIPWAY_PORT: "6002" } });
  assert.equal(config.settings.server.port, 6002);
  assert.equal(config.settings.server.host, "127.0.0.1");
  assert.deepEqual(config.settings.server.trusted_proxies, ["10.0.0.0/8"]);
  assert.equal(config.settings.auth.registry, "required");
});

test("unknown sections, unknown keys and wrong types in the file are refused by name", async (t) => {
  const file = join(await tempDir(t), "slipway.toml");
  await writeFile(file, '[server]\nport = "6001"\nprot = 1\n[sever]\nport = 1\n');
  const problems = problemsOf({ SLIPWAY_CONFIG: file });
  assert.deepEqual(problems.map((line) => line.split(":")[0]).toSorted(), ["server.port", "server.prot", "sever"]);
});

test("a secret's text never appears in a problem", () => {
  const problems = problemsOf({ SLIPWAY_ENCRYPTION_KEY: "correct-horse-battery" });
  assert.equal(problems.length, 1);
  assert.ok(!problems.join().includes("correct-horse"));
});

test("docs/configuration.md is what the schema says", async () => {
  const file = await readFile(new URL("../../docs/configuration.md", import.meta.url), "utf8");
  assert.equal(file, renderConfigurationDocs(), "run: npm run slipway -- config docs");
});

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

function slipway(args: readonly string[], env: NodeJS.ProcessEnv = {}): { code: number | null; output: string; errors: string } {
  const result = spawnSync(process.execPath, [MAIN, ...args], { encoding: "utf8", env: { PATH: process.env["PATH"], ...env } });
  return { code: result.status, output: result.stdout, errors: result.stderr };
}

test("help lists the commands, and tells the usage of one", () => {
  const all = slipway(["help"]);
  assert.equal(all.code, 0);
  assert.match(all.output, /^ {2}config {2,}check the settings/m);
  assert.equal(slipway([]).output, all.output);
  for (const args of [
    ["help", "config"],
    ["config", "--help"],
  ])
    assert.match(slipway(args).output, /^usage: slipway config </);
});

test("an unknown command and a wrong call end with code 2 and say what to do", () => {
  const unknown = slipway(["constructor"]);
  assert.equal(unknown.code, 2);
  assert.match(unknown.errors, /no command "constructor"/);
  const wrong = slipway(["config", "what"]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.errors, /usage: slipway config/);
});

test("the version is that of the package", () => {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
  assert.match(slipway(["version"]).output, new RegExp(`^slipway ${version.replaceAll(".", "\\.")} `));
});

test("config check lists every problem by its key, one line each", () => {
  assert.equal(slipway(["config", "check"]).code, 0);
  const wrong = slipway(["config", "check"], { SLIPWAY_PORT: "many", SLIPWAY_NO_SUCH_KEY: "1" });
  assert.equal(wrong.code, 1);
  assert.match(wrong.errors, /SLIPWAY_PORT: .*\n.*SLIPWAY_NO_SUCH_KEY: unknown setting/);
});

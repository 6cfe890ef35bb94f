/** How a start that makes no sense ends: before anything is opened, with one line for each problem. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { tempDir } from "../support/temp.ts";
import { runTool } from "../support/tools.ts";

const MAIN = fileURLToPath(new URL("../../workers/main.ts", import.meta.url));

for (const [title, args, env, lines] of [
  ["an unknown argument", ["--rle", "proxy"], {}, [/^slipway: Unknown option '--rle'; the only argument is --role <role>$/]],
  ["a role without a name", ["--role"], {}, [/^slipway: Option '--role <value>' argument missing; the only argument is --role <role>$/]],
  ["an unknown role", ["--role", "foo"], {}, [/^slipway: --role: expected one of proxy, .*, found "foo"$/]],
  [
    "wrong settings",
    [],
    { SLIPWAY_PORT: "abc", SLIPWAY_PROT: "1", SLIPWAY_TLS_CERT: "/x.pem", SLIPWAY_DATABASE_URL: "postgres://x/y" },
    [
      /^slipway: SLIPWAY_ENCRYPTION_KEY: /,
      /^slipway: SLIPWAY_PORT: /,
      /^slipway: SLIPWAY_PROT: unknown setting$/,
      /^slipway: SLIPWAY_TLS_KEY: /,
    ],
  ],
] as const) {
  test(`${title} ends the start with code 2 and says so`, async (t) => {
    const dataDir = await tempDir(t);
    const result = await runTool(process.execPath, [MAIN, ...args], { env: { SLIPWAY_DATA_DIR: dataDir, ...env } });
    assert.equal(result.code, 2, result.stderr);
    const said = result.stderr.trim().split("\n").toSorted();
    assert.equal(said.length, lines.length, result.stderr);
    for (const [index, line] of lines.entries()) assert.match(said[index] ?? "", line);
  });
}

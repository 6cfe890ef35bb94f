/** The workflow bundle: built from TypeScript sources in a child process, kept by content, and free of what the sandbox forbids. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as workflows from "../../workflows/index.ts";
import { workflowBundle } from "../../workers/bundle.ts";
import { tempDir } from "../support/temp.ts";

const run = promisify(execFile);
const BUILDER = fileURLToPath(new URL("../../workers/build-bundle.ts", import.meta.url));

test("the bundle is built once for the same sources, also when processes ask at the same moment, and holds every workflow", async (t) => {
  const dataDir = await tempDir(t);
  const [first, second] = await Promise.all([workflowBundle(dataDir), workflowBundle(dataDir)]);
  assert.equal(first, second);
  assert.match(first, /cache\/workflow-bundle-[0-9a-f]{16}\.js$/);
  const before = await stat(first);
  assert.equal(await workflowBundle(dataDir), first);
  assert.equal((await stat(first)).mtimeMs, before.mtimeMs, "not built again");
  const code = await readFile(first, "utf8");
  for (const name of Object.keys(workflows)) assert.ok(code.includes(name), name);
  assert.doesNotMatch(code, /require\("(node:)?(fs|net|crypto|http)"\)/);
});

test("a workflow that imports what the sandbox forbids fails the build and names the offender", async (t) => {
  const folder = await tempDir(t);
  const table = [
    { source: `import { readFile } from "node:fs/promises";\nexport async function bad() { return readFile("x"); }\n`, offender: /fs/ },
    {
      source: `import { Client } from "@temporalio/client";\nexport async function bad() { return new Client(); }\n`,
      offender: /@temporalio\/client/,
    },
  ];
  for (const [index, { source, offender }] of table.entries()) {
    const path = join(folder, `bad-${index}.ts`);
    await writeFile(path, source);
    const failure = await run(process.execPath, [BUILDER, join(folder, "out.js"), path]).then(
      () => null,
      (error: { stderr: string }) => error,
    );
    assert.ok(failure, "the build must fail");
    assert.match(failure.stderr, offender);
  }
});

test("a build that cannot write fails with the reason", async (t) => {
  const dataDir = await tempDir(t);
  await writeFile(join(dataDir, "cache"), "a file where the folder should be");
  await assert.rejects(workflowBundle(dataDir));
});

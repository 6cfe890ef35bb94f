import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { tempDir } from "../temp.ts";
import { checkArrows } from "./arrows.ts";
import { findImports } from "./imports.ts";

type Files = Readonly<Record<string, string>>;

async function violationsOf(t: Parameters<typeof tempDir>[0], files: Files): Promise<string[]> {
  const root = await tempDir(t);
  for (const [file, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, file)), { recursive: true });
    await writeFile(join(root, file), text);
  }
  return (await checkArrows(root)).map(({ file, line, message }) => `${file}:${line}: ${message}`);
}

const BAD: readonly { readonly title: string; readonly file: string; readonly text: string; readonly says: RegExp }[] = [
  { title: "src imports api", file: "src/a.ts", text: `import { b } from "../api/b.ts";`, says: /src may import src only/ },
  {
    title: "src imports a workflow's code",
    file: "src/temporal/a.ts",
    text: `import { w } from "../../workflows/w.ts";`,
    says: /src may import src only/,
  },
  {
    title: "src imports workflow types outside src/temporal",
    file: "src/kv/a.ts",
    text: `import type { W } from "../../workflows/w.ts";`,
    says: /src may import/,
  },
  { title: "api imports a worker", file: "api/a.ts", text: `import "../workers/w.ts";`, says: /api may import api, src only/ },
  {
    title: "a worker other than main imports api",
    file: "workers/proxy.ts",
    text: `import { s } from "../api/s.ts";`,
    says: /workers may import/,
  },
  {
    title: "an activity imports a workflow",
    file: "activities/a.ts",
    text: `export { w } from "../workflows/w.ts";`,
    says: /activities may import/,
  },
  {
    title: "a workflow imports an activity's code",
    file: "workflows/w.ts",
    text: `import { a } from "../activities/a.ts";`,
    says: /activity types only/,
  },
  {
    title: "a workflow imports what is not pure",
    file: "workflows/w.ts",
    text: `import { a } from "../src/db/pool.ts";`,
    says: /pure modules only/,
  },
  { title: "a workflow imports a node module", file: "workflows/w.ts", text: `import { join } from "node:path";`, says: /no node: module/ },
  {
    title: "a workflow imports another package",
    file: "workflows/w.ts",
    text: `import { z } from "zod";`,
    says: /@temporalio\/workflow only/,
  },
  { title: "core imports a node module", file: "src/core/a.ts", text: `import { join } from "node:path";`, says: /no node: module/ },
  {
    title: "a plan imports effects",
    file: "src/tuf/plan/a.ts",
    text: `import { Pool } from "../../db/pool.ts";`,
    says: /pure modules import pure/,
  },
  {
    title: "the proxy imports Temporal",
    file: "src/proxy/a.ts",
    text: `import type { Client } from "@temporalio/client";`,
    says: /never uses Temporal/,
  },
  {
    title: "the proxy imports src/temporal",
    file: "src/proxy/a.ts",
    text: `import { c } from "../temporal/connection.ts";`,
    says: /never uses Temporal/,
  },
  {
    title: "v2 imports Temporal lazily",
    file: "api/v2/a.ts",
    text: `const c = await import("@temporalio/client");`,
    says: /never uses Temporal/,
  },
  { title: "undici outside src/upstream", file: "src/proxy/a.ts", text: `import { request } from "undici";`, says: /only src\/upstream/ },
  {
    title: "the environment is read",
    file: "src/kv/a.ts",
    text: `\nconst url = process.env["REDIS_URL"];`,
    says: /a\.ts:2: reads process\.env/,
  },
  { title: "a program imports test code", file: "src/a.ts", text: `import { t } from "../test/support/temp.ts";`, says: /only tests may/ },
];

for (const { title, file, text, says } of BAD) {
  test(`is refused: ${title}`, async (t) => {
    const found = await violationsOf(t, { [file]: text });
    assert.equal(found.length, 1, found.join("\n"));
    assert.match(found[0] ?? "", says);
    assert.ok(found[0]?.startsWith(`${file}:`));
  });
}

test("what the design allows is allowed", async (t) => {
  const files: Files = {
    "workers/main.ts": `import { server } from "../api/server.ts";\nimport { a } from "../activities/a.ts";`,
    "activities/a.ts": `import { p } from "../src/db/pool.ts";`,
    "api/server.ts": `import { p } from "../src/db/pool.ts";`,
    "workflows/w.ts": `import { proxyActivities } from "@temporalio/workflow";\nimport type { A } from "../activities/a.ts";\nimport { plan } from "../src/tuf/plan/p.ts";\nimport { ids } from "../src/temporal/ids.ts";`,
    "src/temporal/start.ts": `import type { w } from "../../workflows/w.ts";\nimport { Client } from "@temporalio/client";`,
    "src/upstream/u.ts": `import { Pool } from "undici";`,
    "src/config/env.ts": `export const e = process.env;`,
    "src/tuf/plan/p.ts": `import { clock } from "../../core/clock.ts";`,
    "src/core/clock.ts": `// import { x } from "node:fs"; process.env\nconst text = "process.environment";`,
    "src/temporal/ids.ts": "",
    "src/db/pool.ts": `import type { Later } from "./later.ts";`,
    "src/db/later.ts": `import { pool } from "./pool.ts";`,
  };
  assert.deepEqual(await violationsOf(t, files), []);
});

test("a cycle is told once, with its way", async (t) => {
  const found = await violationsOf(t, {
    "src/a.ts": `import { b } from "./b.ts";`,
    "src/b.ts": `export * from "./c.ts";`,
    "src/c.ts": `import { a } from "./a.ts";`,
  });
  assert.deepEqual(found, ["src/a.ts:1: import cycle: src/a.ts -> src/b.ts -> src/c.ts -> src/a.ts"]);
});

test("imports are found over lines, with their kind, and not in comments or strings", () => {
  const source = [
    `import {`,
    `  type A,`,
    `  type B,`,
    `} from "./types.ts";`,
    `import C, { type D } from './c.ts';`,
    `/* import { x } from "./no.ts"; */ // import "./no.ts"`,
    `const text = 'import { x } from "./no.ts"';`,
    `export type { E } from "./e.ts";`,
    `const lazy = await import("./lazy.ts");`,
    `type F = import("./f.ts").F;`,
    `import "./effect.ts";`,
  ].join("\n");
  const found = findImports(source).map(({ specifier, line, typeOnly }) => [specifier, line, typeOnly]);
  assert.deepEqual(
    found.toSorted(([, a], [, b]) => Number(a) - Number(b)),
    [
      ["./types.ts", 1, true],
      ["./c.ts", 5, false],
      ["./e.ts", 8, true],
      ["./lazy.ts", 9, false],
      ["./f.ts", 10, true],
      ["./effect.ts", 11, false],
    ],
  );
});

test("this repository keeps its own rules", async () => {
  assert.deepEqual(await checkArrows(fileURLToPath(new URL("../../../", import.meta.url))), []);
});

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { processStartTime } from "../../src/embedded/process-info.ts";
import { findTool } from "../support/tools.ts";
import { tempDir } from "../support/temp.ts";

const BOOTSTRAP = fileURLToPath(new URL("../../src/cli/bootstrap.mjs", import.meta.url));
const PROGRAM = "test/cli/fixtures/program.ts";
/** The Node of the machine, which may be an old one; then the bootstrap goes on under the pinned one. */
const SYSTEM_NODE = findTool("node") ?? process.execPath;

interface Run {
  readonly child: ChildProcess;
  output(): string;
  errors(): string;
  readonly ended: Promise<[number | null, NodeJS.Signals | null]>;
}

function run(command: readonly string[], env: NodeJS.ProcessEnv = {}): Run {
  const [file = "", ...args] = command;
  // What the test run got from npm must not look like npm started this.
  const inherited = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name) && name !== "NODE_TEST_CONTEXT"),
  );
  const child = spawn(file, args, { env: { ...inherited, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let errors = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const ended = once(child, "close") as Promise<[number | null, NodeJS.Signals | null]>;
  return { child, output: () => output, errors: () => errors, ended };
}

async function waitFor<T>(what: string, probe: () => T | null): Promise<T> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const value = probe();
    if (value !== null) return value;
    if (Date.now() > deadline) throw new Error(`waited for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function ready(program: Run): Promise<{ pid: number }> {
  return waitFor("the program", () =>
    program.output().includes("\n") ? (JSON.parse(program.output().split("\n")[0] ?? "") as { pid: number }) : null,
  );
}

for (const [title, node] of [
  ["the machine's Node", SYSTEM_NODE],
  ["the pinned Node", process.execPath],
] as const) {
  test(`a program runs under Node 24 with its arguments and exit code (${title})`, async () => {
    const printed = run([node, BOOTSTRAP, "--run", PROGRAM, "print", "a b", "--flag"]);
    assert.deepEqual(await printed.ended, [0, null], printed.errors());
    const seen = JSON.parse(printed.output()) as { node: string; args: string[]; script: string };
    assert.match(seen.node, /^24\./);
    assert.deepEqual(seen.args, ["print", "a b", "--flag"]);
    assert.ok(seen.script.endsWith(PROGRAM));
    assert.deepEqual(await run([node, BOOTSTRAP, "--run", PROGRAM, "exit", "7"]).ended, [7, null]);
  });

  test(`signals pass in both directions (${title})`, async () => {
    for (const [signal, code] of [
      ["SIGTERM", 3],
      ["SIGINT", 4],
    ] as const) {
      const program = run([node, BOOTSTRAP, "--run", PROGRAM, "wait"]);
      await ready(program);
      program.child.kill(signal);
      assert.deepEqual(await program.ended, [code, null]);
    }
    assert.deepEqual(await run([node, BOOTSTRAP, "--run", PROGRAM, "die", "SIGKILL"]).ended, [null, "SIGKILL"]);
    assert.deepEqual(await run([node, BOOTSTRAP, "--run", PROGRAM, "die", "SIGTERM"]).ended, [null, "SIGTERM"]);
  });

  for (const shell of [false, true])
    test(`the program is asked to end when its starter is killed (${title}${shell ? ", through a shell" : ""})`, async () => {
      // As npm starts it: npm is the one that is killed, and it tells nobody.
      const script = `const { spawn } = require("node:child_process");
      spawn(process.argv[1], process.argv.slice(2), { stdio: "inherit", env: { ...process.env, npm_lifecycle_event: "start" } });`;
      const line = [node, BOOTSTRAP, "--run", PROGRAM, "wait"];
      const quoted = line.map((word) => `'${word}'`).join(" ");
      const npm = run([process.execPath, "-e", script, ...(shell ? ["sh", "-c", `${quoted}; exit $?`] : line)]);
      const { pid } = await ready(npm);
      npm.child.kill("SIGKILL");
      await waitFor("the end of the program", () => (processStartTime(pid) === null ? true : null));
      assert.match(npm.output(), /"got":"SIGTERM"/);
    });
}

test("a killed bootstrap takes the program with it", { skip: SYSTEM_NODE === process.execPath && "one process here" }, async () => {
  const program = run([SYSTEM_NODE, BOOTSTRAP, "--run", PROGRAM, "wait"]);
  const { pid } = await ready(program);
  program.child.kill("SIGKILL");
  await waitFor("the end of the program", () => (processStartTime(pid) === null ? true : null));
});

test("a program of an installed package runs, an unknown one is a clear problem", async () => {
  const version = run([SYSTEM_NODE, BOOTSTRAP, "--bin", "oxfmt", "--version"]);
  assert.deepEqual(await version.ended, [0, null]);
  assert.match(version.output(), /\d+\.\d+/);
  const unknown = run([SYSTEM_NODE, BOOTSTRAP, "--bin", "no-such-program"]);
  assert.deepEqual(await unknown.ended, [1, null]);
  assert.match(unknown.errors(), /^slipway: no installed package has a program "no-such-program"/);
});

/** A repository with a lock file of its own, whose packages npm can install without a network. */
async function repository(t: Parameters<typeof tempDir>[0]): Promise<string> {
  const root = await tempDir(t);
  await mkdir(join(root, "src", "cli"), { recursive: true });
  await mkdir(join(root, "local", "one"), { recursive: true });
  await copyFile(BOOTSTRAP, join(root, "src", "cli", "bootstrap.mjs"));
  await writeFile(join(root, "local", "one", "package.json"), JSON.stringify({ name: "one", version: "1.0.0", bin: "bin.mjs" }));
  await writeFile(join(root, "local", "one", "bin.mjs"), `console.log("one runs");`);
  await writeFile(join(root, "hello.mjs"), `console.log("hello");`);
  await writeFile(join(root, ".npmrc"), "ignore-scripts=true\naudit=false\nfund=false\nfetch-retries=0\n");
  await lock(
    root,
    { one: "file:local/one" },
    {
      "local/one": { name: "one", version: "1.0.0" },
      "node_modules/one": { resolved: "local/one", link: true },
    },
  );
  return root;
}

async function lock(root: string, dependencies: Record<string, string>, packages: Record<string, object>): Promise<void> {
  const manifest = { name: "sample", version: "1.0.0", type: "module", dependencies };
  await writeFile(join(root, "package.json"), JSON.stringify(manifest));
  const content = { name: "sample", version: "1.0.0", lockfileVersion: 3, requires: true, packages: { "": manifest, ...packages } };
  await writeFile(join(root, "package-lock.json"), JSON.stringify(content));
}

test("packages are installed at the first start and when the lock changed, and not otherwise", async (t) => {
  const root = await repository(t);
  const start = (): Run => run([process.execPath, join(root, "src", "cli", "bootstrap.mjs"), "--run", "hello.mjs"]);
  const first = start();
  assert.deepEqual(await first.ended, [0, null], first.errors());
  assert.match(first.errors(), /first start, installing the packages\n(.*\n)*slipway: packages installed in \d+ s\n/);
  assert.equal(first.output(), "hello\n");
  const second = start();
  assert.deepEqual(await second.ended, [0, null]);
  assert.equal(second.errors(), "");
  await writeFile(join(root, "package-lock.json"), `${await readFile(join(root, "package-lock.json"), "utf8")}\n`);
  // The record of npm says that nothing is missing, so a lock that only looks different costs no installation.
  const third = start();
  assert.deepEqual(await third.ended, [0, null]);
  assert.equal(third.errors(), "");
  await mkdir(join(root, "local", "two"));
  await writeFile(join(root, "local", "two", "package.json"), JSON.stringify({ name: "two", version: "1.0.0" }));
  await lock(
    root,
    { one: "file:local/one", two: "file:local/two" },
    {
      "local/one": { name: "one", version: "1.0.0" },
      "local/two": { name: "two", version: "1.0.0" },
      "node_modules/one": { resolved: "local/one", link: true },
      "node_modules/two": { resolved: "local/two", link: true },
    },
  );
  const fourth = start();
  assert.deepEqual(await fourth.ended, [0, null], fourth.errors());
  assert.match(fourth.errors(), /packages changed, installing them/);
  const bin = run([process.execPath, join(root, "src", "cli", "bootstrap.mjs"), "--bin", "one"]);
  assert.deepEqual(await bin.ended, [0, null], bin.errors());
  assert.equal(bin.output(), "one runs\n");
});

test("of several first starts at once one installs, a dead installer's lock is taken over", async (t) => {
  const root = await repository(t);
  const gone = spawn("true");
  await once(gone, "exit");
  await mkdir(join(root, ".cache"));
  await writeFile(join(root, ".cache", "install.lock"), String(gone.pid));
  const starts = [0, 1, 2].map(() => run([process.execPath, join(root, "src", "cli", "bootstrap.mjs"), "--run", "hello.mjs"]));
  for (const start of starts) assert.deepEqual(await start.ended, [0, null], start.errors());
  assert.equal(starts.filter((start) => start.errors().includes("packages installed")).length, 1);
  await assert.rejects(readFile(join(root, ".cache", "install.lock")), { code: "ENOENT" });
});

test("a failing installation is tried once more and explained", async (t) => {
  const root = await repository(t);
  await lock(
    root,
    { absent: "1.0.0" },
    {
      "node_modules/absent": { version: "1.0.0", resolved: "http://127.0.0.1:9/absent.tgz", integrity: "sha512-AAAA" },
    },
  );
  const start = run([process.execPath, join(root, "src", "cli", "bootstrap.mjs"), "--run", "hello.mjs"], {
    npm_config_cache: join(root, "cache"),
  });
  assert.deepEqual(await start.ended, [1, null]);
  assert.match(start.errors(), /trying once more/);
  assert.match(start.errors(), /npm ci failed \(code \d+\):\n[\s\S]*Is the package registry reachable/);
  assert.equal(start.output(), "");
});

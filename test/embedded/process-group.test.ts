import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { assertPortFree, freePort, isPortFree } from "../../src/embedded/ports.ts";
import { processStartTime } from "../../src/embedded/process-info.ts";
import { tempDir } from "../support/temp.ts";
import { fixture, inReverse, startProgram, until } from "./support.ts";
import type { Program } from "./support.ts";

const OWNER = [process.execPath, fixture("owner.ts")];

function members(program: Program): number[] {
  const latest = new Map<unknown, unknown>();
  for (const line of program.lines)
    if (String(line["state"]).startsWith("proxy-")) latest.set(line["state"], line["phase"] === "running" ? line["pid"] : null);
  return [...latest.values()].filter((pid): pid is number => typeof pid === "number");
}

test("further processes are started, started again when they die, and drained in order", async (context) => {
  const t = inReverse(context);
  const program = startProgram(t, [...OWNER, await tempDir(t), "no-postgres", "group"]);
  await program.line("up");
  const first = members(program);
  assert.equal(first.length, 2);
  process.kill(first[0] ?? 0, "SIGKILL");
  const second = await until("a new member", () => {
    const now = members(program);
    return now.length === 2 && !now.includes(first[0] ?? 0) ? now : null;
  });
  assert.ok(second.includes(first[1] ?? 0), "the other one was left alone");
  await until("all listen to signals", () => second.every((pid) => program.lines.some((line) => line["listening"] === pid)));
  program.child.kill("SIGTERM");
  assert.equal(await program.exit(), 0);
  const drained = program.lines.filter((line) => "drained" in line).map((line) => line["drained"]);
  assert.deepEqual(drained.toSorted(), second.toSorted());
});

test("members end when the owner is killed", async (context) => {
  const t = inReverse(context);
  const program = startProgram(t, [...OWNER, await tempDir(t), "no-postgres", "group"]);
  await program.line("up");
  const pids = members(program);
  assert.equal(pids.length, 2);
  program.child.kill("SIGKILL");
  await until("the end of the members", () => pids.every((pid) => processStartTime(pid) === null));
});

for (const guard of ["pdeathsig", "stdin"]) {
  const skip = guard === "pdeathsig" && process.platform !== "linux" ? "only Linux has it" : false;
  test(`a guarded child dies with its parent (${guard})`, { skip }, async () => {
    const module = fileURLToPath(new URL("../../src/embedded/guarded-spawn.ts", import.meta.url));
    const script = `
      import { guardedSpawn } from ${JSON.stringify(module)};
      const child = guardedSpawn({ command: "sh", args: ["-c", "echo $$; exec sleep 60"], deathSignal: "SIGTERM" }, "${guard}");
      child.stdout.once("data", (line) => process.stdout.write(line));`;
    const parent = spawn(process.execPath, ["--input-type=module-typescript", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    const [line] = (await once(parent.stdout, "data")) as [Buffer];
    const pid = Number(line.toString());
    assert.notEqual(processStartTime(pid), null);
    parent.kill("SIGKILL");
    await until("the end of the child", () => processStartTime(pid) === null);
  });
}

test("a taken port is told before anybody listens, also when its holder shares it", async (context) => {
  const t = inReverse(context);
  const port = await freePort();
  await assertPortFree(port, "127.0.0.1");
  const server = createServer();
  server.listen({ port, host: "127.0.0.1", reusePort: true });
  await once(server, "listening");
  t.after(() => void server.close());
  assert.equal(await isPortFree(port, "127.0.0.1"), false);
  await assert.rejects(assertPortFree(port, "127.0.0.1"), { code: "CONFLICT", message: new RegExp(`port ${port} .*taken`) });
});

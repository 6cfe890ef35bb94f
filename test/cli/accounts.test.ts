import assert from "node:assert/strict";
import { test } from "node:test";
import type { AccountServices } from "../../src/cli/accounts.ts";
import { UsageError } from "../../src/cli/command.ts";
import { runProject } from "../../src/cli/project.ts";
import { runRobot } from "../../src/cli/robot.ts";
import { runUser } from "../../src/cli/user.ts";
import { login, testAuth } from "../support/auth.ts";
import { testDatabase } from "../support/services.ts";
import { testBus } from "../support/test-bus.ts";

test("accounts and projects are managed from the command line", async (t) => {
  const { database } = await testDatabase(t);
  const parts = testAuth(t, { database, bus: await testBus(t) });
  const input = { line: "" };
  let printed: string[] = [];
  const services: AccountServices = {
    auth: parts.auth,
    projects: parts.projects,
    readLine: async () => input.line,
    print: (line) => void printed.push(line),
  };
  async function run(command: typeof runUser, line: string): Promise<string> {
    printed = [];
    await command(line.split(" "), services);
    return printed.join("\n");
  }
  const secretIn = (text: string): string => /^(?:password|secret): (\S+)$/m.exec(text)?.[1] ?? "";

  await t.test("users get a made password, shown once, or one from standard input", async () => {
    const made = await run(runUser, "add alice --admin --email alice@example.com");
    assert.equal((await login(parts, "alice", secretIn(made))).sysadmin, true);
    input.line = "Chosen12345";
    assert.equal(secretIn(await run(runUser, "add bob --password-stdin")), "");
    await login(parts, "bob", "Chosen12345");
    input.line = "weak";
    await assert.rejects(run(runUser, "add carol --password-stdin"), { code: "BAD_REQUEST" });
    await assert.rejects(run(runUser, "add bob"), { code: "CONFLICT" });
    await assert.rejects(run(runUser, "add a$b"), { code: "BAD_REQUEST" });
    assert.match(await run(runUser, "list"), /^\d+ +alice +yes +alice@example\.com/m);
  });

  await t.test("a password that was changed ends the old one", async () => {
    const changed = await run(runUser, "password bob");
    await assert.rejects(login(parts, "bob", "Chosen12345"), { code: "UNAUTHORIZED" });
    await login(parts, "bob", secretIn(changed));
  });

  await t.test("the last administrator stays", async () => {
    await assert.rejects(run(runUser, "remove alice"), { code: "PRECONDITION_FAILED" });
    await assert.rejects(run(runUser, "admin alice --off"), { code: "PRECONDITION_FAILED" });
    await run(runUser, "admin bob");
    await run(runUser, "admin alice --off");
    assert.equal((await parts.auth.users.findByName("alice"))?.sysadmin, false);
  });

  await t.test("projects and their members", async () => {
    await run(runProject, "add web --owner alice");
    await run(runProject, "add open --public");
    assert.match(await run(runProject, "list"), /open +public[^]*web +private +alice/);
    await run(runUser, "add dora");
    await run(runProject, "member add web dora --role maintainer");
    assert.match(await run(runProject, "member list web"), /alice +projectAdmin\ndora +maintainer/);
    await run(runProject, "member remove web dora");
    assert.doesNotMatch(await run(runProject, "member list web"), /dora/);
    await assert.rejects(run(runProject, "member add web dora --role king"), { code: "BAD_REQUEST" });
    await assert.rejects(run(runProject, "member add nothing dora"), { code: "NOT_FOUND" });
    await run(runProject, "remove open");
    assert.equal(await parts.projects.find("open"), null);
  });

  await t.test("robots", async () => {
    const added = await run(runRobot, "add ci --project web --actions pull,push --days 30");
    const robot = await login(parts, "robot$web+ci", secretIn(added));
    const web = await parts.projects.find("web");
    assert.ok(web);
    assert.deepEqual(
      [await parts.auth.registry.decide(robot, web, "push"), await parts.auth.registry.decide(robot, web, "delete")],
      [true, false],
    );
    assert.match(await run(runRobot, "list --project web"), /robot\$web\+ci +enabled +20/);
    const everywhere = await login(parts, "robot$mirror", secretIn(await run(runRobot, "add mirror")));
    assert.equal(await parts.auth.registry.decide(everywhere, web, "pull"), true);
    assert.match(await run(runRobot, "list"), /robot\$mirror +enabled +never/);
    await run(runRobot, "remove robot$web+ci");
    await assert.rejects(login(parts, "robot$web+ci", secretIn(added)), { code: "UNAUTHORIZED" });
    await assert.rejects(run(runRobot, "add x --actions fly"), { code: "BAD_REQUEST" });
  });

  await t.test("a wrong call shows the usage", async () => {
    for (const [command, line] of [
      [runUser, "fly"],
      [runUser, "add"],
      [runUser, "list --nonsense"],
      [runProject, "member"],
      [runRobot, "add x --days 0"],
    ] as const) {
      await assert.rejects(run(command, line), (error) => error instanceof UsageError, line);
    }
  });
});

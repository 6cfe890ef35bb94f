/** Today's workflows replay the histories of earlier ones: an open run survives an upgrade. Needs no server. */
import { before, test } from "node:test";
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import proto from "@temporalio/proto";
import { Worker } from "@temporalio/worker";
import { DeterminismViolationError } from "@temporalio/workflow";
import * as workflows from "../../workflows/index.ts";
import { workflowBundle } from "../../workers/bundle.ts";
import { installRuntime } from "../../workers/runtime.ts";
import { quietLogger } from "../support/maintenance.ts";

const FOLDER = fileURLToPath(new URL("./histories/", import.meta.url));

interface Recorded {
  readonly name: string;
  readonly text: string;
}

let bundle = "";
let recorded: Recorded[] = [];

before(async () => {
  await installRuntime(quietLogger);
  bundle = await workflowBundle(join(tmpdir(), "slipway-test-replay"));
  const names = (await readdir(FOLDER)).filter((name) => name.endsWith(".json"));
  recorded = await Promise.all(names.map(async (name) => ({ name, text: await readFile(join(FOLDER, name), "utf8") })));
});

async function replay(text: string): Promise<void> {
  await Worker.runReplayHistory(
    { workflowBundle: { codePath: bundle } },
    proto.temporal.api.history.v1.History.fromObject(JSON.parse(text) as object),
    "replayed",
  );
}

test("every workflow has a recorded history", () => {
  const texts = recorded.map(({ text }) => text);
  for (const type of Object.keys(workflows)) {
    assert.ok(
      texts.some((text) => text.includes(`"name": "${type}"`)),
      `record one of ${type} with test/replay/record.ts`,
    );
  }
});

test("every recorded history replays", async (t) => {
  assert.ok(recorded.length > 0);
  for (const { name, text } of recorded) await t.test(name, () => replay(text));
});

test("a history that the workflow would not have made is refused", async () => {
  const history = recorded.find(({ name }) => name.startsWith("garbage-collect-v"));
  assert.ok(history);
  const other = history.text.replaceAll('"name": "collectBatch"', '"name": "somethingElse"');
  assert.notEqual(other, history.text);
  await assert.rejects(replay(other), DeterminismViolationError);
});

/** Builds the workflow bundle into the file named as argument; run as a process of its own. */
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { bundleWorkflowCode, DefaultLogger } from "@temporalio/worker";

const out = process.argv[2];
if (out === undefined) throw new Error("usage: build-bundle <file>");
const { code } = await bundleWorkflowCode({
  workflowsPath: process.argv[3] ?? fileURLToPath(new URL("../workflows/index.ts", import.meta.url)),
  logger: new DefaultLogger("WARN", ({ level, message }) => process.stderr.write(`${level} ${message}\n`)),
});
await writeFile(out, code);

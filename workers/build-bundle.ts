/**
 * Builds the workflow bundle into the file named as argument; run as a process of its own. Every worker keeps the bundle and its source map several times for life:
 * the map goes without the sources, which nobody reads, and the text without characters for which V8 would take two bytes for each.
 */
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { bundleWorkflowCode, DefaultLogger } from "@temporalio/worker";

const out = process.argv[2];
if (out === undefined) throw new Error("usage: build-bundle <file>");
const { code } = await bundleWorkflowCode({
  workflowsPath: process.argv[3] ?? fileURLToPath(new URL("../workflows/index.ts", import.meta.url)),
  logger: new DefaultLogger("WARN", ({ level, message }) => process.stderr.write(`${level} ${message}\n`)),
});
await writeFile(out, asciiOf(withoutSources(code)));

function withoutSources(bundle: string): string {
  const start = bundle.lastIndexOf("base64,") + "base64,".length;
  const map = JSON.parse(Buffer.from(bundle.slice(start).trimEnd(), "base64").toString()) as Record<string, unknown>;
  return bundle.slice(0, start) + Buffer.from(JSON.stringify({ ...map, sourcesContent: undefined })).toString("base64");
}

/** In strings, expressions and comments alike an escape means the same. */
function asciiOf(text: string): string {
  return text.replace(/[\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

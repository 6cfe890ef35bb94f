/** Writes the history of a run beside the others. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TemporalConnection } from "../../src/temporal/connection.ts";

const FOLDER = fileURLToPath(new URL("./histories/", import.meta.url));

export async function saveHistory(temporal: TemporalConnection, file: string, run: { workflowId: string; runId?: string }): Promise<void> {
  await mkdir(FOLDER, { recursive: true });
  const history = await temporal.call((client) => client.workflow.getHandle(run.workflowId, run.runId).fetchHistory());
  // Names of this machine's processes are nobody's business.
  const text = JSON.stringify(history, (_, value: unknown) => (typeof value === "string" && /^\d+@/.test(value) ? "recorder" : value), 1);
  await writeFile(join(FOLDER, `${file}.json`), `${text}\n`);
  console.log(`${file}.json: ${history.events?.length} events`);
}

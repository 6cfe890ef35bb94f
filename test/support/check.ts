/** `npm run check`: types, lint, format, dependency arrows, generated documents. Each violation is one line; the exit code tells. */
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { renderConfigurationDocs } from "../../src/config/docs.ts";
import { checkArrows } from "./check/arrows.ts";

interface Outcome {
  readonly name: string;
  readonly violations: readonly string[];
  readonly milliseconds: number;
}

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

const CHECKS: readonly { readonly name: string; readonly run: () => Promise<string[]> }[] = [
  { name: "types", run: () => tool("typescript/bin/tsc", ["--project", "tsconfig.json", "--noEmit", "--pretty", "false"]) },
  { name: "lint", run: () => tool("oxlint/bin/oxlint", ["--format", "unix", "."]) },
  {
    name: "format",
    run: async () => (await tool("oxfmt/bin/oxfmt", ["--list-different", "."])).map((file) => `${file}: not formatted (npm run format)`),
  },
  { name: "arrows", run: async () => (await checkArrows(ROOT)).map(({ file, line, message }) => `${file}:${line}: ${message}`) },
  { name: "generated documents", run: checkGenerated },
];

async function tool(program: string, args: readonly string[]): Promise<string[]> {
  const child = spawn(process.execPath, [join(ROOT, "node_modules", program), ...args], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  const collect = (chunk: Buffer): void => {
    output += chunk.toString();
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code === 0) return [];
  const lines = output.split("\n").filter((line) => line.trim() !== "" && !/^\d+ problems?$/.test(line));
  return lines.length > 0 ? lines : [`${program} ended with code ${code}`];
}

async function checkGenerated(): Promise<string[]> {
  const file = "docs/configuration.md";
  const present = await readFile(join(ROOT, file), "utf8").catch(() => "");
  return present === renderConfigurationDocs() ? [] : [`${file}: stale (npm run slipway -- config docs --write)`];
}

async function runCheck({ name, run }: (typeof CHECKS)[number]): Promise<Outcome> {
  const started = performance.now();
  const violations = await run().catch((error: unknown) => [`${name} could not be checked: ${String(error)}`]);
  return { name, violations, milliseconds: performance.now() - started };
}

let failed = false;
for (const check of CHECKS) {
  const { name, violations, milliseconds } = await runCheck(check);
  failed ||= violations.length > 0;
  for (const violation of violations) console.log(violation);
  console.log(`check: ${name}: ${violations.length === 0 ? "ok" : `${violations.length} to mend`} (${(milliseconds / 1000).toFixed(1)} s)`);
}
process.exitCode = failed ? 1 : 0;

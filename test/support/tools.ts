/** External programs that tests drive. A missing one is said loudly, and is a failure where SLIPWAY_TEST_REQUIRE_TOOLS is set. */
import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

const EXTRA_FOLDERS = ["/opt/tools", "/usr/local/bin", "/usr/sbin"];

export function findTool(name: string): string | null {
  for (const folder of [...(process.env["PATH"] ?? "").split(delimiter), ...EXTRA_FOLDERS]) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here; the next folder may have it.
    }
  }
  return null;
}

/** For `test(title, { skip: missingTool("skopeo") }, ...)`: false when present, else the reason. */
export function missingTool(name: string): string | false {
  if (findTool(name)) return false;
  const reason = `MISSING TOOL: ${name} is not installed; this test did not run`;
  if (process.env["SLIPWAY_TEST_REQUIRE_TOOLS"]) throw new Error(reason);
  console.error(reason);
  return reason;
}

export interface ToolResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly timeoutMs?: number;
  readonly input?: string;
}

/** Runs a program to its end; the caller judges the code. */
export function runTool(name: string, args: readonly string[], options: RunOptions = {}): Promise<ToolResult> {
  const path = findTool(name) ?? name;
  return new Promise((resolve) => {
    const child = execFile(
      path,
      [...args],
      {
        env: { ...process.env, ...options.env },
        cwd: options.cwd,
        timeout: options.timeoutMs ?? 60_000,
        maxBuffer: 64 * 1024 * 1024,
        killSignal: "SIGKILL",
      },
      (error, stdout, stderr) => {
        const code = error ? (typeof error.code === "number" ? error.code : 1) : 0;
        resolve({ code, stdout, stderr });
      },
    );
    if (options.input !== undefined) child.stdin?.end(options.input);
  });
}

/** Runs a program that must succeed. */
export async function mustRun(name: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const result = await runTool(name, args, options);
  if (result.code !== 0) throw new Error(`${name} ${args.join(" ")} ended with ${result.code}\n${result.stdout}\n${result.stderr}`);
  return result.stdout;
}

/** Debian's docker-registry, which is distribution, on a free port with storage of its own. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort } from "./slipway.ts";
import { tempDir } from "./temp.ts";
import { findTool } from "./tools.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface DockerRegistry {
  readonly url: string;
  readonly port: number;
  readonly host: string;
}

export async function startDockerRegistry(t: Cleanable): Promise<DockerRegistry> {
  const folder = await tempDir(t, "docker-registry-");
  const port = await freePort();
  const file = join(folder, "config.yml");
  const storage = `storage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: ${folder}/data\n`;
  await writeFile(file, `version: 0.1\nlog:\n  level: error\n${storage}http:\n  addr: 127.0.0.1:${port}\n`);
  const child = spawn(findTool("docker-registry") ?? "", ["serve", file], { stdio: "ignore" });
  const exited = once(child, "exit");
  t.after(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; !(await fetch(`${url}/v2/`).catch(() => null))?.ok; tries += 1) {
    if (tries > 200 || child.exitCode !== null) throw new Error("docker-registry did not start");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { url, port, host: `127.0.0.1:${port}` };
}

/** A Redis of one test, which may stop it and start it again, empty. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tempDir } from "./temp.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface OwnRedis {
  readonly url: string;
  start(): Promise<ChildProcess>;
}

export async function ownRedis(t: Cleanable): Promise<OwnRedis> {
  const folder = await tempDir(t);
  const listener = createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as AddressInfo;
  listener.close();
  await once(listener, "close");
  return {
    url: `redis://127.0.0.1:${port}`,
    start: async () => {
      const server = spawn("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder], {
        stdio: "pipe",
      });
      t.after(() => void server.kill("SIGKILL"));
      let output = "";
      for await (const chunk of server.stdout) {
        output += String(chunk);
        if (output.includes("Ready to accept connections")) break;
      }
      return server;
    },
  };
}

export async function stopRedis(server: ChildProcess): Promise<void> {
  const ended = once(server, "exit");
  server.kill("SIGKILL");
  await ended;
}

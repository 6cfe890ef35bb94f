/** A real S3 server for tests: versitygw over a temporary folder. */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { access, mkdir } from "node:fs/promises";
import { createServer, connect } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { S3StorageConfig } from "../../src/storage/storage-config.ts";
import { tempDir } from "./temp.ts";
import { findTool } from "./tools.ts";

const PACKAGE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";
const INSTALL_MS = 300_000;
const START_MS = 15_000;
const ACCESS_KEY = "slipwaytest";
const SECRET_KEY = "slipwaytestsecret";
const BUCKET = "blobs";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface S3Server {
  readonly endpoint: string;
  readonly config: S3StorageConfig;
  /** Ends it at once, as a crash would. */
  kill(): Promise<void>;
  /** Begins again on the same port with the same data. */
  restart(): Promise<void>;
}

let binary: Promise<string | null> | undefined;

/** Given by SLIPWAY_VERSITYGW, installed, or built where Go is present; null when none of that helps. */
export function findVersitygw(): Promise<string | null> {
  return (binary ??= locate());
}

/** For `{ skip: await missingVersitygw() }`. */
export async function missingVersitygw(): Promise<string | false> {
  if (await findVersitygw()) return false;
  const reason = "MISSING TOOL: versitygw (set SLIPWAY_VERSITYGW, or install Go); the S3 tests did not run";
  if (process.env["SLIPWAY_TEST_REQUIRE_TOOLS"]) throw new Error(reason);
  console.error(reason);
  return reason;
}

async function locate(): Promise<string | null> {
  const given = process.env["SLIPWAY_VERSITYGW"] ?? findTool("versitygw");
  if (given) return given;
  const go = findTool("go") ?? ((await exists("/usr/local/go/bin/go")) ? "/usr/local/go/bin/go" : null);
  if (!go) return null;
  const folder = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "slipway-test-tools");
  const path = join(folder, "versitygw");
  if (await exists(path)) return path;
  await mkdir(folder, { recursive: true });
  try {
    await promisify(execFile)(go, ["install", PACKAGE], { env: { ...process.env, GOBIN: folder }, timeout: INSTALL_MS });
    return path;
  } catch (error) {
    console.error(`versitygw could not be built: ${String(error)}`);
    return null;
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

async function accepts(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

async function launch(path: string, port: number, root: string): Promise<ChildProcess> {
  const args = ["--port", `127.0.0.1:${port}`, "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet", "--keep-alive", "posix", root];
  // Dies with the test process, also when that is killed.
  const setpriv = findTool("setpriv");
  const child = setpriv
    ? spawn(setpriv, ["--pdeathsig", "KILL", path, ...args], { stdio: "ignore" })
    : spawn(path, args, { stdio: "ignore" });
  const deadline = Date.now() + START_MS;
  while (!(await accepts(port))) {
    if (child.exitCode !== null || Date.now() > deadline) {
      child.kill("SIGKILL");
      throw new Error(`versitygw did not start (exit code ${child.exitCode})`);
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await exited;
}

export async function startVersitygw(t: Cleanable): Promise<S3Server> {
  const path = await findVersitygw();
  if (!path) throw new Error("versitygw is missing");
  const root = await tempDir(t, "slipway-s3-");
  await mkdir(join(root, BUCKET));
  const port = await freePort();
  let child = await launch(path, port, root);
  t.after(() => end(child));
  const endpoint = `http://127.0.0.1:${port}`;
  return {
    endpoint,
    config: {
      driver: "s3",
      bucket: BUCKET,
      prefix: "slipway/",
      region: "us-east-1",
      endpoint,
      pathStyle: true,
      accessKeyId: ACCESS_KEY,
      secretAccessKey: SECRET_KEY,
      redirect: true,
      publicEndpoint: null,
    },
    kill: () => end(child),
    restart: async () => {
      await end(child);
      child = await launch(path, port, root);
    },
  };
}

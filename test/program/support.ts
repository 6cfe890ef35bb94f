/** What the tests of the whole program share: logged-in clients, log lines, waiting. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { OciClient } from "../support/oci-client.ts";
import type { RunningSlipway } from "../support/slipway.ts";

const KEPT_TEMPORAL = "/opt/tools/temporal";

/** A Temporal binary that is known to be here saves the search; elsewhere the program finds its own. */
export function embeddedEnv(): Record<string, string> {
  const given = process.env["TEMPORAL_CLI_PATH"];
  return given === undefined && existsSync(KEPT_TEMPORAL) ? { TEMPORAL_CLI_PATH: KEPT_TEMPORAL } : {};
}

export function basic(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
}

export function adminClient(slipway: RunningSlipway, password = slipway.password): OciClient {
  return new OciClient(slipway.url, { authorization: basic("admin", password) });
}

/** A registry token, as a docker client asks for it. */
export async function tokenFor(slipway: RunningSlipway, scope: string, login = basic("admin", slipway.password)): Promise<string> {
  const response = await fetch(`${slipway.url}/service/token?service=slipway&scope=${encodeURIComponent(scope)}`, {
    headers: { authorization: login },
  });
  if (response.status !== 200) throw new Error(`no token: ${response.status} ${await response.text()}`);
  return ((await response.json()) as { token: string }).token;
}

export async function digestOf(response: Response): Promise<string> {
  return `sha256:${createHash("sha256")
    .update(Buffer.from(await response.arrayBuffer()))
    .digest("hex")}`;
}

/** Asks until the answer is not undefined. */
export async function until<T>(what: string, ask: () => Promise<T | undefined> | T | undefined, timeoutMs = 15_000): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await delay(50);
  }
}

/** True when somebody listens. */
export function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

export function portOf(slipway: RunningSlipway): number {
  return Number(new URL(slipway.url).port);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

export interface Api {
  (method: string, path: string, body?: unknown): Promise<Response>;
}

/** The REST API as one user. */
export function apiOf(slipway: Pick<RunningSlipway, "url">, login: string): Api {
  return (method, path, body) =>
    fetch(`${slipway.url}/api/v2.0${path}`, {
      method,
      headers: { authorization: login, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
}

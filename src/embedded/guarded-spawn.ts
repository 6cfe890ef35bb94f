/**
 * Starts a child that dies with us, whatever ends us. Linux does that by itself (setpriv --pdeathsig); elsewhere a small process stands
 * between and watches its stdin. Each child gets a session of its own, so that Ctrl-C in a terminal reaches only us and we stop the
 * children in order.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";

export type RunAs =
  | { readonly kind: "self" }
  /** A user namespace in which we are this user: the program sees no root, files stay ours. */
  | { readonly kind: "namespace"; readonly uid: number; readonly gid: number }
  | { readonly kind: "uid"; readonly uid: number; readonly gid: number };

export const AS_SELF: RunAs = { kind: "self" };

export interface ProcessSpec {
  readonly command: string;
  readonly args: readonly string[];
  /** Replaces the environment; our own holds secrets and settings that are no business of other programs. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly runAs?: RunAs;
  /** What the child gets when we die. */
  readonly deathSignal: NodeJS.Signals;
  /** "inherit" for processes of ours, which write our log. */
  readonly output?: "pipe" | "inherit";
}

const GUARD = fileURLToPath(new URL("./child-guard.mjs", import.meta.url));
const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** The environment of the servers that we start. */
export function plainEnvironment(extra: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { PATH: SYSTEM_PATH, LC_ALL: "C", LANG: "C", ...extra };
}

export function guardedSpawn(spec: ProcessSpec, guard: "pdeathsig" | "stdin" = defaultGuard()): ChildProcess {
  const runAs = spec.runAs ?? AS_SELF;
  let line = [spec.command, ...spec.args];
  if (guard === "pdeathsig") line = [...setpriv(runAs, spec.deathSignal), ...line];
  else line = [process.execPath, GUARD, spec.deathSignal, ...(runAs.kind === "uid" ? [`${runAs.uid}:${runAs.gid}`] : ["-"]), ...line];
  // Changing the user resets the death signal, so the namespace comes first.
  if (runAs.kind === "namespace") line = [...unshare(runAs), ...line];
  const [command = spec.command, ...args] = line;
  return spawn(command, args, {
    stdio: [guard === "stdin" ? "pipe" : "ignore", spec.output ?? "pipe", spec.output ?? "pipe"],
    detached: true,
    ...(spec.env ? { env: spec.env } : {}),
    ...(spec.cwd === undefined ? {} : { cwd: spec.cwd }),
  });
}

/** Runs a short program to its end in the same way. */
export function runToEnd(
  spec: Omit<ProcessSpec, "deathSignal" | "output">,
  signal?: AbortSignal,
): Promise<{ code: number | null; output: string }> {
  const runAs = spec.runAs ?? AS_SELF;
  const line = [...(runAs.kind === "namespace" ? unshare(runAs) : []), spec.command, ...spec.args];
  const [command = spec.command, ...args] = line;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ["ignore", "pipe", "pipe"],
      ...(spec.env ? { env: spec.env } : {}),
      ...(spec.cwd === undefined ? {} : { cwd: spec.cwd }),
      ...(runAs.kind === "uid" ? { uid: runAs.uid, gid: runAs.gid } : {}),
      ...(signal ? { signal, killSignal: "SIGKILL" } : {}),
    });
    let output = "";
    const collect = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-16_384);
    };
    child.stdout?.on("data", collect);
    child.stderr?.on("data", collect);
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, output }));
  });
}

function setpriv(runAs: RunAs, deathSignal: NodeJS.Signals): string[] {
  const user = runAs.kind === "uid" ? [`--reuid=${runAs.uid}`, `--regid=${runAs.gid}`, "--clear-groups"] : [];
  return ["setpriv", `--pdeathsig=${deathSignal.replace(/^SIG/, "")}`, ...user, "--"];
}

function unshare(runAs: { readonly uid: number; readonly gid: number }): string[] {
  return ["unshare", "--user", `--map-user=${runAs.uid}`, `--map-group=${runAs.gid}`, "--"];
}

let knownGuard: "pdeathsig" | "stdin" | undefined;

function defaultGuard(): "pdeathsig" | "stdin" {
  // Not every setpriv knows the option (busybox has one without it).
  knownGuard ??= works("setpriv", ["--pdeathsig=KILL", "--", "true"]) ? "pdeathsig" : "stdin";
  return knownGuard;
}

export function namespaceWorks(uid: number, gid: number): boolean {
  return works("unshare", [...unshare({ uid, gid }).slice(1), "true"]);
}

function works(command: string, args: readonly string[]): boolean {
  return spawnSync(command, args, { stdio: "ignore", env: { PATH: SYSTEM_PATH }, timeout: 5_000 }).status === 0;
}

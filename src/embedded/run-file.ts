/**
 * `<data>/run.json`: who owns the data folder and where its services are. Other processes join by it, and the next start finds by it what a
 * killed owner left behind. It names the database password, so only its user may read it.
 */
import { randomBytes } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SlipwayError } from "../core/errors.ts";
import { identify } from "./process-info.ts";
import type { ProcessIdentity } from "./process-info.ts";

export interface ChildRecord extends ProcessIdentity {
  readonly name: string;
}

export interface RunInfo {
  readonly dataDir: string;
  readonly owner: ProcessIdentity;
  readonly startedAt: string;
  readonly phase: "starting" | "running" | "stopping";
  /** Where the owner listens; null until it does. */
  readonly url: string | null;
  /** The addresses below are final; from here on others can join. */
  readonly servicesReady: boolean;
  /** Null when the owner runs no database of its own. */
  readonly databaseUrl: string | null;
  readonly temporalAddress: string | null;
  readonly temporalUiUrl: string | null;
  readonly children: readonly ChildRecord[];
}

export class RunFile {
  readonly #path: string;
  #info: RunInfo;

  constructor(dataDir: string) {
    const owner = identify(process.pid);
    if (owner === null) throw new SlipwayError("INTERNAL", { message: "cannot tell when this process started" });
    this.#path = runFilePath(dataDir);
    this.#info = {
      dataDir,
      owner,
      startedAt: new Date().toISOString(),
      phase: "starting",
      url: null,
      servicesReady: false,
      databaseUrl: null,
      temporalAddress: null,
      temporalUiUrl: null,
      children: [],
    };
    this.#write();
  }

  get info(): RunInfo {
    return this.#info;
  }

  update(patch: Partial<Omit<RunInfo, "owner" | "dataDir" | "children">>): void {
    this.#info = { ...this.#info, ...patch };
    this.#write();
  }

  /** Written at once, so that a child is known before it can be orphaned. */
  setChild(name: string, child: ProcessIdentity | null): void {
    const known = this.#info.children.find((record) => record.name === name);
    if (known?.pid === child?.pid && known?.startTime === child?.startTime) return;
    const others = this.#info.children.filter((record) => record.name !== name);
    this.#info = { ...this.#info, children: child === null ? others : [...others, { name, pid: child.pid, startTime: child.startTime }] };
    this.#write();
  }

  remove(): void {
    rmSync(this.#path, { force: true });
  }

  #write(): void {
    const temporary = `${this.#path}.${randomBytes(4).toString("hex")}`;
    writeFileSync(temporary, `${JSON.stringify(this.#info, null, 2)}\n`, { mode: 0o600 });
    renameSync(temporary, this.#path);
  }
}

/** What the last owner wrote, or null; it may be dead. */
export function readRunFile(dataDir: string): RunInfo | null {
  try {
    const value: unknown = JSON.parse(readFileSync(runFilePath(dataDir), "utf8"));
    return isRunInfo(value) ? value : null;
  } catch {
    return null;
  }
}

function runFilePath(dataDir: string): string {
  return join(dataDir, "run.json");
}

function isRunInfo(value: unknown): value is RunInfo {
  const info = value as Partial<RunInfo> | null;
  return typeof info?.owner?.pid === "number" && typeof info.owner.startTime === "string" && Array.isArray(info.children);
}

/** What the commands about accounts and projects share. */
import { parseArgs } from "node:util";
import type { ParseArgsConfig } from "node:util";
import type { Auth } from "../auth/open-auth.ts";
import type { ProjectStore } from "../catalog/project-store.ts";
import type { Project } from "../catalog/registry.ts";
import { SlipwayError } from "../core/errors.ts";
import { UsageError } from "./command.ts";

export interface AccountServices {
  readonly auth: Pick<Auth, "users" | "members" | "robots" | "robotSecrets" | "passwords" | "projectList" | "robotPrefix">;
  readonly projects: ProjectStore;
  /** The first line of standard input, for secrets that must not stand in the process list. */
  readLine(): Promise<string>;
  print(line: string): void;
}

/** Enough for a terminal; whoever has more asks the API. */
const MAX_LISTED = 1_000;

export const WHOLE_LIST = { filters: [], sort: [], page: 1, pageSize: MAX_LISTED } as const;

export function requireArgument(value: string | undefined, name: string): string {
  if (value === undefined || value === "") throw new UsageError(`the ${name} is missing`);
  return value;
}

export function unknownVerb(verb: string | undefined): UsageError {
  return new UsageError(verb === undefined ? "what to do is missing" : `"${verb}" is not something to do here`);
}

/** Options that do not exist or lack their value are a wrong call, not a defect. */
export function parseCall<Config extends ParseArgsConfig>(config: Config): ReturnType<typeof parseArgs<Config>> {
  try {
    return parseArgs(config);
  } catch (error) {
    const code = error instanceof TypeError ? (error as { code?: unknown }).code : undefined;
    if (typeof code !== "string" || !code.startsWith("ERR_PARSE_ARGS")) throw error;
    throw new UsageError((error as TypeError).message);
  }
}

export async function requireProjectByName(services: Pick<AccountServices, "projects">, name: string): Promise<Project> {
  const project = await services.projects.find(name);
  if (project) return project;
  throw new SlipwayError("NOT_FOUND", { message: `there is no project ${name}` });
}

/** Columns as wide as their widest cell. */
export function printTable(print: (line: string) => void, rows: readonly (readonly string[])[]): void {
  const widths: number[] = [];
  for (const row of rows) for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, cell.length);
  for (const row of rows)
    print(
      row
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join("  ")
        .trimEnd(),
    );
}

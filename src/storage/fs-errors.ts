/** Turns errors of the file system into the catalogue: full, or away. */
import { SlipwayError } from "../core/errors.ts";

const FULL_CODES: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"]);

export function errnoOf(error: unknown): string | null {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string") return null;
  return "errno" in error ? error.code : null;
}

export function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  const code = errnoOf(error);
  return code !== null && codes.includes(code);
}

/** What is no failed system call passes through: it is a defect, or already ours. */
export function fsError(error: unknown): unknown {
  const code = errnoOf(error);
  if (code === null) return error;
  return new SlipwayError(FULL_CODES.has(code) ? "STORAGE_FULL" : "STORAGE_UNAVAILABLE", { cause: error });
}

export async function withFsErrors<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    throw fsError(error);
  }
}

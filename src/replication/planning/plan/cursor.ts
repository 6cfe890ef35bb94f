/** Where planning goes on. Small: it travels through workflow histories. */
import { SlipwayError } from "../../../core/errors.ts";

export const planPhases = ["names", "survey", "gone", "repositories", "rest", "deletions", "events", "retry", "done"] as const;
export type PlanPhase = (typeof planPhases)[number];

export interface PlanCursor {
  /** Number of the step that begins here; what it plans is kept under it. */
  readonly step: number;
  readonly phase: PlanPhase;
  /** Page of a listing; null at the beginning. */
  readonly page: string | null;
  /** The last thing on that page that is done. */
  readonly after: string | null;
  /** Tags that a mirror has seen at its destinations. */
  readonly seen: number;
}

export function firstCursor(phase: PlanPhase): PlanCursor {
  return { step: 1, phase, page: null, after: null, seen: 0 };
}

/** The beginning of another phase. */
export function enter(cursor: PlanCursor, phase: PlanPhase): PlanCursor {
  return { ...cursor, phase, page: null, after: null };
}

export function formatCursor(cursor: PlanCursor): string {
  return JSON.stringify(cursor);
}

export function parseCursor(text: string): PlanCursor {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = null;
  }
  if (!isCursor(value)) throw new SlipwayError("BAD_REQUEST", { message: "not a cursor of planning" });
  return value;
}

function isCursor(value: unknown): value is PlanCursor {
  if (typeof value !== "object" || value === null) return false;
  const { step, phase, page, after, seen } = value as Record<string, unknown>;
  const isText = (each: unknown): boolean => each === null || typeof each === "string";
  return Number.isInteger(step) && planPhases.includes(phase as PlanPhase) && isText(page) && isText(after) && Number.isInteger(seen);
}

/** What of a page of names is still to be done; listings that change between two looks are in order where they can be. */
export function remaining(names: readonly string[], after: string | null): readonly string[] {
  if (after === null) return names;
  const at = names.indexOf(after);
  return at === -1 ? names.filter((name) => name > after) : names.slice(at + 1);
}

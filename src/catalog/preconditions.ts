/** If-Match and If-None-Match on what a name points to. */
import { SlipwayError } from "../core/errors.ts";

export interface Preconditions {
  readonly ifMatch?: string;
  readonly ifNoneMatch?: string;
}

/** `current` is the digest that is there, undefined when there is none. */
export function checkPreconditions(current: string | undefined, conditions: Preconditions): void {
  const { ifMatch, ifNoneMatch } = conditions;
  const matches = ifMatch === undefined || (current !== undefined && (ifMatch === "*" || ifMatch === current));
  const differs = ifNoneMatch === undefined || current === undefined || (ifNoneMatch !== "*" && ifNoneMatch !== current);
  if (!matches || !differs) throw new SlipwayError("PRECONDITION_FAILED");
}

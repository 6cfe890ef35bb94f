/** The search attributes by which operators find runs in the Temporal UI, and their registration. */
import type { SearchAttributePair } from "@temporalio/common";
import { defineSearchAttributeKey } from "@temporalio/common";
import { isSlipwayError } from "../core/errors.ts";
import type { CallOptions, TemporalConnection } from "./connection.ts";
import { searchAttributeNames as names } from "./ids.ts";

export const searchAttributeKeys = {
  policyId: defineSearchAttributeKey(names.policyId, "KEYWORD"),
  sourceRegistry: defineSearchAttributeKey(names.sourceRegistry, "KEYWORD"),
  targetRegistry: defineSearchAttributeKey(names.targetRegistry, "KEYWORD"),
  triggerKind: defineSearchAttributeKey(names.triggerKind, "KEYWORD"),
  outcome: defineSearchAttributeKey(names.outcome, "KEYWORD"),
  failed: defineSearchAttributeKey(names.failed, "INT"),
} as const;

export type SearchAttributes = readonly SearchAttributePair[];

/** Values of the service's IndexedValueType. */
const KEYWORD = 2;
const INT = 3;

/**
 * Registers what is missing. False when the service does not let us (a managed service where an operator does it): runs are then started
 * without attributes.
 */
export async function ensureSearchAttributes(temporal: TemporalConnection, options: CallOptions = {}): Promise<boolean> {
  const { namespace } = temporal;
  try {
    const known = await temporal.call((_, connection) => connection.operatorService.listSearchAttributes({ namespace }), options);
    const missing = Object.values(names).filter((name) => known.customAttributes[name] === undefined);
    if (missing.length === 0) return true;
    const searchAttributes = Object.fromEntries(missing.map((name) => [name, name === names.failed ? INT : KEYWORD]));
    await temporal.call((_, connection) => connection.operatorService.addSearchAttributes({ namespace, searchAttributes }), options);
    return true;
  } catch (error) {
    // Another process added them in the meantime.
    if (isSlipwayError(error, "CONFLICT")) return true;
    if (isSlipwayError(error, "TEMPORAL_UNAVAILABLE")) throw error;
    return false;
  }
}

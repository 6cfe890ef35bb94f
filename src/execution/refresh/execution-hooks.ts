/**
 * What follows a change of an execution's status: webhooks, server-sent events, whatever a vendor wants. Changes come from the outbox, where the
 * statement that made them wrote them, so each is told once; again only when a hook failed.
 */
import { z } from "zod";
import type { RelayHandler } from "../../catalog/outbox-relay.ts";
import type { ExecutionStatus } from "../plan/status.ts";

export interface ExecutionChange {
  readonly id: number;
  readonly vendor: string;
  readonly vendorId: number | null;
  readonly from: ExecutionStatus;
  readonly to: ExecutionStatus;
  /** With the id it names the change, so that whoever hears of it twice can tell. */
  readonly revision: number;
  readonly at: string;
}

export type ExecutionHook = (changes: readonly ExecutionChange[], signal: AbortSignal) => Promise<void>;

const EVERY_VENDOR = "*";

const Status = z.enum(["Pending", "Running", "Paused", "Stopped", "Error", "Success", "Skipped"]);
const Payload = z.object({
  vendor: z.string(),
  from: Status,
  to: Status,
  at: z.string(),
  ids: z.array(z.number()),
  vendor_ids: z.array(z.number().nullable()),
  revisions: z.array(z.number()),
});

export class ExecutionHooks {
  readonly #hooks = new Map<string, ExecutionHook[]>();

  /** For the executions of one vendor, or of all. */
  register(vendor: string | null, hook: ExecutionHook): void {
    const key = vendor ?? EVERY_VENDOR;
    this.#hooks.set(key, [...(this.#hooks.get(key) ?? []), hook]);
  }

  /** For rows of the kind `execution-event`. */
  handler(): RelayHandler {
    return async (rows, signal) => {
      for (const [vendor, changes] of Map.groupBy(
        rows.flatMap((row) => changesOf(row.payload)),
        (change) => change.vendor,
      )) {
        for (const hook of [...(this.#hooks.get(vendor) ?? []), ...(this.#hooks.get(EVERY_VENDOR) ?? [])]) await hook(changes, signal);
      }
    };
  }
}

function changesOf(payload: unknown): ExecutionChange[] {
  const { vendor, from, to, at, ids, vendor_ids: vendorIds, revisions } = Payload.parse(payload);
  return ids.map((id, index) => ({
    id,
    vendor,
    vendorId: vendorIds[index] ?? null,
    from,
    to,
    revision: revisions[index] ?? 0,
    at,
  }));
}

/** What replication does when the status of its executions changed, whoever changed it: those who watch them are woken. */
import type { ExecutionHook } from "../execution/refresh/execution-hooks.ts";
import type { Kv } from "../kv/kv.ts";
import { RUN_CHANNEL, runMessages } from "./run-feed.ts";

/** A message that is lost costs a watcher a moment, so it is no reason to be told once more. */
export function announceChangedRuns(kv: Pick<Kv, "publish">): ExecutionHook {
  return async (changes) => {
    for (const message of runMessages(changes.map(({ id }) => id))) await kv.publish(RUN_CHANNEL, message).catch(() => undefined);
  };
}

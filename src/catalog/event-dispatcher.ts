/** Hands catalog events from the outbox to whoever acts on them: webhooks, replication on events, caches of others. */
import type { CatalogEvent } from "./content-records.ts";
import type { RelayHandler } from "./outbox-relay.ts";

/** Told again about the same events when it, or another listener, failed. */
export type EventListener = (events: readonly CatalogEvent[], signal: AbortSignal) => Promise<void>;

export function dispatchEvents(listeners: readonly EventListener[]): RelayHandler {
  return async (rows, signal) => {
    const events = rows.map((row) => row.payload as CatalogEvent);
    for (const listener of listeners) await listener(events, signal);
  };
}

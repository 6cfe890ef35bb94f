/** What the tests of the key-value drivers have in common. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import type { Kv, SubscribeHandlers } from "../../src/kv/kv.ts";

export interface KvSubject {
  /** Two processes that share the service and a prefix. */
  readonly a: Kv;
  readonly b: Kv;
  /** Cuts the listening connections of `b` at the server. */
  cutSubscriber(): Promise<void>;
}

export interface Recorder extends SubscribeHandlers {
  readonly events: string[];
}

export function recorder(): Recorder {
  const events: string[] = [];
  return {
    events,
    onMessage: (message) => void events.push(`message ${message}`),
    onLost: () => void events.push("lost"),
    onReady: () => void events.push("ready"),
  };
}

export async function eventually(condition: () => boolean | Promise<boolean>, what: string, withinMs = 10_000): Promise<void> {
  const until = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > until) assert.fail(`did not happen in time: ${what}`);
    await pause(10);
  }
}

export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Keys of a test's own. */
export function name(what: string): string {
  return `${what}-${randomUUID().slice(0, 8)}`;
}

/** What the watchers of a claim queue are told about a batch of marks. */
import type { Mark } from "./kv.ts";

/** More slots than this are not worth telling one by one. */
const MOST_SLOTS = 64;

/** The slots that got marks; empty when they are many. */
export function wakeMessage(marks: readonly Pick<Mark, "slot">[]): string {
  const slots = new Set(marks.map(({ slot }) => slot));
  return slots.size > MOST_SLOTS ? "" : [...slots].join(",");
}

/** Whether the message is about one of these slots. */
export function isWokenBy(message: string, slots: ReadonlySet<number>): boolean {
  return message === "" || message.split(",").some((slot) => slots.has(Number(slot)));
}

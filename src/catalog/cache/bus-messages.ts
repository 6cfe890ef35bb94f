/** What the processes say to each other about their caches, and how it travels. */
import { z } from "zod";
import { MAX_MESSAGE_BYTES } from "../../kv/kv.ts";

const BusMessage = z.discriminatedUnion("t", [
  /** To all: drop these scopes; everything when there are none. */
  z.object({ t: z.literal("drop"), from: z.string(), n: z.number(), scopes: z.array(z.string()).nullable() }),
  /** To all: wait for my acknowledgement from now on. */
  z.object({ t: z.literal("hello"), from: z.string(), n: z.number() }),
  /** To all: wait no longer. */
  z.object({ t: z.literal("bye"), from: z.string() }),
  /** To one: dropped. */
  z.object({ t: z.literal("ack"), from: z.string(), n: z.number() }),
  /** To one: your hello was heard. */
  z.object({ t: z.literal("known"), from: z.string(), n: z.number() }),
  /** To oneself: everything from before `at` has been heard. */
  z.object({ t: z.literal("beacon"), from: z.string(), at: z.number() }),
]);
export type BusMessage = z.infer<typeof BusMessage>;

export const BROADCAST = "cache-invalidation";

export function inboxOf(bootId: string): string {
  return `cache-invalidation:${bootId}`;
}

/** Null for what a newer version says and this one does not understand. */
export function parseBusMessage(text: string): BusMessage | null {
  try {
    const parsed = BusMessage.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}

/** Room for the other fields, and for scopes whose JSON is longer than their text. */
const SCOPE_BYTES = MAX_MESSAGE_BYTES - 300;
const MAX_MESSAGES = 16;

/** The scopes in messages that the channel carries; one message that drops everything when they are too many. */
export function splitScopes(scopes: Iterable<string>): (string[] | null)[] {
  const parts: string[][] = [];
  let part: string[] = [];
  let bytes = 0;
  for (const scope of scopes) {
    const size = Buffer.byteLength(JSON.stringify(scope)) + 1;
    if (size > SCOPE_BYTES) return [null];
    if (bytes + size > SCOPE_BYTES) {
      parts.push(part);
      part = [];
      bytes = 0;
    }
    part.push(scope);
    bytes += size;
  }
  if (part.length > 0) parts.push(part);
  return parts.length > MAX_MESSAGES ? [null] : parts;
}

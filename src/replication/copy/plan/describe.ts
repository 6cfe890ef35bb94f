/** Items as the log names them. Pure. */
import type { ItemAction } from "../../plan/item.ts";

export interface Described {
  readonly action: ItemAction;
  readonly srcRepository: string;
  readonly destRepository: string;
  readonly tag: string | null;
  readonly digest: string | null;
}

export function describeItem(item: Described): string {
  const reference = item.tag === null ? `@${item.digest ?? "?"}` : `:${item.tag}`;
  return item.action === "delete" ? `${item.destRepository}${reference}` : `${item.srcRepository}${reference} to ${item.destRepository}`;
}

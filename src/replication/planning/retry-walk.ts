/** Another run's items that did not succeed, planned once more as they were; whether they are still needed is seen when they are copied. */
import { isSlipwayError } from "../../core/errors.ts";
import type { Item, ItemStore } from "../item-store.ts";
import type { TaskAttrs } from "../plan/item.ts";
import { draftBatches } from "./plan/drafts.ts";
import type { Place } from "./plan/drafts.ts";
import type { PlanCursor } from "./plan/cursor.ts";
import type { PhaseResult } from "./source-walk.ts";
import { say } from "./step-context.ts";
import type { StepContext, Target } from "./step-context.ts";

type FailedItem = Item & { readonly task: TaskAttrs };

const ITEMS_PER_PAGE = 500;

export async function walkRetry(context: StepContext, items: Pick<ItemStore, "unfinished">, cursor: PlanCursor): Promise<PhaseResult> {
  const { retryOf } = context.options.run;
  let { after } = cursor;
  for (;;) {
    const page = retryOf === null ? [] : await items.unfinished(retryOf, Number(after ?? 0), ITEMS_PER_PAGE);
    const last = page.at(-1);
    if (!last) return null;
    for (const group of grouped(page)) await planGroup(context, group);
    after = String(last.id);
    if (context.isFull()) return { ...cursor, after };
  }
}

async function planGroup(context: StepContext, group: readonly FailedItem[]): Promise<void> {
  const { recorder, recorded, targets } = context.options;
  const [first] = group as [FailedItem, ...FailedItem[]];
  const { task, srcRepository: repository, destRepository } = first;
  const key = `retry:${first.id}`;
  if (recorded.has(key)) return;
  const target = targets.find(({ destination }) => destination.position === task.destination);
  if (target?.destination.registryId !== task.target_registry_id) {
    await context.note(
      `${destRepository}: no longer a destination of the policy, so that ${group.length} items are not tried again`,
      "WARNING",
    );
    return;
  }
  const place: Place = { position: task.destination, registryId: task.target_registry_id, repository: destRepository, empty: false };
  if (task.operation === "copy") await prepare(context, target, first);
  const work = group.map(({ action, tag, digest }) => ({
    artifact: { mediaType: null, artifactType: task.resource_type === "artifact" ? "artifact" : null },
    // What a tag was at the source then may not be what it is now; a deletion is about what was deleted.
    items: [{ place, item: { action, tag, digest: action === "copy" && tag !== null ? null : digest } }],
  }));
  const batches = draftBatches({ key, repository, operation: task.operation }, work);
  await recorder.record({
    key,
    repository,
    next: null,
    batches,
    unchanged: 0,
    log: [say(`${repository}: ${group.length} items to try again`)],
  });
}

/** What a destination has against it is told by its items. */
async function prepare(context: StepContext, target: Target, { srcRepository: source, destRepository }: FailedItem): Promise<void> {
  try {
    await context.prepare(target, { source, destination: destRepository });
  } catch (error) {
    if (!isSlipwayError(error) || error.retryable || error.code === "CANCELLED") throw error;
  }
}

/** Of one task's kind each, in order. */
function grouped(items: readonly FailedItem[]): FailedItem[][] {
  const groups: FailedItem[][] = [];
  for (const item of items) {
    const open = groups.at(-1);
    const last = open?.at(-1);
    const same =
      last?.srcRepository === item.srcRepository &&
      last.destRepository === item.destRepository &&
      last.task.destination === item.task.destination &&
      last.task.operation === item.task.operation;
    if (open && same) open.push(item);
    else groups.push([item]);
  }
  return groups;
}

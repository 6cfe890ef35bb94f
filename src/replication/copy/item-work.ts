/** What is done for one item at one target, once the batch has been planned. Failures are thrown and judged by the caller. */
import { isSlipwayError } from "../../core/errors.ts";
import type { Item } from "../item-store.ts";
import type { ItemReason } from "../plan/item.ts";
import { atTarget } from "./at-side.ts";
import type { Delivered } from "./blob-mover.ts";
import type { Destination, ManifestPusher } from "./manifest-pusher.ts";
import { unwrap } from "./plan/failure.ts";
import { closure } from "./source-graph.ts";
import type { Node } from "./source-graph.ts";
import type { Target } from "./target.ts";

export interface ItemResult {
  readonly status: "Success" | "Skipped" | "Error";
  readonly reason: ItemReason;
  readonly message: string;
  readonly digest: string | null;
}

export interface ItemFigures {
  bytesCopied: number;
  blobsCopied: number;
  blobsMounted: number;
  blobsSkipped: number;
}

export interface CopyJob {
  readonly item: Item;
  readonly to: Destination;
  readonly root: Node;
  readonly pusher: ManifestPusher;
  readonly figures: ItemFigures;
  readonly override: boolean;
  readonly signal: AbortSignal;
}

export async function copyItem(job: CopyJob): Promise<ItemResult> {
  const { item, to, root, pusher, figures } = job;
  const kept = await keptTag(job);
  if (kept !== null && kept !== root.digest) {
    return {
      status: "Skipped",
      reason: "not-overridden",
      message: `the tag is ${kept} there, and the policy overrides nothing`,
      digest: root.digest,
    };
  }
  await pusher.push(to, root, { tag: item.tag, tally: (delivered) => addTo(figures, delivered) });
  return { status: "Success", reason: "copied", message: "", digest: root.digest };
}

/** What the tag is at a target where nothing may be overridden; null when it is free. */
async function keptTag({ item, to, override, signal }: CopyJob): Promise<string | null> {
  if (override || item.tag === null || to.target.isEmpty(to.repository)) return null;
  return await digestAt(to.target, { repository: to.repository, reference: item.tag }, signal);
}

function addTo(figures: ItemFigures, delivered: Delivered): void {
  if (delivered.how === "skipped") figures.blobsSkipped += 1;
  else if (delivered.how === "mounted") figures.blobsMounted += 1;
  else {
    figures.blobsCopied += 1;
    figures.bytesCopied += delivered.size;
  }
}

/** Everything under the item is asked for at the target; nothing is written. */
export async function auditItem(job: Pick<CopyJob, "item" | "to" | "root" | "signal">): Promise<ItemResult> {
  const { item, to, root, signal } = job;
  const { adapter, lanes } = to.target;
  const missing: string[] = [];
  const check = async (what: string, present: () => Promise<boolean>): Promise<void> => {
    if (!(await lanes.small.run(0, present, signal))) missing.push(what);
  };
  const has = async (reference: string): Promise<string | null> =>
    await digestAt(to.target, { repository: to.repository, reference }, signal);
  const nodes = closure(root);
  const blobs = new Map(nodes.flatMap((node) => node.blobs.map((blob) => [blob.digest, blob] as const)));
  await Promise.all([
    ...(item.tag === null ? [] : [check(`tag ${item.tag} as ${root.digest}`, async () => (await has(item.tag ?? "")) === root.digest)]),
    ...nodes.map((node) => check(`manifest ${node.digest}`, async () => (await has(node.digest)) !== null)),
    ...[...blobs.keys()].map((digest) =>
      check(`blob ${digest}`, () => atTarget(adapter, () => adapter.hasBlob(to.repository, digest, signal))),
    ),
  ]);
  if (missing.length === 0) return { status: "Success", reason: "up-to-date", message: "", digest: root.digest };
  const named = missing.toSorted().slice(0, 5).join(", ");
  const message = `missing at the target: ${named}${missing.length > 5 ? ` and ${missing.length - 5} more` : ""}`;
  return { status: "Error", reason: "incomplete-at-target", message, digest: root.digest };
}

/** Null when there is nothing under the reference. */
export async function digestAt(target: Target, at: { repository: string; reference: string }, signal: AbortSignal): Promise<string | null> {
  try {
    return (await atTarget(target.adapter, () => target.adapter.headManifest(at.repository, at.reference, signal))).digest;
  } catch (error) {
    if (isSlipwayError(unwrap(error), "MANIFEST_UNKNOWN", "NAME_UNKNOWN")) return null;
    throw error;
  }
}

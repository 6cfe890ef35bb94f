/** A deletion is carried out only on what was deleted at the source: a tag that was moved at the target since then is somebody's work. */
import { isSlipwayError } from "../../core/errors.ts";
import type { Item } from "../item-store.ts";
import type { ArtifactPage } from "../adapters/adapter.ts";
import { atTarget } from "./at-side.ts";
import { digestAt } from "./item-work.ts";
import type { ItemResult } from "./item-work.ts";
import { unwrap } from "./plan/failure.ts";
import type { Target } from "./target.ts";

export interface DeleteJob {
  readonly item: Item;
  readonly target: Target;
  readonly signal: AbortSignal;
}

/** Tags that are looked through before a manifest is deleted in place of its tag. */
const MAX_TAGS = 1_000;

export async function deleteItem(job: DeleteJob): Promise<ItemResult> {
  const { item, target, signal } = job;
  const { digest: expected, destRepository: repository } = item;
  const reference = item.tag ?? expected;
  if (reference === null) return skipped(item, "diverged", "what was deleted is not known");
  const found = await digestAt(target, { repository, reference }, signal);
  if (found === null) return { ...skipped(item, "already-gone", "it was gone"), status: "Success" };
  if (found !== expected) return skipped(item, "diverged", `it is ${found} there, not what was deleted at the source`);
  if (item.tag !== null && (await deleteTag(job, item.tag))) return deleted(found);
  return await deleteManifest(job, found);
}

/** False when the registry deletes no tags. */
async function deleteTag({ item, target, signal }: DeleteJob, tag: string): Promise<boolean> {
  const { adapter } = target;
  if (!adapter.capabilities.deletesTags) return false;
  try {
    await atTarget(adapter, () => adapter.deleteTag(item.destRepository, tag, signal));
    return true;
  } catch (error) {
    if (isSlipwayError(unwrap(error), "UNSUPPORTED")) return false;
    throw error;
  }
}

async function deleteManifest(job: DeleteJob, digest: string): Promise<ItemResult> {
  const { item, target, signal } = job;
  const { adapter } = target;
  if (!adapter.capabilities.deletesManifests) return { ...refused(item, "the registry deletes neither tags nor manifests") };
  const other = await otherTag(job, digest);
  if (other !== null) return { ...refused(item, `the registry deletes no tags, and the tag ${other} has the same manifest`) };
  await atTarget(adapter, () => adapter.deleteManifest(item.destRepository, digest, signal));
  return deleted(digest);
}

/** A tag besides the item's that has the manifest. */
async function otherTag({ item, target, signal }: DeleteJob, digest: string): Promise<string | null> {
  const { adapter, lanes } = target;
  const repository = item.destRepository;
  let cursor: string | null = null;
  let seen = 0;
  do {
    const at: string | null = cursor;
    const page: ArtifactPage = await atTarget(adapter, () => adapter.listArtifacts(repository, at, signal));
    const tags = page.artifacts.flatMap(({ tag, digest: listed }) => (tag !== null && tag !== item.tag ? [{ tag, listed }] : []));
    seen += tags.length;
    if (seen > MAX_TAGS) return "(more than can be looked through)";
    const same = await Promise.all(
      tags.map(async ({ tag, listed }) => {
        const has = listed ?? (await lanes.small.run(0, () => digestAt(target, { repository, reference: tag }, signal), signal));
        return has === digest ? tag : null;
      }),
    );
    const found = same.find((tag) => tag !== null);
    if (found) return found;
    cursor = page.next;
  } while (cursor !== null);
  return null;
}

function deleted(digest: string): ItemResult {
  return { status: "Success", reason: "deleted", message: "", digest };
}

function skipped(item: Item, reason: ItemResult["reason"], message: string): ItemResult {
  return { status: "Skipped", reason, message, digest: item.digest };
}

function refused(item: Item, message: string): ItemResult {
  return { status: "Error", reason: "refused", message, digest: item.digest };
}

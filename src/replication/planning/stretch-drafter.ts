/** What follows from the verdicts about a stretch: items, what of them is settled at once, and lines for people. Makes projects where something goes. */
import { isSlipwayError } from "../../core/errors.ts";
import type { LogDraft } from "../../execution/log-store.ts";
import type { Artifact } from "../adapters/adapter.ts";
import type { ItemDraft } from "../plan/item.ts";
import type { ArtifactWork, Place, StretchIdentity, WorkItem } from "./plan/drafts.ts";
import type { Verdict } from "./plan/compare.ts";
import { referenceOf } from "./source-pages.ts";
import type { Judged, Seen } from "./sighting.ts";
import { say } from "./step-context.ts";
import type { StepContext } from "./step-context.ts";

export interface DraftedStretch {
  readonly work: readonly ArtifactWork[];
  readonly unchanged: number;
  readonly log: readonly LogDraft[];
}

type Unusable = NonNullable<ItemDraft["settled"]> | "skip";

interface Found {
  readonly verdict: Verdict;
  readonly place: Place;
  readonly unusable: Unusable | undefined;
  readonly present: boolean;
  readonly log: LogDraft[];
}

/** A run that meets thousands of tags which it may not replace says so once for each, up to here. */
const WARNINGS_PER_STRETCH = 20;

export class StretchDrafter {
  readonly #context: StepContext;

  constructor(context: StepContext) {
    this.#context = context;
  }

  async draft(stretch: StretchIdentity, seen: readonly Seen[], judged: readonly Judged[]): Promise<DraftedStretch> {
    const places = seen.map((one) => this.#context.placeOf(one.target, stretch.repository, one.view?.empty ?? false));
    const unchanged = judged.reduce((sum, { verdicts }) => sum + (verdicts ?? []).filter((verdict) => verdict === "unchanged").length, 0);
    const unusable = await this.#prepare(stretch, seen, judged);
    const log: LogDraft[] = [];
    const work = judged.map(({ artifact, verdicts }) => ({
      artifact,
      items: (verdicts ?? []).flatMap((verdict, index): WorkItem[] => {
        const place = places[index];
        const item =
          place && this.#item(artifact, { verdict, place, unusable: unusable.get(index), log, present: isThere(seen[index], artifact) });
        return place && item ? [{ place, item }] : [];
      }),
    }));
    const gone = judged.filter(({ verdicts }) => verdicts === null);
    for (const { artifact } of gone.slice(0, WARNINGS_PER_STRETCH))
      log.push(say(`${stretch.repository}: ${referenceOf(artifact)} is listed by the source, and is not there`, "WARNING"));
    const open = work.filter(({ items }) => items.some(({ item }) => item.settled === undefined)).length;
    if (open > 0) log.push(say(`${stretch.repository}: ${judged.length} artifacts looked at, ${open} to ${stretch.operation}`));
    return { work, unchanged, log };
  }

  #item(artifact: Artifact, found: Found): ItemDraft | null {
    const { verdict, place, unusable, log, present } = found;
    const { kind } = this.#context.options.run;
    const { tag, digest } = artifact;
    if (kind === "audit") return present ? { action: "audit", tag, digest } : null;
    if (verdict === "unchanged") return null;
    const item: ItemDraft = { action: "copy", tag, digest };
    if (verdict === "keep") {
      const message = `${place.repository}:${referenceOf(artifact)} has other content, which the policy does not override`;
      if (log.length < WARNINGS_PER_STRETCH) log.push(say(message, "WARNING"));
      return kind === "dry-run" ? null : { ...item, settled: { status: "Skipped", reason: "not-overridden", message } };
    }
    if (unusable === "skip") return null;
    if (unusable !== undefined) return { ...item, settled: unusable };
    return kind === "dry-run" ? { ...item, settled: { status: "Skipped", reason: "would-copy", message: "" } } : item;
  }

  /** Makes the projects of those destinations that get something; by position in the list, those that cannot be used. */
  async #prepare(stretch: StretchIdentity, seen: readonly Seen[], judged: readonly Judged[]): Promise<Map<number, Unusable>> {
    const unusable = new Map<number, Unusable>();
    if (this.#context.options.run.kind !== "copy") return unusable;
    await Promise.all(
      seen.map(async (one, index) => {
        if (!judged.some(({ verdicts }) => verdicts?.[index] === "copy")) return;
        try {
          const result = await this.#context.prepare(one.target, { source: stretch.repository, destination: one.repository });
          if (result.usable) return;
          await this.#context.note(result.message, result.skip ? "WARNING" : "ERROR");
          unusable.set(index, result.skip ? "skip" : { status: "Error", reason: "refused", message: result.message });
        } catch (error) {
          if (!isSlipwayError(error) || error.code === "CANCELLED") throw error;
          if (error.retryable && one.view !== null) throw error;
          if (!error.retryable) unusable.set(index, { status: "Error", reason: "refused", message: error.message });
        }
      }),
    );
    return unusable;
  }
}

function isThere(seen: Seen | undefined, artifact: Artifact): boolean {
  if (!seen?.view) return true;
  if (artifact.tag !== null) return seen.view.digestOf(artifact.tag) !== undefined;
  return !seen.view.complete || !seen.target.capabilities.listsDigests || seen.view.hasUntagged(artifact.digest ?? "");
}

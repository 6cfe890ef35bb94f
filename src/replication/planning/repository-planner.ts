/** One stretch of a source repository: read, compared with every destination, written down. */
import { createHash } from "node:crypto";
import { isSlipwayError } from "../../core/errors.ts";
import type { SlipwayError } from "../../core/errors.ts";
import type { LogDraft } from "../../execution/log-store.ts";
import type { Artifact } from "../adapters/adapter.ts";
import { attrsOf, draftBatches } from "./plan/drafts.ts";
import type { BatchDraft, StretchIdentity } from "./plan/drafts.ts";
import { attachedToSelected, noticeReferrers } from "./attachments.ts";
import { forecastOf } from "./dry-run.ts";
import { insist } from "./retry.ts";
import { Sighting } from "./sighting.ts";
import { referenceOf } from "./source-pages.ts";
import type { DestinationTags, Judged, Seen } from "./sighting.ts";
import { say } from "./step-context.ts";
import type { StepContext, Target } from "./step-context.ts";
import { StretchDrafter } from "./stretch-drafter.ts";
import { StretchReader } from "./stretch-reader.ts";
import type { ReadStretch } from "./stretch-reader.ts";
import type { OpenStretch, Stretch } from "./stretch-store.ts";

interface Trouble {
  readonly target: Target;
  readonly error: SlipwayError;
}

/** Says of everything that it may be there. */
const ASK_EACH: DestinationTags = { complete: false, empty: false, digestOf: () => null, hasUntagged: () => false };

export class RepositoryPlanner {
  readonly #context: StepContext;
  readonly #reader: StretchReader;
  readonly #drafter: StretchDrafter;

  constructor(context: StepContext) {
    this.#context = context;
    this.#reader = new StretchReader(context);
    this.#drafter = new StretchDrafter(context);
  }

  /** From the beginning, or from where an earlier stretch ended. Null when an earlier try of this step did it already. */
  async plan(repository: string, open: OpenStretch | null): Promise<Stretch | null> {
    const key = stretchKey(repository, open?.next ?? null);
    const { recorded, recorder } = this.#context.options;
    if (recorded.has(key)) return null;
    const follows = open === null ? {} : { follows: open.key };
    const stretch = { ...(await this.#draft({ repository, key }, open?.next ?? null)), ...follows };
    await recorder.record(stretch);
    return stretch;
  }

  /** Artifacts that are not read from a listing: each is asked for at the destinations by itself. `attached` have got something that refers to them. */
  async planGiven(
    identity: { readonly repository: string; readonly key: string },
    artifacts: readonly Artifact[],
    attached: readonly Artifact[] = [],
  ): Promise<void> {
    const { repository, key } = identity;
    const { known, recorder, targets } = this.#context.options;
    const references = [...artifacts, ...attached].map(referenceOf);
    const seen = await Promise.all(
      targets.map(async (target): Promise<Seen> => {
        const place = this.#context.placeOf(target, repository, false);
        const digests = await known.digestsOfTags(place.registryId, place.repository, references);
        return { target, repository: place.repository, view: ASK_EACH, known: digests };
      }),
    );
    const sighting = new Sighting(this.#context, repository, seen);
    const parents = await sighting.judge(attached);
    const judged = [
      ...(await sighting.judge(artifacts)),
      ...parents.map(({ artifact, verdicts }) => ({ artifact, verdicts: this.#withAttached(verdicts) })),
    ];
    const stretch: StretchIdentity = { key, repository, operation: "copy" };
    const drafted = await this.#drafter.draft(stretch, seen, judged);
    const batches = draftBatches(stretch, drafted.work);
    await recorder.record({ key, repository, next: null, batches, unchanged: drafted.unchanged, log: drafted.log });
  }

  /** What is there already is copied once more, for what refers to it; what the newest few leave behind does not come back by its signature. */
  #withAttached(verdicts: Judged["verdicts"]): Judged["verdicts"] {
    const newest = this.#context.options.policy.filters.some(({ type }) => type === "newest");
    return verdicts?.map((verdict) => (verdict === "unchanged" ? "copy" : newest ? "unchanged" : verdict)) ?? null;
  }

  async #draft(identity: { readonly repository: string; readonly key: string }, from: string | null): Promise<Stretch> {
    const { repository, key } = identity;
    let read: ReadStretch;
    try {
      read = await this.#reader.read(repository, from);
    } catch (error) {
      return this.#failed(identity, error);
    }
    const stretch: StretchIdentity = {
      key,
      repository,
      operation: this.#context.options.run.kind === "audit" ? "audit" : "copy",
      ...(from === null && read.next === null ? { referrerTags: read.referrerTags } : {}),
    };
    if (read.selected.length === 0 && (read.attached.length === 0 || (from === null && read.next === null)))
      return { key, repository, next: read.next, batches: [], unchanged: 0, log: this.#nothing(read, repository) };
    const { seen, troubles } = await this.#look(repository, read);
    const judged =
      stretch.operation === "audit"
        ? read.selected.map((artifact) => ({ artifact, verdicts: seen.map(() => "copy" as const) }))
        : await this.#judge(repository, seen, { ...read, whole: from === null && read.next === null });
    const drafted = await this.#drafter.draft(stretch, seen, judged);
    return {
      key,
      repository,
      next: read.next,
      batches: [...draftBatches(stretch, drafted.work), ...troubles.map((trouble) => this.#refused(stretch, trouble))],
      unchanged: drafted.unchanged,
      log: [
        ...drafted.log,
        ...troubles.map(({ target, error }) => say(`${repository} to ${target.adapter.name}: ${error.message}`, "ERROR")),
      ],
      ...(this.#context.options.run.kind === "dry-run" ? { forecast: await forecastOf(this.#context, { repository, seen, judged }) } : {}),
    };
  }

  async #judge(repository: string, seen: readonly Seen[], read: ReadStretch & { readonly whole: boolean }): Promise<Judged[]> {
    const sighting = new Sighting(this.#context, repository, seen);
    const judged = await sighting.judge(read.selected);
    const byTag = read.whole ? null : this.#reader.byTag;
    const attached = await attachedToSelected(this.#context, read.attached, { seen, judged, byTag });
    return [...(await noticeReferrers(this.#context, repository, { seen, judged })), ...(await sighting.judge(attached))];
  }

  /** Reads what the destinations have in the range of the stretch. */
  async #look(repository: string, read: ReadStretch): Promise<{ seen: Seen[]; troubles: Trouble[] }> {
    const looked = [...read.selected, ...read.attached];
    const tags = looked.flatMap(({ tag }) => tag ?? []).toSorted((a, b) => (a < b ? -1 : 1));
    const untagged = read.selected.some(({ tag }) => tag === null);
    const range = { from: tags[0] ?? "", to: tags.at(-1) ?? "" };
    const references = looked.map(referenceOf);
    const found = await Promise.all(
      this.#context.options.targets.map((target) =>
        this.#lookAt(target, { repository, range, untagged, references, more: read.next !== null }),
      ),
    );
    return {
      seen: found.flatMap((one) => ("seen" in one ? [one.seen] : [])),
      troubles: found.flatMap((one) => ("error" in one ? [one] : [])),
    };
  }

  async #lookAt(
    target: Target,
    wanted: {
      readonly repository: string;
      readonly range: { readonly from: string; readonly to: string };
      readonly untagged: boolean;
      readonly references: readonly string[];
      readonly more: boolean;
    },
  ): Promise<{ readonly seen: Seen } | Trouble> {
    const { executionId, views, known, targets } = this.#context.options;
    const { signal } = this.#context;
    const { repository: name, position, registryId } = this.#context.placeOf(target, wanted.repository, false);
    const viewKey = { executionId, position, repository: name };
    const view = views.open(viewKey, target.adapter);
    const { listsDigests } = target.capabilities;
    // Content without a tag stands at the end of a list, if it is listed at all.
    const range = wanted.untagged && listsDigests ? { ...wanted.range, to: null } : wanted.range;
    try {
      const [digests] = await Promise.all([
        listsDigests && !this.#context.tellsReferrers ? new Map<string, never>() : known.digestsOfTags(registryId, name, wanted.references),
        insist(() => view.cover(range, signal), signal),
      ]);
      if (wanted.more) views.keep(viewKey, view);
      else views.drop(viewKey);
      return { seen: { target, repository: name, view, known: digests } };
    } catch (error) {
      if (!isSlipwayError(error) || error.code === "CANCELLED") throw error;
      if (!error.retryable) return { target, error };
      // One destination that is away must not hold the others: its items wait for it instead.
      if (targets.length > 1) return { seen: { target, repository: name, view: null, known: new Map() } };
      throw error;
    }
  }

  /** A repository that cannot be read is a failed task; the others go on. */
  #failed({ repository, key }: { readonly repository: string; readonly key: string }, error: unknown): Stretch {
    if (!isSlipwayError(error) || error.retryable || error.code === "CANCELLED") throw error;
    const { kind } = this.#context.options.run;
    const stretch: StretchIdentity = { key, repository, operation: kind === "audit" ? "audit" : "copy" };
    const batches = this.#context.options.targets.map((target) => this.#refused(stretch, { target, error }));
    return { key, repository, next: null, batches, unchanged: 0, log: [say(`${repository}: ${error.message}`, "ERROR")] };
  }

  #refused(stretch: StretchIdentity, { target, error }: Trouble): BatchDraft {
    const place = this.#context.placeOf(target, stretch.repository, false);
    const attrs = attrsOf(stretch, place, { items: 0, type: "image" });
    const outcome = { status: "Error", message: error.message } as const;
    return { tasks: [{ key: `${stretch.key}!${place.position}`, attrs, items: [], outcome }], weight: 0 };
  }

  #nothing(read: ReadStretch, repository: string): LogDraft[] {
    const named = this.#context.options.filters.names !== null;
    return named && read.listed === 0 && read.next === null ? [say(`${repository}: the source has nothing of this name`, "WARNING")] : [];
  }
}

/** The same stretch has the same key whoever plans it; cursors may be long. */
export function stretchKey(repository: string, cursor: string | null): string {
  return cursor === null ? repository : `${repository}@${createHash("sha256").update(cursor).digest("hex").slice(0, 16)}`;
}

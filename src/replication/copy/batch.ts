/** One batch at work: the source is read, the blobs are planned for all targets, then each item goes its way. Items never throw; they end or wait. */
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { Item, ItemReport, WorkTask } from "../item-store.ts";
import type { BatchRequest } from "../plan/run.ts";
import { atTarget } from "./at-side.ts";
import type { LoadedBatch } from "./batch-load.ts";
import { BlobSources } from "./blob-bytes.ts";
import { BlobMover } from "./blob-mover.ts";
import type { Need } from "./blob-mover.ts";
import { deleteItem } from "./delete-item.ts";
import { auditItem, copyItem } from "./item-work.ts";
import type { ItemFigures, ItemResult } from "./item-work.ts";
import { ManifestPusher } from "./manifest-pusher.ts";
import type { Destination } from "./manifest-pusher.ts";
import { describeItem } from "./plan/describe.ts";
import { isOurs, judge, unwrap } from "./plan/failure.ts";
import type { Judgement } from "./plan/failure.ts";
import { retryDelay } from "./plan/retry.ts";
import type { Reporter } from "./reporter.ts";
import type { CopyServices } from "./services.ts";
import { closure, SourceGraph } from "./source-graph.ts";
import type { Node } from "./source-graph.ts";
import type { Target } from "./target.ts";
import { Uploader } from "./upload.ts";

export interface BatchOptions {
  readonly services: CopyServices;
  readonly request: BatchRequest;
  readonly loaded: LoadedBatch;
  readonly reporter: Reporter;
  readonly signal: AbortSignal;
}

interface Work {
  readonly item: Item;
  readonly task: WorkTask;
  readonly target: Target;
  /** Of copies and audits; rejected when the source cannot give it. */
  readonly root: Promise<Node> | null;
}

export class Batch {
  readonly #options: BatchOptions;
  readonly #graph: SourceGraph;
  readonly #sources: BlobSources;
  readonly #mover: BlobMover;
  readonly #pusher: ManifestPusher;
  readonly #known = new Map<string, ReadonlySet<string>>();
  /** By task: the longest that one of its items asks to wait. */
  readonly again = new Map<number, number>();

  constructor(options: BatchOptions) {
    const { services, request, loaded, reporter, signal } = options;
    const { source, policy, platforms } = loaded;
    const { ledger, finder, lanes, tuning, uploads, chunkless, counters } = services;
    this.#options = options;
    this.#graph = new SourceGraph({ source, lanes: lanes.of(source.host), finder, platforms, signal });
    const { stagingFolder: folder, bootId } = services.options;
    this.#sources = new BlobSources({ source, reads: services.reads, folder, bootId, tuning, signal });
    const uploader = new Uploader({
      governor: services.governor(policy.id),
      uploads,
      chunkless,
      tuning: policy.copyByChunk ? { ...tuning, chunkBytes: Math.min(tuning.chunkBytes, SMALLER_CHUNKS) } : tuning,
      executionId: request.executionId,
      onBytes: (count) => {
        counters.bytes += count;
        reporter.count("bytesCopied", count);
      },
      signal,
    });
    this.#mover = new BlobMover({
      ledger,
      sources: this.#sources,
      uploader,
      onDelivered: ({ how, size }) => {
        counters[how] += 1;
        if (how !== "copied") reporter.count(how === "mounted" ? "bytesMounted" : "bytesSkipped", size);
      },
      signal,
    });
    this.#pusher = new ManifestPusher({ mover: this.#mover, ledger, signal });
  }

  async run(): Promise<void> {
    const work = this.#options.loaded.items.flatMap((item) => this.#begin(item));
    let ours: unknown = null;
    try {
      const usable = await this.#prepared(work);
      await this.#plan(usable);
      await Promise.all(
        usable.map(async (each) => {
          try {
            await this.#work(each);
          } catch (error) {
            ours ??= error;
          }
        }),
      );
    } finally {
      this.#mover.release();
      await this.#sources.close(true);
      await this.#options.services.ledger.flush();
    }
    if (this.#options.signal.aborted) throw new SlipwayError("CANCELLED", { cause: this.#options.signal.reason });
    if (ours !== null) throw ours;
  }

  #begin(item: Item): Work[] {
    const { tasks, targets } = this.#options.loaded;
    const task = tasks.get(item.taskId);
    const target = task && targets.get(task.attrs.target_registry_id);
    if (!task || !target) return [];
    if (target instanceof SlipwayError) {
      this.#end(item, noFigures(), { status: "Error", reason: "failed", message: target.message, digest: item.digest });
      return [];
    }
    const reference = item.tag ?? item.digest;
    const place = { repository: item.srcRepository, referrerTags: task.attrs.referrer_tags };
    const root = item.action === "delete" || reference === null ? null : this.#graph.root(place, reference);
    // It is looked at in its turn; until then nobody listens.
    root?.catch(() => undefined);
    return [{ item, task, target, root }];
  }

  /** Leaves out what may not be written; what must exist first is made. */
  async #prepared(work: readonly Work[]): Promise<Work[]> {
    const { services, request, loaded, signal } = this.#options;
    const ready = await Promise.all(
      work.map(async (each) => {
        const { item, target } = each;
        if (item.action !== "copy") return each;
        const run = async () => {
          const shared = await loaded.source.isPublic(item.srcRepository, signal);
          return await atTarget(target.adapter, () => target.adapter.prepare(item.destRepository, { public: shared }, signal));
        };
        try {
          const prepared = await services.prepare(request.executionId, target.adapter, { repository: item.destRepository, run });
          if (prepared.usable) return each;
          const status = prepared.skip ? ("Skipped" as const) : ("Error" as const);
          this.#end(item, noFigures(), { status, reason: "refused", message: prepared.message, digest: item.digest });
        } catch (error) {
          this.#judge(each, noFigures(), error);
        }
        return null;
      }),
    );
    return ready.filter((each) => each !== null);
  }

  /** One question and one claim for each target, however many items there are. */
  async #plan(work: readonly Work[]): Promise<void> {
    const { reporter } = this.#options;
    const copies = work.filter((each) => each.item.action === "copy");
    const found = await Promise.all(copies.map(async (each) => ({ ...each, node: await each.root?.catch(() => null) })));
    const whole = found.flatMap((each) => (each.node ? [{ ...each, nodes: closure(each.node) }] : []));
    await Promise.all(
      [...Map.groupBy(whole, (each) => each.target)].map(([target, mine]) =>
        this.#noteKnown(
          target,
          mine.map(({ item, nodes }) => ({ repository: item.destRepository, nodes })),
        ),
      ),
    );
    const needs = new Map<string, Need>();
    for (const { item, target, nodes } of whole) {
      const known = this.#knownOf(target, item.destRepository);
      for (const node of nodes) {
        if (known.has(node.digest)) continue;
        for (const blob of node.blobs) {
          const key = `${target.registryId} ${item.destRepository} ${blob.digest}`;
          if (needs.has(key)) continue;
          needs.set(key, { target, repository: item.destRepository, from: item.srcRepository, blob });
          if (item.attempts === 0) reporter.count("bytesTotal", blob.size);
        }
      }
    }
    await this.#mover.plan([...needs.values()]);
  }

  async #noteKnown(target: Target, wanted: readonly { repository: string; nodes: readonly Node[] }[]): Promise<void> {
    const digests = [...new Set(wanted.flatMap(({ nodes }) => nodes.map((node) => node.digest)))];
    const places = await this.#options.services.content.places(target.registryId, digests);
    const known = new Map<string, Set<string>>(wanted.map(({ repository }) => [repository, new Set()]));
    for (const [digest, at] of places) for (const { repository, fresh } of at) if (fresh) known.get(repository)?.add(digest);
    for (const [repository, there] of known) this.#known.set(`${target.registryId} ${repository}`, there);
  }

  #knownOf(target: Target, repository: string): ReadonlySet<string> {
    return this.#known.get(`${target.registryId} ${repository}`) ?? NOTHING;
  }

  async #work(work: Work): Promise<void> {
    const figures = noFigures();
    try {
      this.#end(work.item, figures, await this.#carryOut(work, figures));
    } catch (error) {
      if (isOurs(error) || this.#options.signal.aborted) throw error;
      this.#judge(work, figures, error);
    }
  }

  async #carryOut(work: Work, figures: ItemFigures): Promise<ItemResult> {
    const { item, target, root } = work;
    const { loaded, reporter, services, signal } = this.#options;
    if (item.action === "delete") {
      const result = await deleteItem({ item, target, signal });
      if (result.status === "Success" && item.tag !== null) await services.known.forget(target.registryId, item.destRepository, [item.tag]);
      return result;
    }
    if (root === null) return { status: "Error", reason: "failed", message: "neither a tag nor a digest was planned", digest: null };
    const known = this.#knownOf(target, item.destRepository);
    const to: Destination = { target, repository: item.destRepository, from: item.srcRepository, known };
    if (item.action === "audit") return await auditItem({ item, to, root: await root, signal });
    const node = await root;
    const result = await copyItem({ item, to, root: node, pusher: this.#pusher, figures, override: loaded.policy.override, signal });
    if (result.status === "Success" && item.tag !== null) {
      const referrers = [...node.listed, ...node.companions.map((each) => each.node.digest)];
      reporter.tag(target.registryId, { repository: item.destRepository, tag: item.tag, digest: node.digest, referrers });
    }
    return result;
  }

  #judge(work: Work, figures: ItemFigures, error: unknown): void {
    const { item } = work;
    const { request, services } = this.#options;
    // Nobody foresaw it: the item says little, so the log says all.
    if (isSlipwayError(unwrap(error), "INTERNAL")) {
      services.options.logger.error({ error, executionId: request.executionId, item: item.id }, "an item could not be copied");
    }
    const judgement = judge(error);
    if (judgement.kind !== "again") {
      const status = judgement.kind === "skipped" ? "Skipped" : "Error";
      this.#end(item, figures, { status, reason: judgement.reason, message: judgement.message, digest: item.digest });
      return;
    }
    const delay = this.#delay(judgement);
    if (delay === null) {
      const { reason, message } = judgement;
      this.#end(item, figures, { status: "Error", reason, message: `given up after a long time: ${message}`, digest: item.digest });
      return;
    }
    this.again.set(item.taskId, Math.max(delay, this.again.get(item.taskId) ?? 0));
    this.#report(item, figures, { status: "Pending", reason: judgement.reason, message: judgement.message, digest: item.digest });
    this.#options.reporter.line(item.taskId, "WARNING", `${describeItem(item)} waits to be tried again: ${judgement.message}`);
  }

  #delay(judgement: Extract<Judgement, { kind: "again" }>): number | null {
    const { request, loaded } = this.#options;
    const { trigger, startedAt, createdAt } = loaded.execution;
    const elapsedMs = Date.now() - (startedAt ?? createdAt).getTime();
    const { reason, retryAfterMs } = judgement;
    return retryDelay({ reason, retryAfterMs, round: request.round, trigger, elapsedMs });
  }

  #end(item: Item, figures: ItemFigures, result: ItemResult): void {
    this.#report(item, figures, result);
    const { reporter } = this.#options;
    const level = result.status === "Error" ? "ERROR" : "INFO";
    const blobs = `${figures.blobsCopied} blobs copied (${figures.bytesCopied} bytes), ${figures.blobsMounted} mounted, ${figures.blobsSkipped} there already`;
    const what = result.status === "Error" ? "failed" : result.reason;
    const why = result.message === "" ? "" : `: ${result.message}`;
    reporter.line(item.taskId, level, `${describeItem(item)} ${what}${why}${result.reason === "copied" ? `; ${blobs}` : ""}`);
  }

  #report(
    item: Item,
    figures: ItemFigures,
    result: Pick<ItemResult, "reason" | "message" | "digest"> & { status: ItemReport["status"] },
  ): void {
    this.#options.reporter.item({
      id: item.id,
      ...result,
      bytesCopied: item.bytesCopied + figures.bytesCopied,
      blobsCopied: item.blobsCopied + figures.blobsCopied,
      blobsMounted: item.blobsMounted + figures.blobsMounted,
      blobsSkipped: item.blobsSkipped + figures.blobsSkipped,
      attempts: item.attempts + 1,
    });
  }
}

const NOTHING: ReadonlySet<string> = new Set();
/** Of policies that ask for chunks. */
const SMALLER_CHUNKS = 8 * 1024 * 1024;

function noFigures(): ItemFigures {
  return { bytesCopied: 0, blobsCopied: 0, blobsMounted: 0, blobsSkipped: 0 };
}

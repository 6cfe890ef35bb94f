/**
 * Puts an item's manifests in the order in which nobody sees a part of it: blobs, children, the manifest, what refers to it, the tag last. What several
 * items share is put once.
 */
import { createHash } from "node:crypto";
import { sleep } from "../../core/clock.ts";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import { referrersTag } from "../../oci/digests.ts";
import { mergeReferrers } from "../../oci/referrers-list.ts";
import { MEDIA_TYPES } from "../../oci/media-types.ts";
import type { PutResult } from "../../upstream/types.ts";
import { at, atTarget } from "./at-side.ts";
import type { BlobMover, Delivered, Need } from "./blob-mover.ts";
import type { Ledger } from "./ledger.ts";
import { isImmutable, quickRetryMs, SideError, unwrap } from "./plan/failure.ts";
import type { Node } from "./source-graph.ts";
import type { Target } from "./target.ts";

export interface Destination {
  readonly target: Target;
  readonly repository: string;
  /** Of the source. */
  readonly from: string;
  /** Manifests that the repository is known to have, with all that is under them. */
  readonly known: ReadonlySet<string>;
}

/** What an item's blobs came to; shared ones count for the item that asked first. */
export type Tally = (delivered: Delivered) => void;

export interface PusherOptions {
  readonly mover: BlobMover;
  readonly ledger: Ledger;
  readonly signal: AbortSignal;
}

export class ManifestPusher {
  readonly #options: PusherOptions;
  readonly #puts = new Map<string, Promise<PutResult | null>>();
  readonly #lists = new Map<string, Promise<void>>();

  constructor(options: PusherOptions) {
    this.#options = options;
  }

  /** The whole item. */
  async push(to: Destination, root: Node, item: { readonly tag: string | null; readonly tally: Tally }): Promise<void> {
    const { tag, tally } = item;
    await this.#parts(to, root, tally);
    if (root.referrers.length > 0 || tag === null) await this.#putOnce(to, root, root.digest);
    await this.#attached(to, root, tally);
    if (tag !== null) await this.#putOnce(to, root, tag);
  }

  /** Everything under a manifest, so that it may be put. */
  async #parts(to: Destination, node: Node, tally: Tally): Promise<void> {
    if (to.known.has(node.digest)) return;
    const children = node.children.map(async (child) => {
      await this.#parts(to, child, tally);
      await this.#putOnce(to, child, child.digest);
      await this.#attached(to, child, tally);
    });
    await all([...node.blobs.map((blob) => this.#blob(needOf(to, blob), tally)), ...children]);
  }

  async #blob(need: Need, tally: Tally): Promise<void> {
    const { first, done } = this.#options.mover.ensure(need);
    const delivered = await done;
    tally(first ? delivered : { how: "skipped", size: delivered.size });
  }

  async #attached(to: Destination, node: Node, tally: Tally): Promise<void> {
    await all([
      ...node.referrers.map(async (referrer) => {
        await this.#parts(to, referrer, tally);
        const put = await this.#putOnce(to, referrer, referrer.digest);
        // A target that keeps the list itself says so; for any other we keep it, as clients do.
        if (put !== null && put.subject === null) await this.#list(to, node, referrer);
        await this.#attached(to, referrer, tally);
      }),
      ...node.companions.map(async ({ tag, node: companion }) => {
        await this.#parts(to, companion, tally);
        await this.#putOnce(to, companion, tag);
      }),
    ]);
  }

  /** Null when it was there. */
  #putOnce(to: Destination, node: Node, reference: string): Promise<PutResult | null> {
    if (reference === node.digest && to.known.has(node.digest)) return Promise.resolve(null);
    const key = `${to.target.registryId} ${to.repository} ${reference} ${node.digest}`;
    let put = this.#puts.get(key);
    if (!put) {
      put = this.#put(to, node, reference);
      this.#puts.set(key, put);
    }
    return put;
  }

  async #put(to: Destination, node: Node, reference: string): Promise<PutResult> {
    const { ledger } = this.#options;
    let result: PutResult;
    try {
      result = await this.#send(to, node, reference);
    } catch (error) {
      if (await this.#stands(to, { reference, digest: node.digest }, unwrap(error))) return { digest: node.digest, subject: null };
      if (!isSlipwayError(unwrap(error), "MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN")) throw error;
      await this.#repair(to, node);
      result = await this.#sendRepaired(to, node, reference);
    }
    await this.#verify(to, { reference, digest: node.digest }, result);
    ledger.arrived(to.target.registryId, { digest: node.digest, repository: to.repository }, null);
    return result;
  }

  /** A tag that may not be moved is put once more, with what refers to it, and refused: it is what it should be. */
  async #stands(to: Destination, { reference, digest }: { reference: string; digest: string }, error: unknown): Promise<boolean> {
    if (reference === digest || !isSlipwayError(error) || !isImmutable(error)) return false;
    const { adapter } = to.target;
    const head = await atTarget(adapter, () => adapter.headManifest(to.repository, reference, this.#options.signal)).catch(() => null);
    return head?.digest === digest;
  }

  async #sendRepaired(to: Destination, node: Node, reference: string): Promise<PutResult> {
    try {
      return await this.#send(to, node, reference);
    } catch (error) {
      const sparse = node.children.length < node.outline.children.length;
      if (!sparse || !isSlipwayError(unwrap(error), "MANIFEST_BLOB_UNKNOWN")) throw error;
      const told = new SlipwayError("DENIED", { message: "it takes no index of which only some platforms are there", cause: error });
      throw new SideError({ side: "target", host: to.target.adapter.host }, told);
    }
  }

  async #send(to: Destination, node: Node, reference: string): Promise<PutResult> {
    const { adapter, lanes } = to.target;
    const { signal } = this.#options;
    const { bytes, mediaType, digest } = node;
    const place = { side: "target" as const, host: adapter.host, writesTag: reference !== digest };
    const put = (): Promise<PutResult> => adapter.putManifest(to.repository, { reference, bytes, mediaType, digest }, signal);
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await lanes.small.run(0, () => at(place, put), signal);
      } catch (error) {
        const wait = signal.aborted ? null : quickRetryMs(error, attempt);
        if (wait === null) throw error;
        await sleep(wait, signal);
      }
    }
  }

  /** The target lacks something that was taken to be there: all parts are looked at again, and sent where they are missing. */
  async #repair(to: Destination, node: Node): Promise<void> {
    const { mover, ledger } = this.#options;
    await ledger.forget(
      to.target.registryId,
      to.repository,
      node.children.map((child) => child.digest),
    );
    await all(node.blobs.map((blob) => mover.repair(needOf(to, blob))));
    for (const child of node.children) {
      await all(child.blobs.map((blob) => mover.repair(needOf(to, blob))));
      await this.#send(to, child, child.digest);
    }
  }

  async #verify(to: Destination, put: { reference: string; digest: string }, result: PutResult): Promise<void> {
    const { adapter } = to.target;
    if (adapter.capabilities.confirmsPuts && result.digest === put.digest) return;
    const head = await atTarget(adapter, () => adapter.headManifest(to.repository, put.reference, this.#options.signal));
    if (head.digest === put.digest) return;
    const error = new SlipwayError("DIGEST_MISMATCH", { message: `it has ${head.digest} where ${put.digest} was put` });
    throw new SideError({ side: "target", host: adapter.host }, error);
  }

  /** One writer at a time for each subject: read, add, write. */
  #list(to: Destination, subject: Node, referrer: Node): Promise<void> {
    const key = `${to.target.registryId} ${to.repository} ${subject.digest}`;
    const turn = (this.#lists.get(key) ?? Promise.resolve()).catch(() => undefined).then(() => this.#addToList(to, subject, referrer));
    this.#lists.set(key, turn);
    return turn;
  }

  async #addToList(to: Destination, subject: Node, referrer: Node): Promise<void> {
    const { adapter } = to.target;
    const { signal } = this.#options;
    const tag = referrersTag(subject.digest);
    const before = await atTarget(adapter, () => adapter.getManifest(to.repository, tag, signal)).catch((error: unknown) => {
      if (isSlipwayError(unwrap(error), "MANIFEST_UNKNOWN", "NAME_UNKNOWN")) return null;
      throw error;
    });
    const { artifactType, annotations } = referrer.outline;
    const bytes = mergeReferrers(before?.bytes ?? null, {
      mediaType: referrer.mediaType,
      digest: referrer.digest,
      size: referrer.bytes.length,
      ...(artifactType === null ? {} : { artifactType }),
      ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    });
    if (bytes === null) return;
    const content = Buffer.from(bytes);
    const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
    await atTarget(adapter, () =>
      adapter.putManifest(to.repository, { reference: tag, bytes: content, mediaType: MEDIA_TYPES.ociIndex, digest }, signal),
    );
  }
}

function needOf(to: Destination, blob: Need["blob"]): Need {
  return { target: to.target, repository: to.repository, from: to.from, blob };
}

/** Everything comes to an end before the first failure is told, so that nothing goes on unattended. */
async function all(work: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(work);
  const failed = results.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}

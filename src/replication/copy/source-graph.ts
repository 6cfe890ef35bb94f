/** Everything that belongs to the items of a batch, read from the source: manifests with their bytes, children, referrers. Each once. */
import { SlipwayError } from "../../core/errors.ts";
import type { Descriptor } from "../../upstream/types.ts";
import type { RegistryAdapter } from "../adapters/adapter.ts";
import { atSource } from "./at-side.ts";
import type { HostLanes } from "./lanes.ts";
import { outlineManifest, selectChildren } from "./plan/content.ts";
import type { BlobRef, Outline } from "./plan/content.ts";
import type { ReferrerFinder } from "./referrer-finder.ts";

export interface Node {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Buffer;
  readonly outline: Outline;
  readonly blobs: readonly BlobRef[];
  readonly children: readonly Node[];
  readonly referrers: readonly Node[];
  /** Signatures and the like under tags of their own, which are named after the digest. */
  readonly companions: readonly { readonly tag: string; readonly node: Node }[];
  /** Digests of all that the source says refers to it, of which some may be gone. */
  readonly listed: readonly string[];
}

export interface GraphOptions {
  readonly source: RegistryAdapter;
  readonly lanes: HostLanes;
  readonly finder: ReferrerFinder;
  readonly platforms: readonly string[] | null;
  readonly signal: AbortSignal;
}

interface Place {
  readonly repository: string;
  /** Whether the listing showed tags that hold referrers; undefined when nobody looked. */
  readonly referrerTags: boolean | undefined;
}

/** Of indexes in indexes, and of referrers of referrers. */
const DEEPEST = 5;

export class SourceGraph {
  readonly #options: GraphOptions;
  readonly #nodes = new Map<string, Promise<Node>>();

  constructor(options: GraphOptions) {
    this.#options = options;
  }

  /** By tag or digest. */
  root(place: Place, reference: string): Promise<Node> {
    return this.#node(place, reference, 0);
  }

  #node(place: Place, reference: string, depth: number): Promise<Node> {
    const key = `${place.repository} ${reference}`;
    let node = this.#nodes.get(key);
    if (!node) {
      node = this.#read(place, reference, depth);
      this.#nodes.set(key, node);
    }
    return node;
  }

  async #read(place: Place, reference: string, depth: number): Promise<Node> {
    if (depth > DEEPEST) throw new SlipwayError("MANIFEST_INVALID", { message: "the manifest nests too deep" });
    const { source, lanes, platforms, signal } = this.#options;
    const manifest = await lanes.small.run(
      0,
      () => atSource(source, () => source.getManifest(place.repository, reference, signal)),
      signal,
    );
    const { digest, mediaType, bytes } = manifest;
    const outline = outlineManifest(bytes, mediaType);
    const [children, attached] = await Promise.all([
      Promise.all(selectChildren(outline.children, platforms).map((child) => this.#child(place, child, depth))),
      this.#attached(place, digest, depth),
    ]);
    return { digest, mediaType, bytes, outline, blobs: outline.blobs, children, ...attached };
  }

  async #child(place: Place, child: Descriptor, depth: number): Promise<Node> {
    try {
      return await this.#node(place, child.digest, depth + 1);
    } catch (error) {
      // The item is there; what it needs is not.
      throw partMissing(error, child.digest) ?? error;
    }
  }

  async #attached(place: Place, digest: string, depth: number): Promise<Pick<Node, "referrers" | "companions" | "listed">> {
    if (depth >= DEEPEST) return { referrers: [], companions: [], listed: [] };
    const { source, lanes, finder, signal } = this.#options;
    const ask = { source, lanes, repository: place.repository, digest, tagsShown: place.referrerTags };
    const { descriptors, tags } = await finder.find(ask, signal);
    const [referrers, companions] = await Promise.all([
      Promise.all(descriptors.map((each) => this.#present(this.#node(place, each.digest, depth + 1)))),
      Promise.all(tags.map(async (tag) => ({ tag, node: await this.#present(this.#node(place, tag, depth + 1)) }))),
    ]);
    return {
      referrers: referrers.filter((node) => node !== null),
      listed: descriptors.map((each) => each.digest),
      companions: companions.flatMap(({ tag, node }) => (node ? [{ tag, node }] : [])),
    };
  }

  /** Lists of referrers name what was deleted long ago. */
  async #present(node: Promise<Node>): Promise<Node | null> {
    try {
      return await node;
    } catch (error) {
      if (partMissing(error, "")) return null;
      throw error;
    }
  }
}

function partMissing(error: unknown, digest: string): SlipwayError | null {
  const inner = error instanceof Error && error.cause instanceof SlipwayError ? error.cause : error;
  const missing = inner instanceof SlipwayError && (inner.code === "MANIFEST_UNKNOWN" || inner.code === "NAME_UNKNOWN");
  return missing ? new SlipwayError("BLOB_UNKNOWN", { message: `the source lacks the manifest ${digest} that it names` }) : null;
}

/** The node with everything under it, each digest once; children before what names them. */
export function closure(root: Node): Node[] {
  const seen = new Map<string, Node>();
  const visit = (node: Node): void => {
    if (seen.has(node.digest)) return;
    for (const child of node.children) visit(child);
    seen.set(node.digest, node);
    for (const referrer of node.referrers) visit(referrer);
    for (const { node: companion } of node.companions) visit(companion);
  };
  visit(root);
  return [...seen.values()];
}

/**
 * The tags of a destination repository, read by pages as far as they are asked for. Registries list in order as a rule: then the pages up to the last tag
 * of interest are enough, and what lies before the current stretch can be forgotten. One that does not is read to its end and kept whole.
 */
import type { Artifact, RegistryAdapter } from "../adapters/adapter.ts";
import type { DestinationTags } from "./sighting.ts";

/** Tags before the current stretch are dropped beyond this. */
const KEPT_TAGS = 20_000;

export class TargetView implements DestinationTags {
  readonly complete = true;
  readonly #adapter: Pick<RegistryAdapter, "listArtifacts">;
  readonly #repository: string;
  readonly #tags = new Map<string, string | null>();
  /** Digests of content without a tag, where listing tells them. */
  readonly #untagged = new Set<string>();
  #cursor: string | null = null;
  #begun = false;
  #sorted = true;
  #last = "";
  #reading: Promise<void> = Promise.resolve();
  readonly #seenCursors = new Set<string>();

  constructor(adapter: Pick<RegistryAdapter, "listArtifacts">, repository: string) {
    this.#adapter = adapter;
    this.#repository = repository;
  }

  get size(): number {
    return this.#tags.size + this.#untagged.size;
  }

  /** Nothing at all was found. */
  get empty(): boolean {
    return this.#ended && this.#last === "" && this.#untagged.size === 0;
  }

  get #ended(): boolean {
    return this.#begun && this.#cursor === null;
  }

  /** Reads until every tag between the two is known; to the end for `to` null. */
  cover(range: { readonly from: string; readonly to: string | null }, signal: AbortSignal): Promise<void> {
    const mine = this.#reading.then(() => this.#read(range, signal));
    this.#reading = mine.catch(() => undefined);
    return mine;
  }

  /** Undefined: not there. Null: there, and its digest is not known. */
  digestOf(tag: string): string | null | undefined {
    return this.#tags.get(tag);
  }

  hasUntagged(digest: string): boolean {
    return this.#untagged.has(digest);
  }

  tags(): IterableIterator<[string, string | null]> {
    return this.#tags.entries();
  }

  async #read({ from, to }: { readonly from: string; readonly to: string | null }, signal: AbortSignal): Promise<void> {
    if (this.#sorted && to !== null && this.#tags.size > KEPT_TAGS) this.#forgetBefore(from);
    while (!this.#ended && !(this.#begun && this.#sorted && to !== null && this.#last >= to)) {
      const page = await this.#adapter.listArtifacts(this.#repository, this.#cursor, signal);
      this.#begun = true;
      // A registry that pages in a circle has told all it has.
      this.#cursor = page.next !== null && this.#seenCursors.has(page.next) ? null : page.next;
      if (page.next !== null) this.#seenCursors.add(page.next);
      for (const artifact of page.artifacts) this.#take(artifact);
    }
  }

  #take({ tag, digest }: Artifact): void {
    if (tag === null) {
      if (digest !== null) this.#untagged.add(digest);
      return;
    }
    if (tag < this.#last) this.#sorted = false;
    else this.#last = tag;
    this.#tags.set(tag, digest);
  }

  #forgetBefore(from: string): void {
    for (const tag of this.#tags.keys()) {
      if (tag >= from) break;
      this.#tags.delete(tag);
    }
  }
}

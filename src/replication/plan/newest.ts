/** The newest artifacts of a repository, kept while its list goes by: no more of them in memory than are wanted. */
import type { SemVer } from "semver";
import type { Artifact } from "../adapters/adapter.ts";
import type { ArtifactSelector } from "./filters.ts";
import { compareVersions, readVersion } from "./patterns.ts";
import type { PolicyFilter } from "./policy.ts";

interface Entry {
  readonly artifact: Artifact;
  /** Read once; null where times count. */
  readonly version: SemVer | null;
}

/** Tags compete, each by itself; content without a tag, and by version what is none, stays out. Several filters: what all of them keep. */
export function keepNewest(filters: readonly PolicyFilter[], isSelected: (artifact: Artifact) => boolean): ArtifactSelector {
  const tops = filters.map((filter) => new Top(Number(filter.value), filter.kind === "semver"));
  return {
    offer: (artifacts) => {
      for (const artifact of artifacts) {
        if (artifact.tag !== null && isSelected(artifact)) for (const top of tops) top.add(artifact);
      }
      return [];
    },
    finish: () => {
      const [first, ...others] = tops.map((top) => top.sorted());
      return first?.filter((artifact) => others.every((list) => list.includes(artifact))) ?? [];
    },
  };
}

/** A heap whose root is the first to go. */
class Top {
  readonly #limit: number;
  readonly #byVersion: boolean;
  readonly #heap: Entry[] = [];

  constructor(limit: number, byVersion: boolean) {
    this.#limit = limit;
    this.#byVersion = byVersion;
  }

  add(artifact: Artifact): void {
    const version = this.#byVersion ? readVersion(artifact.tag ?? "") : null;
    if (this.#byVersion && version === null) return;
    const entry: Entry = { artifact, version };
    const heap = this.#heap;
    if (heap.length < this.#limit) {
      heap.push(entry);
      this.#rise(heap.length - 1);
    } else if (heap[0] !== undefined && compare(entry, heap[0]) > 0) {
      heap[0] = entry;
      this.#sink(0);
    }
  }

  /** The newest first. */
  sorted(): Artifact[] {
    return this.#heap.toSorted((one, other) => compare(other, one)).map(({ artifact }) => artifact);
  }

  #rise(start: number): void {
    for (let index = start; index > 0;) {
      const parent = (index - 1) >> 1;
      if (this.#order(index, parent) >= 0) return;
      this.#swap(index, parent);
      index = parent;
    }
  }

  #sink(start: number): void {
    for (let index = start; ;) {
      const left = 2 * index + 1;
      if (left >= this.#heap.length) return;
      const smaller = left + 1 < this.#heap.length && this.#order(left + 1, left) < 0 ? left + 1 : left;
      if (this.#order(index, smaller) <= 0) return;
      this.#swap(index, smaller);
      index = smaller;
    }
  }

  #order(one: number, other: number): number {
    return compare(this.#heap[one] as Entry, this.#heap[other] as Entry);
  }

  #swap(one: number, other: number): void {
    [this.#heap[one], this.#heap[other]] = [this.#heap[other] as Entry, this.#heap[one] as Entry];
  }
}

/** What has no time is the oldest; names decide among equals, so that every run keeps the same. */
function compare(one: Entry, other: Entry): number {
  const order =
    one.version !== null && other.version !== null
      ? compareVersions(one.version, other.version)
      : (one.artifact.pushedAt?.getTime() ?? 0) - (other.artifact.pushedAt?.getTime() ?? 0);
  return order || compareTexts(one.artifact.tag ?? "", other.artifact.tag ?? "");
}

function compareTexts(one: string, other: string): number {
  return one === other ? 0 : one < other ? -1 : 1;
}

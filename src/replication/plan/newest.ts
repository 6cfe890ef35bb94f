/** The newest artifacts of a repository, kept while its list goes by: no more of them in memory than are wanted. */
import type { Artifact } from "../adapters/adapter.ts";
import type { ArtifactSelector } from "./filters.ts";
import { compareVersions, readVersion } from "./patterns.ts";
import type { PolicyFilter } from "./policy.ts";

type Compare = (one: Artifact, other: Artifact) => number;

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
  readonly #compare: Compare;
  readonly #heap: Artifact[] = [];

  constructor(limit: number, byVersion: boolean) {
    this.#limit = limit;
    this.#byVersion = byVersion;
    this.#compare = byVersion ? compareByVersion : compareByTime;
  }

  add(artifact: Artifact): void {
    if (this.#byVersion && readVersion(artifact.tag ?? "") === null) return;
    const heap = this.#heap;
    if (heap.length < this.#limit) {
      heap.push(artifact);
      this.#rise(heap.length - 1);
    } else if (heap[0] !== undefined && this.#compare(artifact, heap[0]) > 0) {
      heap[0] = artifact;
      this.#sink(0);
    }
  }

  /** The newest first. */
  sorted(): Artifact[] {
    return this.#heap.toSorted((one, other) => this.#compare(other, one));
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
    return this.#compare(this.#heap[one] as Artifact, this.#heap[other] as Artifact);
  }

  #swap(one: number, other: number): void {
    [this.#heap[one], this.#heap[other]] = [this.#heap[other] as Artifact, this.#heap[one] as Artifact];
  }
}

/** What has no time is the oldest; names decide among equals, so that every run keeps the same. */
function compareByTime(one: Artifact, other: Artifact): number {
  return (one.pushedAt?.getTime() ?? 0) - (other.pushedAt?.getTime() ?? 0) || compareTexts(one.tag ?? "", other.tag ?? "");
}

function compareByVersion(one: Artifact, other: Artifact): number {
  const [first, second] = [readVersion(one.tag ?? ""), readVersion(other.tag ?? "")];
  return (first && second ? compareVersions(first, second) : 0) || compareTexts(one.tag ?? "", other.tag ?? "");
}

function compareTexts(one: string, other: string): number {
  return one === other ? 0 : one < other ? -1 : 1;
}

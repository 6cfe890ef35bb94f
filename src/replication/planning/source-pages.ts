/**
 * Pages of source listings that are larger than a stretch, kept until all of them is planned. Some registries list a repository in one page however
 * long it is; asking for it again with every stretch would cost as much as the stretch.
 */
import { LRUCache } from "lru-cache";
import type { Artifact, ArtifactPage } from "../adapters/adapter.ts";

export interface PageKey {
  readonly executionId: number;
  readonly repository: string;
  readonly cursor: string | null;
}

const KEPT_ARTIFACTS = 300_000;
const KEPT_MS = 60_000;

export class SourcePages {
  readonly #kept = new LRUCache<string, ArtifactPage>({
    maxSize: KEPT_ARTIFACTS,
    sizeCalculation: ({ artifacts }) => Math.max(1, artifacts.length),
    ttl: KEPT_MS,
    updateAgeOnGet: true,
  });

  find(key: PageKey): ArtifactPage | undefined {
    return this.#kept.get(nameOf(key));
  }

  keep(key: PageKey, page: ArtifactPage): void {
    this.#kept.set(nameOf(key), page);
  }

  drop(key: PageKey): void {
    this.#kept.delete(nameOf(key));
  }
}

function nameOf({ executionId, repository, cursor }: PageKey): string {
  return JSON.stringify([executionId, repository, cursor]);
}

/** Under which name an artifact is asked for and remembered. */
export function referenceOf(artifact: Pick<Artifact, "tag" | "digest">): string {
  return artifact.tag ?? artifact.digest ?? "";
}

/** Views of destination repositories, kept from one step to the next, so that a long listing is not read anew for each part of it. */
import { LRUCache } from "lru-cache";
import type { RegistryAdapter } from "../adapters/adapter.ts";
import { TargetView } from "./target-view.ts";

export interface ViewKey {
  readonly executionId: number;
  readonly position: number;
  readonly repository: string;
}

const KEPT_TAGS = 300_000;
const KEPT_MS = 60_000;

export class Views {
  readonly #kept = new LRUCache<string, { readonly view: TargetView; readonly size: number }>({
    maxSize: KEPT_TAGS,
    sizeCalculation: ({ size }) => Math.max(1, size),
    ttl: KEPT_MS,
  });

  open(key: ViewKey, adapter: Pick<RegistryAdapter, "listArtifacts">): TargetView {
    const known = this.#kept.get(nameOf(key))?.view;
    return known ?? new TargetView(adapter, key.repository);
  }

  /** For the stretch that follows. */
  keep(key: ViewKey, view: TargetView): void {
    this.#kept.set(nameOf(key), { view, size: view.size });
  }

  drop(key: ViewKey): void {
    this.#kept.delete(nameOf(key));
  }
}

function nameOf({ executionId, position, repository }: ViewKey): string {
  return JSON.stringify([executionId, position, repository]);
}

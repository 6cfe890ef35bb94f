/**
 * Counts invalidations by scope. Whoever fills a cache notes the counts before it reads and stores only when they are the same afterwards;
 * an entry is good as long as they stay so. Invalidating is one increment, however many entries a scope has.
 */
import { LRUCache } from "lru-cache";

/** One name of something that can change. Entries hold the object itself, so that checking one needs no lookup. */
export interface Scope {
  generation: number;
}

/** What was valid at one moment. */
export interface Ticket {
  readonly scopes: readonly Scope[];
  /** Counts only grow: an equal sum means that each is the same. */
  readonly sum: number;
  readonly epoch: number;
}

const MAX_SCOPES = 100_000;

export class Generations {
  readonly #scopes: LRUCache<string, Scope>;
  #epoch = 0;

  constructor(maxScopes = MAX_SCOPES) {
    this.#scopes = new LRUCache<string, Scope>({
      max: maxScopes,
      // A later invalidation would not find a forgotten scope: what depends on it ends now. NaN equals no sum.
      dispose: (scope) => {
        scope.generation = Number.NaN;
      },
    });
  }

  ticket(names: string | readonly string[]): Ticket {
    const scopes = typeof names === "string" ? [this.#scope(names)] : names.map((name) => this.#scope(name));
    return { scopes, sum: sumOf(scopes), epoch: this.#epoch };
  }

  isCurrent(ticket: Ticket): boolean {
    return ticket.epoch === this.#epoch && sumOf(ticket.scopes) === ticket.sum;
  }

  bump(name: string): void {
    const scope = this.#scopes.get(name);
    // What nobody has asked for has no entries.
    if (scope) scope.generation += 1;
  }

  /** Everything from before is outdated. */
  bumpAll(): void {
    this.#epoch += 1;
  }

  get size(): number {
    return this.#scopes.size;
  }

  #scope(name: string): Scope {
    let scope = this.#scopes.get(name);
    if (!scope) {
      scope = { generation: 0 };
      this.#scopes.set(name, scope);
    }
    return scope;
  }
}

function sumOf(scopes: readonly Scope[]): number {
  let sum = 0;
  for (let index = 0; index < scopes.length; index += 1) sum += (scopes[index] as Scope).generation;
  return sum;
}

/**
 * Listing of products that keep repositories in projects: pages of projects, and pages of repositories in each. The cursor is text that may be
 * kept; the page of projects that is being walked is remembered, so that it is asked for once.
 */
import { z } from "zod";
import { SlipwayError } from "../../core/errors.ts";
import type { RepositoryPage, RepositoryQuery } from "./adapter.ts";

export interface NamePage {
  readonly names: readonly string[];
  readonly next: string | null;
}

export interface NestedSource {
  projects(cursor: string | null, signal: AbortSignal): Promise<NamePage>;
  repositories(project: string, cursor: string | null, signal: AbortSignal): Promise<NamePage>;
}

const Cursor = z.object({
  /** Page of projects; null is the first. */
  p: z.string().nullable(),
  /** Position on it. */
  i: z.number().int().nonnegative(),
  /** Page of repositories of that project. */
  r: z.string().nullable(),
});
type Cursor = z.infer<typeof Cursor>;

/** Projects without repositories must not become pages of nothing, nor one call an endless one. */
const PROJECTS_PER_PAGE = 50;

export class NestedListing {
  readonly #source: NestedSource;
  #known: { readonly cursor: string | null; readonly page: NamePage } | null = null;

  constructor(source: NestedSource) {
    this.#source = source;
  }

  async page(cursor: string | null, signal: AbortSignal): Promise<RepositoryPage> {
    let at: Cursor | null = parse(cursor);
    for (let looked = 0; at !== null; looked += 1) {
      const projects = await this.#projects(at.p, signal);
      const project = projects.names[at.i];
      if (project === undefined) {
        at = projects.next === null || projects.next === at.p ? null : { p: projects.next, i: 0, r: null };
        continue;
      }
      const found = await this.#source.repositories(project, at.r, signal);
      at = found.next === null || found.next === at.r ? { ...at, i: at.i + 1, r: null } : { ...at, r: found.next };
      if (found.names.length > 0 || looked >= PROJECTS_PER_PAGE) return { repositories: found.names, next: JSON.stringify(at) };
    }
    return { repositories: [], next: null };
  }

  async #projects(cursor: string | null, signal: AbortSignal): Promise<NamePage> {
    if (this.#known?.cursor === cursor) return this.#known.page;
    const page = await this.#source.projects(cursor, signal);
    this.#known = { cursor, page };
    return page;
  }
}

/** For an adapter: a walk for each set of namespaces, which goes on where it was. */
export function walkProjects(
  sourceOf: (namespaces: readonly string[] | null) => NestedSource,
): (query: RepositoryQuery, cursor: string | null, signal: AbortSignal) => Promise<RepositoryPage> {
  const walks = new Map<string, NestedListing>();
  return async ({ namespaces }, cursor, signal) => {
    const key = JSON.stringify(namespaces);
    let walk = walks.get(key);
    if (!walk) walks.set(key, (walk = new NestedListing(sourceOf(namespaces))));
    return await walk.page(cursor, signal);
  };
}

/** One page of names that are known already. */
export function namesPage(names: readonly string[]): NamePage {
  return { names, next: null };
}

function parse(cursor: string | null): Cursor {
  if (cursor === null) return { p: null, i: 0, r: null };
  try {
    return Cursor.parse(JSON.parse(cursor));
  } catch (cause) {
    throw new SlipwayError("BAD_REQUEST", { message: "not a page cursor", cause });
  }
}

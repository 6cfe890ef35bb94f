/**
 * GitLab: its registry lists nothing to users, its API does. The API is where the registry sends clients for a token; the personal access token that is
 * the registry's password opens it too.
 */
import { z } from "zod";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { UpstreamClient } from "../../upstream/client.ts";
import { walkProjects } from "./nested-listing.ts";
import type { NamePage, NestedSource } from "./nested-listing.ts";
import type { ProductBuilder, ProductInput } from "./product.ts";
import { calling } from "./remote-adapter.ts";

const PAGE = 100;

const Projects = z.array(z.object({ id: z.number() }));
const Repositories = z.array(z.object({ path: z.string() }));

export const gitlab: ProductBuilder = (input) => {
  const api = new GitlabApi(input);
  return {
    endpoint: input.endpoint,
    hooks: {
      capabilities: { minPathElements: 2 },
      listRepositories: walkProjects((namespaces) => api.source(namespaces)),
    },
  };
};

class GitlabApi {
  readonly #input: ProductInput;
  #client: Promise<UpstreamClient> | null = null;

  constructor(input: ProductInput) {
    this.#input = input;
  }

  /** The projects of groups or users, or all that the token's owner is a member of; each by its number. */
  source(namespaces: readonly string[] | null): NestedSource {
    const owners = namespaces?.map((name) => encodeURIComponent(name)) ?? null;
    return {
      projects: (cursor, signal) =>
        owners === null ? this.#projects("projects?membership=true", cursor, signal) : this.#owned(owners, cursor, signal),
      repositories: async (project, cursor, signal) => {
        const { document, next } = await this.#page(Repositories, `projects/${project}/registry/repositories?`, cursor, signal);
        return { names: (document ?? []).map(({ path }) => path), next };
      },
    };
  }

  /** One namespace after the other: the cursor is its position and the page of its projects. */
  async #owned(owners: readonly string[], cursor: string | null, signal: AbortSignal): Promise<NamePage> {
    const [position = 0, page = 1] = cursor === null ? [] : cursor.split("/").map(Number);
    const owner = owners[position];
    if (owner === undefined) return { names: [], next: null };
    const at = page === 1 ? null : String(page);
    const group = await this.#page(Projects, `groups/${owner}/projects?include_subgroups=true`, at, signal);
    const found = group.document === null ? await this.#page(Projects, `users/${owner}/projects?`, at, signal) : group;
    const next = found.next === null ? (position + 1 < owners.length ? `${position + 1}/1` : null) : `${position}/${found.next}`;
    return { names: (found.document ?? []).map(({ id }) => String(id)), next };
  }

  async #projects(path: string, cursor: string | null, signal: AbortSignal): Promise<NamePage> {
    const { document, next } = await this.#page(Projects, path, cursor, signal);
    return { names: (document ?? []).map(({ id }) => String(id)), next };
  }

  /** Null when there is no such thing, or none that we may see. */
  async #page<T>(
    schema: z.ZodType<T>,
    path: string,
    cursor: string | null,
    signal: AbortSignal,
  ): Promise<{ document: T | null; next: string | null }> {
    const page = cursor === null ? 1 : Number(cursor);
    try {
      const client = await this.#open(signal);
      const answer = await client.api({
        method: "GET",
        path: `/api/v4/${path}${path.endsWith("?") ? "" : "&"}simple=true&per_page=${PAGE}&page=${page}`,
        ...calling(signal),
      });
      const parsed = schema.safeParse(answer.json);
      if (!parsed.success) throw new SlipwayError("UPSTREAM_INVALID", { detail: { status: answer.status, reason: "API" } });
      const more = answer.header("x-next-page") ?? "";
      return { document: parsed.data, next: /^\d+$/.test(more) ? more : answer.next === null ? null : String(page + 1) };
    } catch (error) {
      if (isSlipwayError(error, "NOT_FOUND")) return { document: null, next: null };
      throw error;
    }
  }

  async #open(signal: AbortSignal): Promise<UpstreamClient> {
    this.#client ??= this.#connect(signal);
    try {
      return await this.#client;
    } catch (error) {
      this.#client = null;
      throw error;
    }
  }

  async #connect(signal: AbortSignal): Promise<UpstreamClient> {
    const { registry, endpoint, pool } = this.#input;
    const origin = (await pool.client(endpoint).tokenOrigin(calling(signal))) ?? new URL(registry.url).origin;
    const credential = registry.accessSecret === "" ? null : ({ type: "bearer", token: registry.accessSecret } as const);
    return pool.client({ ...endpoint, urls: [origin], credential });
  }
}

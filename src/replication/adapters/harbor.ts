/**
 * Harbor, by its API: projects and their repositories, artifacts with digests, labels and tags, creation of projects, deletion of a tag. Accessories
 * come with the referrers of their artifacts.
 */
import { z } from "zod";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { UpstreamClient } from "../../upstream/client.ts";
import type { ApiAnswer } from "../../upstream/types.ts";
import type { Artifact, ArtifactPage, PrepareResult } from "./adapter.ts";
import type { NamePage } from "./nested-listing.ts";
import { namesPage, walkProjects } from "./nested-listing.ts";
import type { ProductBuilder } from "./product.ts";
import { calling, isThere } from "./remote-adapter.ts";
import type { ProductHooks } from "./remote-adapter.ts";

const API = "/api/v2.0";
const PAGE = 100;

const Project = z.object({
  name: z.string(),
  metadata: z.object({ public: z.union([z.string(), z.boolean()]).optional() }).nullish(),
  registry_id: z.number().nullish(),
});
type Project = z.infer<typeof Project>;

const HarborArtifact = z.object({
  digest: z.string(),
  manifest_media_type: z.string().nullish(),
  artifact_type: z.string().nullish(),
  push_time: z.string().nullish(),
  labels: z.array(z.object({ name: z.string() })).nullish(),
  accessories: z.array(z.object({ digest: z.string(), subject_artifact_digest: z.string().nullish() })).nullish(),
  tags: z.array(z.object({ name: z.string(), push_time: z.string().nullish() })).nullish(),
});
type HarborArtifact = z.infer<typeof HarborArtifact>;

export const harbor: ProductBuilder = ({ endpoint, pool }) => ({ endpoint, hooks: harborHooks(pool.client(endpoint)) });

function harborHooks(client: UpstreamClient): ProductHooks {
  const api = new HarborApi(client);
  return {
    capabilities: { listsDigests: true, listsTimes: true, listsLabels: true, deletesTags: true, minPathElements: 2 },
    listRepositories: walkProjects((namespaces) => ({
      projects: (cursor, signal) => (namespaces === null ? api.projects(cursor, signal) : Promise.resolve(namesPage(namespaces))),
      repositories: (project, cursor, signal) => api.repositories(project, cursor, signal),
    })),
    listArtifacts: (repository, cursor, signal) => api.artifacts(repository, cursor, signal),
    prepare: (repository, options, signal) => api.prepare(repository, options.public ?? false, signal),
    isPublic: async (repository, signal) => {
      const project = await api.findProject(projectOf(repository), signal);
      return project === null ? null : String(project.metadata?.public) === "true";
    },
    deleteTag: (repository, tag, signal) => api.deleteTag(repository, tag, signal),
  };
}

class HarborApi {
  readonly #client: UpstreamClient;

  constructor(client: UpstreamClient) {
    this.#client = client;
  }

  async projects(cursor: string | null, signal: AbortSignal): Promise<NamePage> {
    const { rows, next } = await this.#page(`${API}/projects?with_detail=false&sort=name`, cursor, signal);
    return { names: rows.flatMap((row) => Project.safeParse(row).data?.name ?? []), next };
  }

  async repositories(project: string, cursor: string | null, signal: AbortSignal): Promise<NamePage> {
    const { rows, next } = await this.#page(`${API}/projects/${encodeURIComponent(project)}/repositories?sort=name`, cursor, signal);
    return { names: rows.flatMap((row) => z.object({ name: z.string() }).safeParse(row).data?.name ?? []), next };
  }

  async artifacts(repository: string, cursor: string | null, signal: AbortSignal): Promise<ArtifactPage> {
    const path = `${artifactsPath(repository)}?with_tag=true&with_label=true&with_accessory=true`;
    const { rows, next } = await this.#page(path, cursor, signal);
    return { artifacts: rows.flatMap((row) => flatten(HarborArtifact.safeParse(row).data)), next };
  }

  /** Null when there is none, or none that we may see. */
  async findProject(name: string, signal: AbortSignal): Promise<Project | null> {
    const answer = await this.#client.api({
      method: "GET",
      path: `${API}/projects?${new URLSearchParams({ name, page_size: String(PAGE) })}`,
      pass: [401, 403, 404],
      ...calling(signal),
    });
    return (
      rowsOf(answer)
        .flatMap((row) => Project.safeParse(row).data ?? [])
        .find((project) => project.name === name) ?? null
    );
  }

  async prepare(repository: string, isPublic: boolean, signal: AbortSignal): Promise<PrepareResult> {
    const name = projectOf(repository);
    const project = await this.findProject(name, signal);
    if ((project?.registry_id ?? 0) > 0)
      return { usable: false, skip: true, message: `project ${name} of the destination is a proxy cache, which takes no pushes` };
    if (project) return { usable: true };
    const answer = await this.#client.api({
      method: "POST",
      path: `${API}/projects`,
      body: { project_name: name, metadata: { public: String(isPublic) } },
      // There already; or we may push there without the right to see or make projects, which the first push will show.
      pass: [401, 403, 409],
      ...calling(signal),
    });
    return answer.status === 400 ? { usable: false, skip: false, message: `project ${name} could not be made` } : { usable: true };
  }

  async deleteTag(repository: string, tag: string, signal: AbortSignal): Promise<boolean> {
    const name = encodeURIComponent(tag);
    const path = `${artifactsPath(repository)}/${name}/tags/${name}`;
    return await isThere(this.#client.api({ method: "DELETE", path, ...calling(signal) }), "NOT_FOUND");
  }

  /** Pages by number; an absent project or repository is an empty page. */
  async #page(path: string, cursor: string | null, signal: AbortSignal): Promise<{ rows: unknown[]; next: string | null }> {
    const page = cursor === null ? 1 : Number(cursor);
    try {
      const answer = await this.#client.api({ method: "GET", path: `${path}&page=${page}&page_size=${PAGE}`, ...calling(signal) });
      const rows = rowsOf(answer);
      return { rows, next: answer.next !== null && rows.length > 0 ? String(page + 1) : null };
    } catch (error) {
      if (isSlipwayError(error, "NOT_FOUND")) return { rows: [], next: null };
      throw error;
    }
  }
}

function rowsOf(answer: ApiAnswer): unknown[] {
  if (answer.status >= 400) return [];
  if (Array.isArray(answer.json)) return answer.json;
  if (answer.json === null && answer.status === 200) return [];
  throw new SlipwayError("UPSTREAM_INVALID", { detail: { status: answer.status, reason: "API" } });
}

/** Each tag by itself; what has none goes by digest. */
function flatten(artifact: HarborArtifact | undefined): Artifact[] {
  if (!artifact) return [];
  const shared = {
    digest: artifact.digest,
    mediaType: artifact.manifest_media_type ?? null,
    artifactType: artifact.artifact_type ?? null,
    labels: (artifact.labels ?? []).map((label) => label.name),
    referrers: (artifact.accessories ?? [])
      .filter((each) => (each.subject_artifact_digest ?? artifact.digest) === artifact.digest)
      .map((each) => each.digest),
  };
  const tags = artifact.tags ?? [];
  if (tags.length === 0) return [{ ...shared, tag: null, pushedAt: dateOf(artifact.push_time) }];
  return tags.map((tag) => ({ ...shared, tag: tag.name, pushedAt: dateOf(tag.push_time ?? artifact.push_time) }));
}

function dateOf(text: string | null | undefined): Date | null {
  const time = text ? Date.parse(text) : Number.NaN;
  return Number.isNaN(time) ? null : new Date(time);
}

function projectOf(repository: string): string {
  return repository.split("/")[0] ?? repository;
}

/** Harbor reads the name in the path decoded twice. */
function artifactsPath(repository: string): string {
  const slash = repository.indexOf("/");
  const [project, path] = slash === -1 ? [repository, repository] : [repository.slice(0, slash), repository.slice(slash + 1)];
  return `${API}/projects/${encodeURIComponent(project)}/repositories/${encodeURIComponent(encodeURIComponent(path))}/artifacts`;
}

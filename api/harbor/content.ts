/** /repositories and /projects/{project}/repositories: what projects hold, as Harbor lists it. Other Harbors read it to replicate from here. */
import { Router } from "express";
import type { Request } from "express";
import { ARTIFACT_LIST_KEYS, REPOSITORY_LIST_KEYS } from "../../src/auth/content-list.ts";
import type { ListedArtifact } from "../../src/auth/content-list.ts";
import type { Right } from "../../src/auth/roles.ts";
import { SlipwayError } from "../../src/core/errors.ts";
import { callerOf, requireProject } from "./access.ts";
import { describeArtifact, describeRepository } from "./content-mapping.ts";
import { readQueryBoolean } from "./conventions.ts";
import { readListQuery, setListHeaders } from "./list-params.ts";
import { visibilityOf } from "./projects.ts";
import type { HarborServices } from "./services.ts";

const REPOSITORIES = "/projects/:project/repositories";
const ARTIFACTS = `${REPOSITORIES}/:repository/artifacts`;

export function createContentRouter(services: HarborServices): Router {
  const router = Router();
  addRepositories(router, services);
  addArtifacts(router, services);
  return router;
}

function addRepositories(router: Router, services: HarborServices): void {
  router.get("/repositories", async (request, response) => {
    const query = readListQuery(request, REPOSITORY_LIST_KEYS);
    const { rows, total } = await services.content.list.repositories({ visibility: visibilityOf(services, callerOf(request)) }, query);
    setListHeaders(request, response, { total, ...query });
    response.json(rows.map(describeRepository));
  });
  router.get(REPOSITORIES, async (request, response) => {
    const project = await requireProject(services, request, "repository:list");
    const query = readListQuery(request, REPOSITORY_LIST_KEYS);
    const { rows, total } = await services.content.list.repositories({ projectId: project.id }, query);
    setListHeaders(request, response, { total, ...query });
    response.json(rows.map(describeRepository));
  });
}

function addArtifacts(router: Router, services: HarborServices): void {
  router.get(ARTIFACTS, async (request, response) => {
    const repository = await requireRepository(services, request, "artifact:list");
    const query = readListQuery(request, ARTIFACT_LIST_KEYS);
    const { rows, total } = await services.content.list.artifacts(repository, query);
    const shown = whatToShow(request);
    setListHeaders(request, response, { total, ...query });
    response.json(rows.map((artifact) => describeArtifact(artifact, shown)));
  });
  router.get(`${ARTIFACTS}/:reference`, async (request, response) => {
    const repository = await requireRepository(services, request, "artifact:read");
    response.json(describeArtifact(await requireArtifact(services, request, repository), whatToShow(request)));
  });
  router.delete(`${ARTIFACTS}/:reference/tags/:tag`, async (request, response) => {
    const repository = await requireRepository(services, request, "tag:delete");
    const artifact = await requireArtifact(services, request, repository);
    const tag = String(request.params["tag"]);
    const gone = artifact.tags.some(({ name }) => name === tag) && (await services.content.deleteTag(repository, tag, callerOf(request)));
    if (!gone) throw new SlipwayError("NOT_FOUND", { message: `tag ${tag} of ${repository} not found` });
    response.status(200).end();
  });
}

function whatToShow(request: Request): { readonly tags: boolean; readonly accessories: boolean } {
  return { tags: readQueryBoolean(request, "with_tag") ?? true, accessories: readQueryBoolean(request, "with_accessory") ?? false };
}

/** Its full name. In the path it is encoded twice, since proxies tend to decode slashes. */
async function requireRepository(services: HarborServices, request: Request, right: Right): Promise<string> {
  const project = await requireProject(services, request, right);
  const text = String(request.params["repository"]);
  try {
    return `${project.name}/${decodeURIComponent(text)}`;
  } catch {
    throw new SlipwayError("UNPROCESSABLE", { message: "repository_name in path is not encoded correctly" });
  }
}

async function requireArtifact(services: HarborServices, request: Request, repository: string): Promise<ListedArtifact> {
  const reference = String(request.params["reference"]);
  const artifact = await services.content.list.artifact(repository, reference);
  if (artifact === null) throw new SlipwayError("NOT_FOUND", { message: `artifact ${repository}:${reference} not found` });
  return artifact;
}

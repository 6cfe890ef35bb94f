/** Repository names: their grammar, and how a name splits into project and path. */
import { SlipwayError } from "../core/errors.ts";
import { LIMITS } from "../core/limits.ts";

const ALPHANUMERIC = "[a-z0-9]+";
const SEPARATOR = "(?:\\.|_|__|-+)";
const COMPONENT = `${ALPHANUMERIC}(?:${SEPARATOR}${ALPHANUMERIC})*`;
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const SINGLE = new RegExp(`^${COMPONENT}$`);

/** One-component names live here, as on Docker Hub. */
export const DEFAULT_PROJECT = "library";

export interface RepositoryName {
  /** The full name: project, slash, path. */
  readonly name: string;
  readonly project: string;
  readonly path: string;
}

export function isRepositoryName(name: string): boolean {
  return name.length <= LIMITS.repositoryNameLength && REPOSITORY.test(name);
}

/** A project is the first component of a repository name. */
export function isProjectName(name: string): boolean {
  return name.length <= LIMITS.repositoryNameLength && SINGLE.test(name);
}

/** Null when the name is not valid, also when it would be too long with its project in front. */
export function parseRepositoryName(text: string): RepositoryName | null {
  if (!isRepositoryName(text)) return null;
  const slash = text.indexOf("/");
  if (slash > 0) return { name: text, project: text.slice(0, slash), path: text.slice(slash + 1) };
  const name = `${DEFAULT_PROJECT}/${text}`;
  return name.length <= LIMITS.repositoryNameLength ? { name, project: DEFAULT_PROJECT, path: text } : null;
}

export function requireRepositoryName(text: string): RepositoryName {
  const parsed = parseRepositoryName(text);
  if (parsed) return parsed;
  throw new SlipwayError("NAME_INVALID");
}

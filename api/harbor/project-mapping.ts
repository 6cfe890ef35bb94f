/** Projects between our model and Harbor's JSON. */
import { z } from "zod";
import { roleName } from "../../src/auth/roles.ts";
import type { Project } from "../../src/catalog/registry.ts";
import { isProjectName } from "../../src/oci/names.ts";
import { splitPatterns } from "../../src/proxy/plan/naming.ts";
import { TAG_MODES } from "../../src/proxy/plan/policy.ts";
import { checkPattern } from "../../src/proxy/registry-draft.ts";
import { omitEmpty } from "./conventions.ts";

const BOOLEANS = [
  "enable_content_trust",
  "enable_content_trust_cosign",
  "prevent_vul",
  "auto_scan",
  "auto_sbom_generation",
  "reuse_sys_cve_allowlist",
  "proxy_cache_local_on_not_found",
  "proxy_referrer_api",
  "proxy_keep_deleted",
  "proxy_push_through",
  "proxy_prefetch",
] as const;
const NUMBERS = ["retention_id", "proxy_speed_kb", "max_upstream_conn"] as const;
const SECONDS = ["proxy_tag_ttl", "proxy_max_stale", "proxy_negative_ttl"] as const;
const PATTERNS = ["proxy_allow", "proxy_deny", "proxy_cache_filter_pattern"] as const;

const flag = z.enum(["true", "false"]);
const number = z.string().regex(/^-?\d{1,15}$/);
const seconds = z.string().regex(/^\d{1,8}$/, "expected a number of seconds");
const patterns = z
  .string()
  .max(1024)
  .refine(
    (text) => splitPatterns(text).every((pattern) => checkPattern(pattern) === null),
    "expected patterns separated by commas, each with at most 10 stars",
  );
const shape = {
  public: flag,
  severity: z.enum(["none", "low", "medium", "high", "critical"]),
  proxy_mode: z.enum(TAG_MODES),
  // A filter that is not understood would let everything through.
  proxy_cache_filter_kind: z.enum(["", "doublestar"], "expected doublestar: regular expressions are not supported"),
  ...Object.fromEntries(BOOLEANS.map((name) => [name, flag])),
  ...Object.fromEntries(NUMBERS.map((name) => [name, number])),
  ...Object.fromEntries(SECONDS.map((name) => [name, seconds])),
  ...Object.fromEntries(PATTERNS.map((name) => [name, patterns])),
};
/** Keys that we do not know are dropped, as clients of newer versions expect. All values are texts. */
export const projectMetadata = z.object(shape).partial().default({});
export const METADATA_KEYS: readonly string[] = Object.keys(shape);

export const newProject = z.object({
  project_name: z
    .string()
    .max(255)
    // One separator between groups, not the longer ones that a repository name may have.
    .refine((name) => isProjectName(name) && !/[._-]{2}/.test(name), "lower-case letters and digits, groups separated by one of . _ -"),
  public: z.boolean().nullish(),
  metadata: projectMetadata,
  storage_limit: z.number().int().min(-1).nullish(),
  registry_id: z.number().int().nullish(),
});
export const projectChange = newProject.partial({ project_name: true });

/** `public` has a column of its own; everything else is kept as it is given. */
export function splitMetadata(metadata: z.output<typeof projectMetadata>): { public: boolean | undefined; rest: Record<string, string> } {
  const { public: isPublic, ...others } = metadata;
  const rest: Record<string, string> = {};
  for (const [name, value] of Object.entries(others)) if (typeof value === "string") rest[name] = value;
  return { public: isPublic === undefined ? undefined : isPublic === "true", rest };
}

export function metadataOf(project: Project): Record<string, string> {
  return { ...project.metadata, public: String(project.public) };
}

const NEVER = "0001-01-01T00:00:00.000Z";

export function describeProject(project: Project, extra: { ownerName: string; role: number; detail: boolean }): object {
  const fields = {
    project_id: project.id,
    owner_id: project.ownerId,
    owner_name: extra.ownerName,
    name: project.name,
    registry_id: project.registryId,
    creation_time: project.createdAt.toISOString(),
    update_time: project.updatedAt.toISOString(),
    current_user_role_id: extra.role,
    current_user_role_ids: extra.role === 0 ? [] : [extra.role],
    repo_count: project.repoCount,
  };
  if (!extra.detail) return omitEmpty(fields, ["repo_count"]);
  const allowlist = { id: project.id, project_id: project.id, items: [], creation_time: NEVER, update_time: NEVER };
  return omitEmpty({ ...fields, metadata: metadataOf(project), cve_allowlist: allowlist }, ["repo_count"]);
}

const COUNT_NAMES = {
  projectAdmin: "project_admin_count",
  maintainer: "maintainer_count",
  developer: "developer_count",
  guest: "guest_count",
  limitedGuest: "limited_guest_count",
} as const;

export function describeCounts(counts: ReadonlyMap<number, number>): Record<string, number> {
  const result: Record<string, number> = {};
  for (const [role, count] of counts) {
    const name = roleName(role);
    if (name !== undefined) result[COUNT_NAMES[name]] = count;
  }
  return result;
}

/** A row of `projects` as it is read in several places, and what it means. */
import type { Project } from "./registry.ts";

export interface ProjectRow {
  id: number;
  name: string;
  public: boolean;
  owner_id: number | null;
  registry_id: number | null;
  metadata: Record<string, string>;
  storage_limit: number;
  repo_count: number;
  created_at: Date;
  updated_at: Date;
}

export function toProject(row: ProjectRow): Project {
  return {
    id: row.id,
    name: row.name,
    public: row.public,
    ownerId: row.owner_id,
    registryId: row.registry_id,
    metadata: row.metadata,
    storageLimit: row.storage_limit,
    repoCount: row.repo_count,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

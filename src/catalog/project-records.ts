/**
 * Settings of projects in storage, with the address of the registry that a proxy project stands for, and without any secret. Files are numbered
 * like link records; the last one before the present database counts when rows are rebuilt.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { Database } from "../db/pool.ts";
import { isProjectName } from "../oci/names.ts";
import type { BlobStore } from "../storage/blob-store.ts";
import type { OutboxRow } from "./outbox.ts";
import { type Invalidator, cacheScopes } from "./registry.ts";

const ROOT = "projects";
const LONGEST_NAME = 200;
const NUMBER_WIDTH = 16;
const PAGE = 1_000;
const MICROSECONDS = 1_000_000;

const registrySchema = z.object({
  name: z.string(),
  type: z.string(),
  url: z.string(),
  mirrors: z.array(z.unknown()),
  hosts: z.array(z.unknown()),
  caCertificate: z.string(),
  insecure: z.boolean(),
  enabled: z.boolean(),
  priority: z.number(),
  isDefault: z.boolean(),
  routes: z.array(z.unknown()),
  prefix: z.string(),
  projects: z.array(z.unknown()),
  description: z.string(),
  origin: z.string(),
  /** It has to be given again. */
  hadCredential: z.boolean(),
});

const recordSchema = z.discriminatedUnion("removed", [
  z.object({ removed: z.literal(true), name: z.string() }),
  z.object({
    removed: z.literal(false),
    name: z.string(),
    public: z.boolean(),
    metadata: z.record(z.string(), z.string()),
    storageLimit: z.number(),
    registry: registrySchema.nullable(),
  }),
]);

export type ProjectRecord = z.infer<typeof recordSchema>;
export type LivingProject = Extract<ProjectRecord, { removed: false }>;

/** Writes each project as it is now, under the number of the row that told of a change. */
export async function writeProjectRecords(
  rows: readonly OutboxRow[],
  { database, store }: { database: Pick<Database, "query">; store: BlobStore },
  signal?: AbortSignal,
): Promise<void> {
  for (const row of rows) {
    const found = await database.query<{ record: ProjectRecord }>(
      `SELECT jsonb_build_object('removed', false, 'name', p.name, 'public', p.public, 'metadata', p.metadata, 'storageLimit', p.storage_limit,
         'registry', CASE WHEN r.id IS NULL THEN NULL ELSE jsonb_build_object('name', r.name, 'type', r.type, 'url', r.url, 'mirrors', r.mirrors,
           'hosts', r.hosts, 'caCertificate', r.ca_certificate, 'insecure', r.insecure, 'enabled', r.enabled, 'priority', r.priority,
           'isDefault', r.is_default, 'routes', r.routes, 'prefix', r.prefix, 'projects', r.projects, 'description', r.description,
           'origin', r.origin, 'hadCredential', r.access_key <> '' OR r.access_secret <> '') END) AS record
       FROM projects p LEFT JOIN registries r ON r.id = p.registry_id WHERE p.name = $1`,
      [row.key],
    );
    const record: ProjectRecord = found.rows[0]?.record ?? { removed: true, name: row.key };
    await store.putObject(
      `${folderOf(row.key)}/${String(row.id).padStart(NUMBER_WIDTH, "0")}.json`,
      Buffer.from(JSON.stringify(record)),
      signal,
    );
  }
}

/** The last record of each project that is older than the number, one after the other; null behind the last. */
export async function nextProjectRecord(
  store: BlobStore,
  options: { after: string | null; before: number },
  signal?: AbortSignal,
): Promise<{ record: ProjectRecord | null; marker: string } | null> {
  const [first] = await store.listObjects(`${ROOT}/`, options.after, 1, signal);
  if (!first) return null;
  const folder = first.key.slice(0, first.key.lastIndexOf("/"));
  let last: string | null = null;
  for (let after: string | null = options.after; ;) {
    const entries = await store.listObjects(`${folder}/`, after, PAGE, signal);
    for (const { key } of entries) if (numberOf(key) < options.before) last = key;
    const end = entries.at(-1);
    if (entries.length < PAGE || !end) break;
    after = end.key;
  }
  const bytes = last === null ? null : await store.getObject(last, signal);
  // Behind every file of this folder, which begin with a digit.
  return { record: bytes ? parseRecord(bytes) : null, marker: `${folder}/x` };
}

/** Everything with a lower number was written before this database was made. */
export async function firstNumber(database: Pick<Database, "query">): Promise<number> {
  const { rows } = await database.query<{ seconds: number }>(
    "SELECT extract(epoch FROM min(applied_at))::float8 AS seconds FROM schema_migrations",
  );
  return Math.floor((rows[0]?.seconds ?? 0) * MICROSECONDS);
}

/**
 * Makes project and registry when they are missing. What exists stays, but one case: a project that this database made by itself is not
 * left public when it had been private. True when something was made or closed.
 */
export async function restoreProject(
  record: LivingProject,
  { database, invalidator, registriesScope }: { database: Database; invalidator: Invalidator; registriesScope: string },
): Promise<boolean> {
  if (!isProjectName(record.name)) return false;
  const changed = await database.transaction(async (tx) => {
    const closed = await tx.query(
      `UPDATE projects SET public = false, updated_at = now() WHERE name = $1 AND public AND NOT $2 AND updated_at = created_at`,
      [record.name, record.public],
    );
    if (closed.rowCount === 1) return true;
    const known = await tx.query("SELECT 1 FROM projects WHERE name = $1", [record.name]);
    if (known.rowCount === 1) return false;
    const { registry } = record;
    if (registry) {
      await tx.query(
        `INSERT INTO registries (name, type, url, mirrors, hosts, ca_certificate, insecure, enabled, priority, is_default, routes, prefix, projects, description, origin)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (name) DO NOTHING`,
        [
          registry.name,
          registry.type,
          registry.url,
          JSON.stringify(registry.mirrors),
          JSON.stringify(registry.hosts),
          registry.caCertificate,
          registry.insecure,
          registry.enabled,
          registry.priority,
          registry.isDefault,
          JSON.stringify(registry.routes),
          registry.prefix,
          JSON.stringify(registry.projects),
          registry.description,
          registry.origin,
        ],
      );
    }
    // Of a registry that now has another address the content would be another's: then the project comes back without one.
    const made = await tx.query(
      `INSERT INTO projects (name, public, registry_id, metadata, storage_limit)
       VALUES ($1, $2, (SELECT id FROM registries WHERE name = $5 AND url = $6), $3, $4) ON CONFLICT (name) DO NOTHING`,
      [record.name, record.public, JSON.stringify(record.metadata), record.storageLimit, registry?.name ?? null, registry?.url ?? null],
    );
    return made.rowCount === 1;
  });
  if (changed) await invalidator.publish([cacheScopes.project(record.name), cacheScopes.rights(record.name), registriesScope]);
  return changed;
}

/** One that cannot be read counts as none: the project is made private and local when its content is found. */
function parseRecord(bytes: Buffer): ProjectRecord | null {
  try {
    return recordSchema.parse(JSON.parse(bytes.toString()));
  } catch {
    return null;
  }
}

function folderOf(project: string): string {
  return `${ROOT}/${project.length <= LONGEST_NAME ? project : `@${createHash("sha256").update(project).digest("hex")}`}`;
}

function numberOf(key: string): number {
  return Number(key.slice(key.lastIndexOf("/") + 1).split(".")[0]);
}

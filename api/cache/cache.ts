/** /cache: what pulled-through content is here and how it is used. Whoever is logged in sees the content of projects that they may read. */
import { Router } from "express";
import type { Request } from "express";
import { SlipwayError } from "../../src/core/errors.ts";
import { ENTRY_SORTS } from "../../src/proxy/cache-view.ts";
import type { CacheEntry, EntryKind, EntryQuery, VisibleProjects } from "../../src/proxy/cache-view.ts";
import { requireLogin } from "../harbor/access.ts";
import { readQueryText } from "../harbor/conventions.ts";
import { visibilityOf } from "../harbor/projects.ts";
import type { CacheApiServices } from "./services.ts";

const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 100;
const TOP = 10;

export function createCacheRouter(services: CacheApiServices): Router {
  const router = Router();
  const { view } = services;
  router.get("/cache/stats", async (request, response) => {
    requireLogin(request);
    const stats = await view.stats();
    const asked = stats.hits + stats.misses;
    response.json({
      total_size: stats.bytes,
      total_size_human: humanSize(stats.bytes),
      entry_count: stats.entries,
      manifest_count: stats.manifests,
      blob_count: stats.blobs,
      hit_count: stats.hits,
      miss_count: stats.misses,
      hit_rate: asked === 0 ? 0 : stats.hits / asked,
    });
  });
  router.get("/cache/entries", async (request, response) => {
    const projects = await visibleProjects(services, request);
    const { query, limit } = readEntryQuery(request, projects);
    const { items, total } = await view.entries(query);
    response.json({ entries: items.map(describeEntry), total, offset: query.offset, limit });
  });
  router.get("/cache/entries/top", async (request, response) => {
    const projects = await visibleProjects(services, request);
    const filter = { kind: null, repository: null, digest: null, projects };
    const { items } = await view.entries({ ...filter, sort: "access_count", descending: true, limit: TOP, offset: 0 });
    response.json(items.map(describeEntry));
  });
  router.get("/cache/repositories", async (request, response) => {
    response.json({ repositories: await view.repositories(await visibleProjects(services, request)) });
  });
  return router;
}

function visibleProjects(services: CacheApiServices, request: Request): Promise<VisibleProjects> {
  return services.view.projectsFor(visibilityOf(services, requireLogin(request)));
}

/** `limit` is told as it was asked for, also where less is given. */
function readEntryQuery(request: Request, projects: VisibleProjects): { query: EntryQuery; limit: number } {
  const asked = readInteger(request, "limit") ?? DEFAULT_LIMIT;
  const limit = asked <= 0 ? DEFAULT_LIMIT : asked;
  const sort = readQueryText(request, "sort_by");
  const query: EntryQuery = {
    kind: readKind(request),
    repository: readQueryText(request, "repository") || null,
    digest: readQueryText(request, "digest") || null,
    sort: ENTRY_SORTS.find((known) => known === sort) ?? "last_accessed_at",
    descending: readQueryText(request, "sort_order")?.toLowerCase() !== "asc",
    limit: Math.min(limit, MAX_LIMIT),
    offset: Math.max(0, readInteger(request, "offset") ?? 0),
    projects,
  };
  return { query, limit };
}

function readKind(request: Request): EntryKind | null {
  const text = readQueryText(request, "entry_type") || null;
  if (text === null || text === "manifest" || text === "blob") return text;
  throw new SlipwayError("BAD_REQUEST", { message: "entry_type must be manifest or blob" });
}

function readInteger(request: Request, name: string): number | undefined {
  const text = readQueryText(request, name);
  if (text === undefined || text === "") return undefined;
  if (!/^-?\d{1,12}$/.test(text)) throw new SlipwayError("BAD_REQUEST", { message: `${name} must be a whole number` });
  return Number(text);
}

function describeEntry(entry: CacheEntry): object {
  return {
    id: idOf(entry.digest),
    entry_type: entry.kind,
    repository: entry.repository,
    reference: entry.reference,
    digest: entry.digest,
    content_type: entry.mediaType,
    size: entry.size,
    size_human: humanSize(entry.size),
    created_at: entry.fetchedAt.toISOString(),
    last_accessed_at: entry.lastAccessAt.toISOString(),
    access_count: entry.accessCount,
  };
}

/** Clients want a number; the digest gives one that is the same each time. */
function idOf(digest: string): number {
  return Number.parseInt(digest.slice(digest.indexOf(":") + 1, digest.indexOf(":") + 13), 16);
}

const UNITS = ["B", "KB", "MB", "GB", "TB", "PB"] as const;

export function humanSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(2)} ${UNITS[unit]}`;
}

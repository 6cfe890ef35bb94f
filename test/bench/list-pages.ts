/**
 * Pages of tags/list and _catalog over 100,000 names each, by HTTP; medians over pages spread through the whole.
 * `node test/bench/list-pages.ts [names]`, with SLIPWAY_TEST_DATABASE_URL set.
 */
import { ADMIN, startRegistry } from "../support/registry-server.ts";
import { median } from "./http-load.ts";

const NAMES = Number(process.argv[2] ?? 100_000);
const PAGES = 60;
const PAGE = 100;

const cleanups: (() => Promise<void> | void)[] = [];
const registry = await startRegistry({ after: (cleanup) => void cleanups.unshift(cleanup) }, { auth: "open" });

async function measure(label: string, path: (last: string) => string, lasts: readonly string[]): Promise<void> {
  const times: number[] = [];
  for (const last of lasts) {
    const start = performance.now();
    const answer = await fetch(`${registry.url}${path(last)}`, { headers: { authorization: ADMIN } });
    const body = (await answer.json()) as { tags?: string[]; repositories?: string[] };
    times.push(performance.now() - start);
    const length = (body.tags ?? body.repositories ?? []).length;
    if (answer.status !== 200 || length !== PAGE) throw new Error(`${label}: ${answer.status} with ${length} names`);
  }
  console.log(
    `${label}: median ${median(times).toFixed(1)} ms, worst ${Math.max(...times).toFixed(1)} ms over ${lasts.length} pages of ${PAGE} of ${NAMES} (bar 20)`,
  );
}

try {
  const { database } = registry.app;
  await database.query("INSERT INTO blobs (digest, size, stored) VALUES ($1, 2, true)", [`sha256:${"0".repeat(64)}`]);
  await database.query(
    `WITH p AS (SELECT id FROM projects WHERE name = 'library'),
     r AS (INSERT INTO repositories (project_id, name) SELECT p.id, 'library/repo-' || lpad(n::text, 6, '0') FROM p, generate_series(1, $1::int) n RETURNING id, name),
     m AS (INSERT INTO manifests (repository_id, digest, media_type, size) SELECT id, $2, 'application/vnd.oci.image.manifest.v1+json', 2 FROM r WHERE name = 'library/repo-000001' RETURNING repository_id)
     SELECT count(*) FROM m`,
    [NAMES, `sha256:${"0".repeat(64)}`],
  );
  await database.query(
    `INSERT INTO tags (repository_id, name, digest) SELECT r.id, 'tag-' || lpad(n::text, 6, '0'), $2 FROM repositories r, generate_series(1, $1::int) n WHERE r.name = 'library/repo-000001'`,
    [NAMES, `sha256:${"0".repeat(64)}`],
  );
  await database.query("ANALYZE");
  const spread = Array.from({ length: PAGES }, (_, index) => String(Math.floor((index * (NAMES - 2 * PAGE)) / PAGES)).padStart(6, "0"));
  await measure("tags/list", (last) => `/v2/library/repo-000001/tags/list?n=${PAGE}&last=tag-${last}`, spread);
  await measure("_catalog", (last) => `/v2/_catalog?n=${PAGE}&last=library/repo-${last}`, spread);
} finally {
  for (const cleanup of cleanups) await cleanup();
}

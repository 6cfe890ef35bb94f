/** What the local registry holds, by pages for replication: tags with what they point to, then content without a tag that is nobody's part. */
import type { Queryable } from "../../db/pool.ts";
import { SlipwayError } from "../../core/errors.ts";
import type { Artifact, ArtifactPage } from "./adapter.ts";

interface ArtifactRow {
  tag: string | null;
  digest: string;
  media_type: string;
  artifact_type: string | null;
  subject_digest: string | null;
  pushed_at: Date;
  referrers: string[];
}

const PAGE = 1000;
const TAGS = "t:";
const UNTAGGED = "d:";
/** Of indexes in indexes, and of referrers of referrers. */
const DEEPEST = 5;

const REFERRERS = `ARRAY(SELECT a.digest FROM manifests a
  WHERE a.repository_id = m.repository_id AND a.subject_digest = m.digest ORDER BY a.digest LIMIT 1000) AS referrers`;

export async function listLocalArtifacts(db: Queryable, repository: string, cursor: string | null): Promise<ArtifactPage> {
  if (cursor === null || cursor.startsWith(TAGS)) {
    const rows = await tagPage(db, repository, cursor?.slice(TAGS.length) ?? "");
    const artifacts = rows.slice(0, PAGE).map(toArtifact);
    return { artifacts, next: rows.length > PAGE ? `${TAGS}${artifacts.at(-1)?.tag}` : UNTAGGED };
  }
  if (!cursor.startsWith(UNTAGGED)) throw new SlipwayError("BAD_REQUEST", { message: "not a page cursor" });
  const rows = await untaggedPage(db, repository, cursor.slice(UNTAGGED.length));
  const artifacts = rows.slice(0, PAGE).map(toArtifact);
  return { artifacts, next: rows.length > PAGE ? `${UNTAGGED}${artifacts.at(-1)?.digest}` : null };
}

/** Up from parts to their indexes, and from signatures to what they belong to. */
export async function localTagsOf(db: Queryable, repository: string, digest: string): Promise<string[]> {
  const { rows } = await db.query<{ name: string }>(
    `WITH RECURSIVE place AS (SELECT id FROM repositories WHERE name = $1),
     parents (digest, depth) AS (
       SELECT $2::text COLLATE "C", 0
       UNION
       SELECT up.digest, p.depth + 1 FROM parents p CROSS JOIN LATERAL (
         SELECT c.manifest_digest AS digest FROM manifest_references c
          WHERE c.repository_id = (SELECT id FROM place) AND c.digest = p.digest AND c.kind = 'manifest'
         UNION ALL
         SELECT m.subject_digest FROM manifests m
          WHERE m.repository_id = (SELECT id FROM place) AND m.digest = p.digest AND m.subject_digest IS NOT NULL) up
        WHERE p.depth < ${DEEPEST})
     SELECT DISTINCT t.name FROM tags t JOIN parents p ON p.digest = t.digest
      WHERE t.repository_id = (SELECT id FROM place) ORDER BY t.name LIMIT ${PAGE}`,
    [repository, digest],
  );
  return rows.map(({ name }) => name);
}

async function tagPage(db: Queryable, repository: string, after: string): Promise<ArtifactRow[]> {
  const { rows } = await db.query<ArtifactRow>(
    `SELECT t.name AS tag, t.digest, m.media_type, m.artifact_type, m.subject_digest, t.pushed_at, ${REFERRERS}
       FROM repositories r
       JOIN tags t ON t.repository_id = r.id
       JOIN manifests m ON m.repository_id = t.repository_id AND m.digest = t.digest
      WHERE r.name = $1 AND t.name > $2 ORDER BY t.name LIMIT ${PAGE + 1}`,
    [repository, after],
  );
  return rows;
}

/** Children of an index and referrers go with what they belong to. */
async function untaggedPage(db: Queryable, repository: string, after: string): Promise<ArtifactRow[]> {
  const { rows } = await db.query<ArtifactRow>(
    `SELECT NULL AS tag, m.digest, m.media_type, m.artifact_type, m.subject_digest, m.pushed_at, ${REFERRERS}
       FROM repositories r JOIN manifests m ON m.repository_id = r.id
      WHERE r.name = $1 AND m.digest > $2 AND m.subject_digest IS NULL
        AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = m.repository_id AND t.digest = m.digest)
        AND NOT EXISTS (SELECT 1 FROM manifest_references c
                         WHERE c.repository_id = m.repository_id AND c.digest = m.digest AND c.kind = 'manifest')
      ORDER BY m.digest LIMIT ${PAGE + 1}`,
    [repository, after],
  );
  return rows;
}

function toArtifact(row: ArtifactRow): Artifact {
  return {
    tag: row.tag,
    digest: row.digest,
    mediaType: row.media_type,
    artifactType: row.artifact_type,
    subject: row.subject_digest,
    referrers: row.referrers,
    pushedAt: row.pushed_at,
    // Content here has no labels.
    labels: [],
  };
}

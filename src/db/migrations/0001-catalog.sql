-- Projects, repositories and their content. Names are compared by bytes (collation C), so that an index answers prefix and keyset pages.

CREATE TABLE projects (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          text COLLATE "C" NOT NULL UNIQUE,
  owner_id      bigint,
  public        boolean NOT NULL DEFAULT false,
  -- Proxy projects name their upstream here; local ones have none.
  registry_id   bigint,
  metadata      jsonb NOT NULL DEFAULT '{}',
  storage_limit bigint NOT NULL DEFAULT -1,
  repo_count    integer NOT NULL DEFAULT 0,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE repositories (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id  bigint NOT NULL REFERENCES projects,
  -- The full name: project, slash, path.
  name        text COLLATE "C" NOT NULL UNIQUE,
  description text NOT NULL DEFAULT '',
  pull_count  bigint NOT NULL DEFAULT 0,
  artifact_count integer NOT NULL DEFAULT 0,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX repositories_by_project ON repositories (project_id, name);

-- Counts are kept by statement triggers, so that no writer can forget them and bulk changes cost one update.
CREATE FUNCTION count_new_repositories() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE projects p SET repo_count = p.repo_count + n.amount
    FROM (SELECT project_id, count(*)::int AS amount FROM changed GROUP BY project_id) n WHERE p.id = n.project_id;
  RETURN NULL;
END $$;
CREATE FUNCTION count_gone_repositories() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE projects p SET repo_count = p.repo_count - n.amount
    FROM (SELECT project_id, count(*)::int AS amount FROM changed GROUP BY project_id) n WHERE p.id = n.project_id;
  RETURN NULL;
END $$;
CREATE TRIGGER repositories_counted AFTER INSERT ON repositories
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_new_repositories();
CREATE TRIGGER repositories_uncounted AFTER DELETE ON repositories
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_gone_repositories();

-- One row per stored digest: reserved (not `stored`) while bytes are on their way, then stored. `touched_at` is refreshed by whatever
-- begins to use the digest, in the same statement that links it. Collection marks (state 'deleting', no lease: bytes intact, anybody who
-- needs the digest makes it live again), then leases (`deleting_until`: bytes may be gone, users wait), removes the bytes, then the row.
CREATE TABLE blobs (
  digest         text COLLATE "C" PRIMARY KEY,
  size           bigint NOT NULL,
  stored         boolean NOT NULL DEFAULT false,
  state          text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'deleting')),
  deleting_until timestamptz,
  created_at     timestamptz NOT NULL DEFAULT now(),
  touched_at     timestamptz NOT NULL DEFAULT now(),
  CHECK (state = 'deleting' OR deleting_until IS NULL)
);
CREATE INDEX blobs_to_sweep ON blobs (digest) WHERE state = 'deleting';

-- The right to read a blob in a repository.
CREATE TABLE blob_links (
  repository_id bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
  digest        text COLLATE "C" NOT NULL REFERENCES blobs,
  created_at    timestamptz NOT NULL DEFAULT now(),
  touched_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (repository_id, digest)
);
CREATE INDEX blob_links_by_digest ON blob_links (digest);

CREATE TABLE manifests (
  repository_id  bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
  digest         text COLLATE "C" NOT NULL REFERENCES blobs,
  media_type     text NOT NULL,
  -- What referrers and artifact lists show: the manifest's artifactType, else the media type of its config.
  artifact_type  text,
  config_media_type text,
  subject_digest text COLLATE "C",
  size           bigint NOT NULL,
  -- Manifest plus config and layers, each once.
  total_size     bigint NOT NULL DEFAULT 0,
  annotations    jsonb NOT NULL DEFAULT '{}',
  -- Small manifests are kept here as a cache of blob storage.
  bytes          bytea,
  pushed_at      timestamptz NOT NULL DEFAULT now(),
  pulled_at      timestamptz,
  PRIMARY KEY (repository_id, digest)
);
CREATE INDEX manifests_by_digest ON manifests (digest);
CREATE INDEX manifests_by_subject ON manifests (repository_id, subject_digest, digest) WHERE subject_digest IS NOT NULL;
CREATE INDEX manifests_by_push ON manifests (repository_id, pushed_at);

CREATE FUNCTION count_new_artifacts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE repositories r SET artifact_count = r.artifact_count + n.amount, updated_at = now()
    FROM (SELECT repository_id, count(*)::int AS amount FROM changed GROUP BY repository_id) n WHERE r.id = n.repository_id;
  RETURN NULL;
END $$;
CREATE FUNCTION count_gone_artifacts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE repositories r SET artifact_count = r.artifact_count - n.amount, updated_at = now()
    FROM (SELECT repository_id, count(*)::int AS amount FROM changed GROUP BY repository_id) n WHERE r.id = n.repository_id;
  RETURN NULL;
END $$;
CREATE TRIGGER artifacts_counted AFTER INSERT ON manifests
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_new_artifacts();
CREATE TRIGGER artifacts_uncounted AFTER DELETE ON manifests
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_gone_artifacts();

-- What a manifest names; keeps blobs linked and children alive. Targets may be absent (sparse indexes, foreign layers).
CREATE TABLE manifest_references (
  repository_id   bigint NOT NULL,
  manifest_digest text COLLATE "C" NOT NULL,
  digest          text COLLATE "C" NOT NULL,
  kind            text NOT NULL CHECK (kind IN ('config', 'layer', 'manifest')),
  size            bigint NOT NULL DEFAULT 0,
  position        integer NOT NULL DEFAULT 0,
  platform        jsonb,
  PRIMARY KEY (repository_id, manifest_digest, digest, kind),
  FOREIGN KEY (repository_id, manifest_digest) REFERENCES manifests ON DELETE CASCADE
);
CREATE INDEX manifest_references_by_digest ON manifest_references (repository_id, digest);

CREATE TABLE tags (
  repository_id bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
  name          text COLLATE "C" NOT NULL,
  digest        text COLLATE "C" NOT NULL,
  pushed_at     timestamptz NOT NULL DEFAULT now(),
  pulled_at     timestamptz,
  PRIMARY KEY (repository_id, name),
  FOREIGN KEY (repository_id, digest) REFERENCES manifests ON DELETE CASCADE
);
CREATE INDEX tags_by_digest ON tags (repository_id, digest);

-- Indexes that answer a referrers tag nobody pushed. Kept, so that the digest a client was told can be read, by any process.
CREATE TABLE referrer_indexes (
  repository_id  bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
  digest         text COLLATE "C" NOT NULL,
  subject_prefix text COLLATE "C" NOT NULL,
  bytes          bytea NOT NULL,
  built_at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (repository_id, digest)
);
CREATE INDEX referrer_indexes_by_subject ON referrer_indexes (repository_id, subject_prefix, built_at);

-- Running uploads. `offset_bytes` is what storage has confirmed. Whoever appends holds the lease; each holder raises `version`, and
-- writes of a former holder are refused by it.
CREATE TABLE uploads (
  id            text PRIMARY KEY,
  -- No foreign key: the repository row is made when the first content is linked.
  repository    text COLLATE "C" NOT NULL,
  principal     text NOT NULL,
  algorithm     text,
  offset_bytes  bigint NOT NULL DEFAULT 0,
  version       integer NOT NULL DEFAULT 0,
  locked_until  timestamptz,
  started_at    timestamptz NOT NULL DEFAULT now(),
  touched_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX uploads_by_age ON uploads (touched_at);

-- Side effects that must follow a commit. `kind` names the handler; a row is removed once its handler has done the work.
CREATE TABLE outbox (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind       text NOT NULL,
  -- Rows of one key are handled in order.
  key        text COLLATE "C" NOT NULL,
  payload    jsonb NOT NULL,
  attempts   integer NOT NULL DEFAULT 0,
  -- When it may be claimed (again); `claim` names the holder until then.
  due_at     timestamptz NOT NULL DEFAULT now(),
  claim      text,
  last_error text,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_by_kind ON outbox (kind, id);
CREATE INDEX outbox_by_key ON outbox (kind, key, id);

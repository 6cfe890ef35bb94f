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
  project_id  bigint NOT NULL REFERENCES projects ON DELETE RESTRICT,
  -- The full name: project, slash, path.
  name        text COLLATE "C" NOT NULL UNIQUE,
  description text NOT NULL DEFAULT '',
  pull_count  bigint NOT NULL DEFAULT 0,
  artifact_count integer NOT NULL DEFAULT 0,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX repositories_by_project ON repositories (project_id, name);

-- One row per stored digest. `touched_at` is refreshed by whatever begins to use the digest, in the same statement that links it, so that
-- collection (mark: state 'deleting' with a lease; sweep: bytes, then the row) never races with a push.
CREATE TABLE blobs (
  digest         text COLLATE "C" PRIMARY KEY,
  size           bigint NOT NULL,
  stored         boolean NOT NULL DEFAULT false,
  state          text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'deleting')),
  deleting_until timestamptz,
  created_at     timestamptz NOT NULL DEFAULT now(),
  touched_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX blobs_by_age ON blobs (touched_at);

-- The right to read a blob in a repository.
CREATE TABLE blob_links (
  repository_id bigint NOT NULL REFERENCES repositories ON DELETE CASCADE,
  digest        text COLLATE "C" NOT NULL REFERENCES blobs,
  created_at    timestamptz NOT NULL DEFAULT now(),
  touched_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (repository_id, digest)
);
CREATE INDEX blob_links_by_digest ON blob_links (digest);
CREATE INDEX blob_links_by_age ON blob_links (touched_at);

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

-- Running uploads. `offset_bytes` is what storage has confirmed; `version` is the compare-and-swap guard between processes.
CREATE TABLE uploads (
  id            text PRIMARY KEY,
  -- No foreign key: the repository row is made when the first content is linked.
  repository    text COLLATE "C" NOT NULL,
  principal     text NOT NULL,
  algorithm     text,
  offset_bytes  bigint NOT NULL DEFAULT 0,
  version       integer NOT NULL DEFAULT 0,
  started_at    timestamptz NOT NULL DEFAULT now(),
  touched_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX uploads_by_age ON uploads (touched_at);

-- Side effects that must follow a commit. `kind` names the handler; a row is removed once its handler has done the work.
CREATE TABLE outbox (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind       text NOT NULL,
  -- Rows of one key are handled in order.
  key        text NOT NULL,
  payload    jsonb NOT NULL,
  attempts   integer NOT NULL DEFAULT 0,
  due_at     timestamptz NOT NULL DEFAULT now(),
  last_error text,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_due ON outbox (due_at, id);

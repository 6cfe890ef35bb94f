-- What copying knows of targets, and what it has under way there.

-- What a tag of a target was, when it was last seen; only verified writes and answers of the target get here.
CREATE TABLE replication_known (
  -- 0 is the local registry, which has no row in registries, so there is no foreign key.
  registry_id bigint NOT NULL,
  repository  text COLLATE "C" NOT NULL,
  tag         text COLLATE "C" NOT NULL,
  digest      text COLLATE "C" NOT NULL,
  verified_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (registry_id, repository, tag)
);

-- Where a target has a blob or a manifest: what is there is not sent, and what is elsewhere on it is mounted.
CREATE TABLE replication_content (
  registry_id bigint NOT NULL,
  digest      text COLLATE "C" NOT NULL,
  repository  text COLLATE "C" NOT NULL,
  verified_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (registry_id, digest, repository)
);
CREATE INDEX replication_content_by_age ON replication_content (verified_at);

-- Who copies what to a target, so that each digest crosses once. A claim ends with its lease.
CREATE TABLE copy_claims (
  registry_id bigint NOT NULL,
  -- A digest; with its repository where the target does not mount.
  content     text COLLATE "C" NOT NULL,
  owner       text NOT NULL,
  lease_until timestamptz NOT NULL,
  PRIMARY KEY (registry_id, content)
) WITH (fillfactor = 70);

-- Uploads in chunks that another process may continue. The location may carry secrets: it is encrypted and bound to its target.
CREATE TABLE copy_uploads (
  registry_id  bigint NOT NULL,
  repository   text COLLATE "C" NOT NULL,
  digest       text COLLATE "C" NOT NULL,
  session      text NOT NULL,
  confirmed    bigint NOT NULL DEFAULT 0,
  execution_id bigint NOT NULL,
  updated_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (registry_id, repository, digest)
);
CREATE INDEX copy_uploads_by_execution ON copy_uploads (execution_id);

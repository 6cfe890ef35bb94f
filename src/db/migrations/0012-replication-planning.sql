-- What planning has to remember between its steps, so that a step that is repeated after a crash adds nothing twice and forgets nothing.

-- Whoever plans holds this; a step that was given up and still runs somewhere holds an older one and can write no more.
ALTER TABLE replication_runs ADD COLUMN planning_token uuid;

-- A stretch of a source repository that was compared, with the batches that came of it. Rows of earlier steps are needed only where a repository
-- goes on.
CREATE TABLE replication_stretches (
  execution_id bigint NOT NULL REFERENCES executions ON DELETE CASCADE,
  key        text COLLATE "C" NOT NULL,
  step       integer NOT NULL,
  repository text COLLATE "C" NOT NULL,
  -- Where the repository goes on; null when all of it is planned.
  next       text,
  batches    jsonb NOT NULL DEFAULT '[]',
  -- Of a dry run: what would be done, by destination.
  forecast   jsonb,
  PRIMARY KEY (execution_id, key)
);
CREATE INDEX replication_stretches_by_step ON replication_stretches (execution_id, step);
CREATE INDEX replication_stretches_open ON replication_stretches (execution_id, key) WHERE next IS NOT NULL;

-- What source repositories are called at destinations, where two of them could get one name.
CREATE TABLE replication_names (
  execution_id bigint NOT NULL REFERENCES executions ON DELETE CASCADE,
  registry_id  bigint NOT NULL,
  repository   text COLLATE "C" NOT NULL,
  source       text COLLATE "C" NOT NULL,
  PRIMARY KEY (execution_id, registry_id, repository)
);

-- Tags that a mirror would delete: collected before anything is copied, so that too many of them end the run in time.
CREATE TABLE replication_deletions (
  execution_id bigint NOT NULL REFERENCES executions ON DELETE CASCADE,
  destination  smallint NOT NULL,
  repository   text COLLATE "C" NOT NULL,
  tag          text COLLATE "C" NOT NULL,
  -- What replication put there: the tag is deleted only while it is that.
  digest       text COLLATE "C" NOT NULL,
  source       text COLLATE "C" NOT NULL,
  PRIMARY KEY (execution_id, destination, repository, tag)
);

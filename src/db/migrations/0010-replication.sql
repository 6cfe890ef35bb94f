-- Replication: policies, their destinations, and what runs know beyond their execution and tasks.

CREATE TABLE replication_policies (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          text COLLATE "C" NOT NULL UNIQUE,
  description   text NOT NULL DEFAULT '',
  creator       text NOT NULL DEFAULT '',
  -- Null: the local registry, which clients know as registry 0.
  src_registry_id bigint REFERENCES registries ON DELETE RESTRICT,
  dest_namespace text NOT NULL DEFAULT '',
  -- Leading path elements of the source that the namespace replaces; -1 replaces all but the last.
  dest_namespace_replace_count smallint NOT NULL DEFAULT -1,
  -- Null: no trigger was given, so only people start it.
  trigger_type  text CHECK (trigger_type IN ('manual', 'scheduled', 'event_based')),
  -- As it was given; Temporal gets calendars made from it.
  cron          text NOT NULL DEFAULT '',
  timezone      text NOT NULL DEFAULT 'UTC',
  filters       jsonb NOT NULL DEFAULT '[]',
  deletion      boolean NOT NULL DEFAULT false,
  override      boolean NOT NULL DEFAULT false,
  enabled       boolean NOT NULL DEFAULT false,
  -- Kilobits a second over all workers; 0 is unlimited.
  speed_kb      integer NOT NULL DEFAULT 0 CHECK (speed_kb >= 0),
  copy_by_chunk boolean NOT NULL DEFAULT false,
  single_active_replication boolean NOT NULL DEFAULT false,
  overlap       text NOT NULL DEFAULT 'allow' CHECK (overlap IN ('skip', 'queue-one', 'allow')),
  -- Deletes at the destination what the source no longer has, by comparing at each run.
  mirror        boolean NOT NULL DEFAULT false,
  -- A mirroring run that would delete more than either of these stops and asks for force.
  max_deletions integer NOT NULL DEFAULT 100 CHECK (max_deletions >= 0),
  max_deletion_percent smallint NOT NULL DEFAULT 10 CHECK (max_deletion_percent BETWEEN 0 AND 100),
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  CHECK (NOT single_active_replication OR overlap = 'skip')
);
CREATE INDEX replication_policies_by_source ON replication_policies (src_registry_id);
CREATE INDEX replication_policies_on_events ON replication_policies (id) WHERE trigger_type = 'event_based' AND enabled;

CREATE TABLE replication_destinations (
  policy_id   bigint NOT NULL REFERENCES replication_policies ON DELETE CASCADE,
  position    smallint NOT NULL,
  -- Null: the local registry.
  registry_id bigint REFERENCES registries ON DELETE RESTRICT,
  -- Null: as the policy says.
  namespace   text,
  replace_count smallint,
  PRIMARY KEY (policy_id, position)
);
CREATE INDEX replication_destinations_by_registry ON replication_destinations (registry_id);

-- One row beside each execution of the vendor REPLICATION.
CREATE TABLE replication_runs (
  execution_id bigint PRIMARY KEY REFERENCES executions ON DELETE CASCADE,
  -- No foreign key: the history of a deleted policy stays until retention takes it.
  policy_id    bigint NOT NULL,
  kind         text NOT NULL DEFAULT 'copy' CHECK (kind IN ('copy', 'dry-run', 'audit')),
  -- Waits for the active run to end; the closing run starts it.
  queued       boolean NOT NULL DEFAULT false,
  -- The execution whose failed items this one tries again.
  retry_of     bigint,
  -- A mirror may delete more than the policy's limits.
  force        boolean NOT NULL DEFAULT false,
  -- Set while the run goes on; null: as the policy says.
  speed_kb     integer CHECK (speed_kb >= 0),
  items_unchanged bigint NOT NULL DEFAULT 0,
  -- Of what was planned so far; manifests are read when they are copied, so this grows while the run goes on.
  bytes_total   bigint NOT NULL DEFAULT 0,
  bytes_copied  bigint NOT NULL DEFAULT 0,
  bytes_mounted bigint NOT NULL DEFAULT 0,
  bytes_skipped bigint NOT NULL DEFAULT 0
);
CREATE INDEX replication_runs_by_policy ON replication_runs (policy_id, execution_id DESC);
-- At most one waits for each policy; what comes later joins it.
CREATE UNIQUE INDEX replication_runs_waiting ON replication_runs (policy_id) WHERE queued;

-- One row for each artifact that a run has to change; what is as it should be is only counted.
CREATE TABLE replication_items (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  execution_id   bigint NOT NULL REFERENCES executions ON DELETE CASCADE,
  task_id        bigint NOT NULL REFERENCES tasks ON DELETE CASCADE,
  action         text NOT NULL CHECK (action IN ('copy', 'delete', 'audit')),
  src_repository text COLLATE "C" NOT NULL,
  -- A tag; null for content without one, which goes by digest.
  tag            text COLLATE "C",
  -- Of the manifest at the source, once it is known.
  digest         text COLLATE "C",
  dest_repository text COLLATE "C" NOT NULL,
  status         text NOT NULL DEFAULT 'Pending' CHECK (status IN ('Pending', 'Success', 'Skipped', 'Error', 'Stopped')),
  -- One of a few words for programs, and a sentence for people.
  reason         text NOT NULL DEFAULT '',
  message        text NOT NULL DEFAULT '',
  bytes_copied   bigint NOT NULL DEFAULT 0,
  blobs_copied   integer NOT NULL DEFAULT 0,
  blobs_mounted  integer NOT NULL DEFAULT 0,
  blobs_skipped  integer NOT NULL DEFAULT 0,
  attempts       integer NOT NULL DEFAULT 0,
  updated_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX replication_items_by_execution ON replication_items (execution_id, id);
CREATE INDEX replication_items_by_task ON replication_items (task_id, id);

-- Changes of local content that an event policy has still to carry out; a later one of the same name replaces an earlier one.
CREATE TABLE replication_events (
  policy_id  bigint NOT NULL REFERENCES replication_policies ON DELETE CASCADE,
  repository text COLLATE "C" NOT NULL,
  -- A tag, or a digest for content without one.
  reference  text COLLATE "C" NOT NULL,
  action     text NOT NULL CHECK (action IN ('copy', 'delete')),
  -- What a deletion removed: only this is deleted at the destination.
  digest     text COLLATE "C",
  -- The run that took it; null while it waits.
  execution_id bigint,
  noted_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (policy_id, repository, reference)
);
CREATE INDEX replication_events_waiting ON replication_events (policy_id) WHERE execution_id IS NULL;

-- What a run has to say, line by line; of the run itself (planning) where there is no task.
CREATE TABLE execution_logs (
  execution_id bigint NOT NULL REFERENCES executions ON DELETE CASCADE,
  id           bigint GENERATED ALWAYS AS IDENTITY,
  task_id      bigint REFERENCES tasks ON DELETE CASCADE,
  at           timestamptz NOT NULL DEFAULT now(),
  level        text NOT NULL CHECK (level IN ('INFO', 'WARNING', 'ERROR')),
  line         text NOT NULL,
  PRIMARY KEY (execution_id, id)
);
CREATE INDEX execution_logs_by_task ON execution_logs (task_id, id) WHERE task_id IS NOT NULL;

-- What starting, stopping and repeating of replication runs need to know.

ALTER TABLE replication_runs
  -- Of a start that may be repeated (a tick of a schedule, an answer that got lost): the same key is the same run.
  ADD COLUMN start_key text,
  -- It was stopped while the workflow service was away; its workflow has still to hear of it.
  ADD COLUMN cancelling boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX replication_runs_start_key ON replication_runs (start_key) WHERE start_key IS NOT NULL;
CREATE INDEX replication_runs_cancelling ON replication_runs (execution_id) WHERE cancelling;

ALTER TABLE replication_events
  ADD COLUMN attempts integer NOT NULL DEFAULT 0,
  -- Failed ones are tried again later, for days.
  ADD COLUMN due_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX replication_events_by_execution ON replication_events (execution_id) WHERE execution_id IS NOT NULL;

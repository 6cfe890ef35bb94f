-- What became of replication runs, counted for good: executions themselves are removed by retention.

-- Lists of executions show the newest first.
CREATE INDEX executions_by_start ON executions ((coalesce(started_at, created_at)) DESC, id DESC) WHERE vendor = 'REPLICATION';

-- Runs that ended and are not in the totals yet. A row for each, so that runs that end together do not wait for each other.
CREATE TABLE replication_endings (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  execution_id bigint NOT NULL,
  policy_id    bigint NOT NULL,
  outcome      text NOT NULL,
  ended_at     timestamptz NOT NULL
);

CREATE TABLE replication_outcomes (
  policy_id bigint NOT NULL REFERENCES replication_policies ON DELETE CASCADE,
  outcome   text NOT NULL,
  count     bigint NOT NULL,
  last_at   timestamptz NOT NULL,
  PRIMARY KEY (policy_id, outcome)
);

-- Zero is the local registry.
CREATE TABLE replication_target_bytes (
  registry_id bigint PRIMARY KEY,
  bytes       bigint NOT NULL
);

-- Dry runs and audits copy nothing, so they say nothing about how fresh a copy is.
CREATE FUNCTION note_replication_ending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO replication_endings (execution_id, policy_id, outcome, ended_at)
  SELECT NEW.id, r.policy_id, NEW.status, NEW.ended_at FROM replication_runs r WHERE r.execution_id = NEW.id AND r.kind = 'copy';
  RETURN NULL;
END
$$;
CREATE TRIGGER executions_note_replication_ending AFTER UPDATE ON executions FOR EACH ROW
  WHEN (NEW.vendor = 'REPLICATION' AND OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION note_replication_ending();

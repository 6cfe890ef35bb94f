-- Triggers that compare rows before and after a statement, for batches of any size.
--
-- A session keeps the plan of its first call, made for as many rows as that had. After an update of one row, the next one of a thousand compared each row with
-- each: a settlement took four times as long. Without nested loops the rows are hashed, which costs one row nothing.
ALTER FUNCTION tell_execution_changes() SET enable_nestloop = off;
ALTER FUNCTION note_changed_tasks() SET enable_nestloop = off;

-- Once for a statement instead of once for each row, which was a sixth of the cost of a settlement. Runs are looked up by key, whatever the statistics say.
CREATE FUNCTION note_replication_endings() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off SET enable_seqscan = off AS $$
BEGIN
  INSERT INTO replication_endings (execution_id, policy_id, outcome, ended_at)
  SELECT c.id, c.policy_id, c.status, c.ended_at
    FROM (SELECT a.id, a.status, a.ended_at,
                 (SELECT r.policy_id FROM replication_runs r WHERE r.execution_id = a.id AND r.kind = 'copy') AS policy_id
            FROM after a JOIN before b ON b.id = a.id
           WHERE a.vendor = 'REPLICATION' AND b.ended_at IS NULL AND a.ended_at IS NOT NULL) c
   WHERE c.policy_id IS NOT NULL;
  RETURN NULL;
END
$$;
DROP TRIGGER executions_note_replication_ending ON executions;
DROP FUNCTION note_replication_ending();
CREATE TRIGGER executions_note_replication_endings AFTER UPDATE ON executions REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION note_replication_endings();

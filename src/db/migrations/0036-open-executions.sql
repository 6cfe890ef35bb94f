-- Which executions are open stands in a table of its own. The partial index that told it took `ended_at` into an index, so that the end of an execution rewrote
-- three more index entries: a third of the cost of a settlement. Now that update stays within its page.
CREATE TABLE open_executions (
  execution_id bigint PRIMARY KEY,
  vendor       text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
INSERT INTO open_executions (execution_id, vendor) SELECT id, vendor FROM executions WHERE ended_at IS NULL;
DROP INDEX executions_open;

-- For batches of any size, as the other triggers of this table.
CREATE FUNCTION track_new_executions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO open_executions (execution_id, vendor) SELECT id, vendor FROM after WHERE ended_at IS NULL;
  RETURN NULL;
END
$$;
CREATE FUNCTION track_changed_executions() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off SET enable_seqscan = off AS $$
BEGIN
  -- One that was reopened comes back; the others are few look-ups by key.
  INSERT INTO open_executions (execution_id, vendor)
  SELECT a.id, a.vendor FROM after a WHERE a.ended_at IS NULL AND EXISTS (SELECT 1 FROM before b WHERE b.id = a.id AND b.ended_at IS NOT NULL)
  ON CONFLICT DO NOTHING;
  DELETE FROM open_executions WHERE execution_id = ANY (ARRAY(SELECT id FROM after WHERE ended_at IS NOT NULL));
  RETURN NULL;
END
$$;
CREATE FUNCTION track_removed_executions() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  DELETE FROM open_executions WHERE execution_id = ANY (ARRAY(SELECT id FROM before WHERE ended_at IS NULL));
  RETURN NULL;
END
$$;
CREATE TRIGGER executions_tracked_when_new AFTER INSERT ON executions REFERENCING NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION track_new_executions();
CREATE TRIGGER executions_tracked_when_changed AFTER UPDATE ON executions REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION track_changed_executions();
CREATE TRIGGER executions_tracked_when_removed AFTER DELETE ON executions REFERENCING OLD TABLE AS before
  FOR EACH STATEMENT EXECUTE FUNCTION track_removed_executions();

-- What tasks make of an execution. `outcome` is theirs when all are done, and null before. Both are expressions by name: Postgres puts them in place.
CREATE FUNCTION status_by_tasks(old executions, outcome text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    -- Only a person or a repair leaves a final state; tasks may at most correct which one it is.
    WHEN old.ended_at IS NOT NULL AND (old.pinned OR outcome IS NULL OR old.planned_at IS NULL) THEN old.status
    WHEN outcome IS NULL OR old.planned_at IS NULL THEN CASE old.status WHEN 'Paused' THEN 'Paused' ELSE 'Running' END
    ELSE outcome
  END
$$;
CREATE FUNCTION end_by_tasks(old executions, outcome text, last_end timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN old.ended_at IS NOT NULL AND (old.pinned OR outcome IS NULL OR old.planned_at IS NULL OR old.status = outcome) THEN old.ended_at
    WHEN outcome IS NULL OR old.planned_at IS NULL THEN NULL
    ELSE coalesce(last_end, now())
  END
$$;

-- As before, with one look at each execution instead of two.
CREATE OR REPLACE FUNCTION settle_executions(ids bigint[]) RETURNS SETOF executions LANGUAGE plpgsql
  -- A thousand look-ups by key, whatever the statistics say: those of a table that grew a moment ago are old.
  SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  -- Each statement has a snapshot of its own. The lock comes first, so that of two settlements of one execution the later one also counts later.
  PERFORM 1 FROM executions e WHERE e.id = ANY (ids) ORDER BY e.id FOR NO KEY UPDATE;
  -- Before tasks are counted: one that changes in between is counted and stays noted, which costs one settlement more and loses nothing.
  DELETE FROM task_changes c WHERE c.execution_id = ANY (ids);
  RETURN QUERY
  UPDATE executions e
     SET status = status_by_tasks(e, c.outcome), tasks_total = c.total, tasks_pending = c.pending, tasks_running = c.running,
         tasks_waiting = c.waiting, tasks_failed = c.failed, tasks_stopped = c.stopped, tasks_succeeded = c.succeeded,
         started_at = coalesce(e.started_at, c.first_start), ended_at = end_by_tasks(e, c.outcome, c.last_end),
         updated_at = now(), revision = e.revision + 1
    FROM (SELECT t.execution_id,
                 count(*)::integer AS total,
                 (count(*) FILTER (WHERE t.status IN ('Pending', 'Scheduled')))::integer AS pending,
                 (count(*) FILTER (WHERE t.status = 'Running'))::integer AS running,
                 (count(*) FILTER (WHERE t.status = 'Error' AND t.retry_at IS NOT NULL))::integer AS waiting,
                 (count(*) FILTER (WHERE t.status = 'Error' AND t.retry_at IS NULL))::integer AS failed,
                 (count(*) FILTER (WHERE t.status = 'Stopped'))::integer AS stopped,
                 (count(*) FILTER (WHERE t.status = 'Success'))::integer AS succeeded,
                 min(t.started_at) AS first_start,
                 max(t.ended_at) AS last_end,
                 CASE
                   WHEN bool_or(t.status IN ('Pending', 'Scheduled', 'Running') OR t.retry_at IS NOT NULL) THEN NULL
                   WHEN bool_or(t.status = 'Error') THEN 'Error'
                   WHEN bool_or(t.status = 'Stopped') THEN 'Stopped'
                   ELSE 'Success'
                 END AS outcome
            FROM tasks t WHERE t.execution_id = ANY (ids) GROUP BY t.execution_id) c
   WHERE e.id = c.execution_id AND e.id = ANY (ids)
     AND (e.status, e.tasks_total, e.tasks_pending, e.tasks_running, e.tasks_waiting, e.tasks_failed, e.tasks_stopped, e.tasks_succeeded,
          e.started_at, e.ended_at)
         IS DISTINCT FROM (status_by_tasks(e, c.outcome), c.total, c.pending, c.running, c.waiting, c.failed, c.stopped, c.succeeded,
                           coalesce(e.started_at, c.first_start), end_by_tasks(e, c.outcome, c.last_end))
  RETURNING e.*;
END
$$;

-- As before, without sorting: parts are counted over all changes of the statement.
CREATE OR REPLACE FUNCTION tell_execution_changes() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off SET enable_mergejoin = off SET enable_sort = off AS $$
BEGIN
  INSERT INTO outbox (kind, key, payload)
  SELECT 'execution-event', c.vendor,
         jsonb_build_object('vendor', c.vendor, 'from', c.old_status, 'to', c.new_status, 'at', now(), 'ids', to_jsonb(array_agg(c.id)),
                            'vendor_ids', to_jsonb(array_agg(c.vendor_id)), 'revisions', to_jsonb(array_agg(c.revision)))
    FROM (SELECT a.id, a.vendor, a.vendor_id, a.revision, b.status AS old_status, a.status AS new_status, (row_number() OVER () - 1) / 500 AS part
            FROM after a JOIN before b ON b.id = a.id WHERE a.status <> b.status) c
   GROUP BY c.vendor, c.old_status, c.new_status, c.part;
  RETURN NULL;
END
$$;

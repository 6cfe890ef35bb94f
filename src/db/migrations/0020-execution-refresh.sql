-- Refresh of executions in batches of a thousand.
--
-- Whether a task's latest state was taken into account used to be a flag of the task: clearing it rewrote every task and two index entries once
-- more, which was half of the cost of a settlement. Now every statement that changes tasks notes their executions, and a settlement removes the
-- notes. `tasks.applied` is read no longer; processes of the earlier version still write it.

-- Append-only, several rows for one execution: a task that changes never waits for another task of its execution.
CREATE TABLE task_changes (
  execution_id bigint NOT NULL,
  changed_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX task_changes_by_execution ON task_changes (execution_id);
INSERT INTO task_changes (execution_id) SELECT DISTINCT execution_id FROM tasks WHERE NOT applied;
DROP INDEX tasks_unapplied;

CREATE FUNCTION note_new_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO task_changes (execution_id) SELECT DISTINCT execution_id FROM after;
  RETURN NULL;
END
$$;
CREATE TRIGGER tasks_noted_when_new AFTER INSERT ON tasks REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION note_new_tasks();

-- Figures in extra_attrs change often and decide nothing.
CREATE FUNCTION note_changed_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO task_changes (execution_id)
  SELECT DISTINCT a.execution_id FROM after a JOIN before b ON b.id = a.id
   WHERE (a.status, a.retry_at, a.started_at, a.ended_at) IS DISTINCT FROM (b.status, b.retry_at, b.started_at, b.ended_at);
  RETURN NULL;
END
$$;
CREATE TRIGGER tasks_noted_when_changed AFTER UPDATE ON tasks REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION note_changed_tasks();

-- Ends follow the order of the rows, more or less: a summary of the pages finds old ones, and costs an ending execution nothing.
DROP INDEX executions_by_end;
CREATE INDEX executions_by_end ON executions USING brin (ended_at) WITH (autosummarize = on);

-- The only place where tasks decide about their execution. Returns the rows that changed.
--
-- Each statement below has a snapshot of its own. The lock comes first, so that of two settlements of one execution the later one also counts
-- later. The notes go before tasks are counted: a task that changes in between is counted and stays noted, which costs one settlement more and
-- loses nothing.
CREATE OR REPLACE FUNCTION settle_executions(ids bigint[]) RETURNS SETOF executions LANGUAGE plpgsql
  -- A thousand look-ups by key, whatever the statistics say: those of a table that grew a moment ago are old.
  SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  PERFORM 1 FROM executions e WHERE e.id = ANY (ids) ORDER BY e.id FOR NO KEY UPDATE;
  DELETE FROM task_changes c WHERE c.execution_id = ANY (ids);
  RETURN QUERY
  WITH counted AS (
    SELECT t.execution_id,
           count(*)::integer AS total,
           (count(*) FILTER (WHERE t.status IN ('Pending', 'Scheduled')))::integer AS pending,
           (count(*) FILTER (WHERE t.status = 'Running'))::integer AS running,
           (count(*) FILTER (WHERE t.status = 'Error' AND t.retry_at IS NOT NULL))::integer AS waiting,
           (count(*) FILTER (WHERE t.status = 'Error' AND t.retry_at IS NULL))::integer AS failed,
           (count(*) FILTER (WHERE t.status = 'Stopped'))::integer AS stopped,
           (count(*) FILTER (WHERE t.status = 'Success'))::integer AS succeeded,
           min(t.started_at) AS first_start,
           max(t.ended_at) AS last_end
      FROM tasks t
     WHERE t.execution_id = ANY (ids)
     GROUP BY t.execution_id
  ), timed AS (
    SELECT c.*, e.status AS old_status, e.ended_at AS old_end, coalesce(e.started_at, c.first_start) AS new_start,
           CASE
             -- Only a person or a repair leaves a final state; tasks may at most correct which one it is.
             WHEN e.ended_at IS NOT NULL AND (e.pinned OR c.pending + c.running + c.waiting > 0 OR e.planned_at IS NULL) THEN e.status
             WHEN c.pending + c.running + c.waiting > 0 OR e.planned_at IS NULL
               THEN CASE e.status WHEN 'Paused' THEN 'Paused' ELSE 'Running' END
             WHEN c.failed > 0 THEN 'Error'
             WHEN c.stopped > 0 THEN 'Stopped'
             ELSE 'Success'
           END AS new_status
      FROM counted c JOIN executions e ON e.id = c.execution_id
     WHERE e.id = ANY (ids)
  ), judged AS (
    SELECT t.*,
           CASE
             WHEN t.new_status NOT IN ('Stopped', 'Error', 'Success', 'Skipped') THEN NULL
             WHEN t.old_end IS NOT NULL AND t.old_status = t.new_status THEN t.old_end
             ELSE coalesce(t.last_end, now())
           END AS new_end
      FROM timed t
  )
  UPDATE executions e
     SET status = s.new_status, tasks_total = s.total, tasks_pending = s.pending, tasks_running = s.running, tasks_waiting = s.waiting,
         tasks_failed = s.failed, tasks_stopped = s.stopped, tasks_succeeded = s.succeeded, started_at = s.new_start, ended_at = s.new_end,
         updated_at = now(), revision = e.revision + 1
    FROM judged s
   WHERE e.id = s.execution_id
     AND (e.status, e.tasks_total, e.tasks_pending, e.tasks_running, e.tasks_waiting, e.tasks_failed, e.tasks_stopped, e.tasks_succeeded,
          e.started_at, e.ended_at)
         IS DISTINCT FROM (s.new_status, s.total, s.pending, s.running, s.waiting, s.failed, s.stopped, s.succeeded, s.new_start, s.new_end)
  RETURNING e.*;
END
$$;

-- What happened to an execution is told once, by whatever statement changed its status: the rows for the outbox are part of it. One row tells of
-- many executions that changed alike, so that a batch of a thousand costs a few rows.
CREATE FUNCTION tell_execution_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO outbox (kind, key, payload)
  SELECT 'execution-event', c.vendor,
         jsonb_build_object('vendor', c.vendor, 'from', c.old_status, 'to', c.new_status, 'at', now(), 'ids', to_jsonb(array_agg(c.id)),
                            'vendor_ids', to_jsonb(array_agg(c.vendor_id)), 'revisions', to_jsonb(array_agg(c.revision)))
    FROM (SELECT a.id, a.vendor, a.vendor_id, a.revision, b.status AS old_status, a.status AS new_status,
                 (row_number() OVER (PARTITION BY a.vendor, b.status, a.status) - 1) / 500 AS part
            FROM after a JOIN before b ON b.id = a.id WHERE a.status <> b.status) c
   GROUP BY c.vendor, c.old_status, c.new_status, c.part;
  RETURN NULL;
END
$$;
CREATE TRIGGER executions_told AFTER UPDATE ON executions REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION tell_execution_changes();

-- Marks that could not be given to the key-value service; replayed when it is back.
CREATE TABLE refresh_marks (
  execution_id bigint PRIMARY KEY,
  vendor       text NOT NULL,
  urgent       boolean NOT NULL,
  marked_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Executions whose refresh fails by themselves. Set aside, they are left alone until somebody, or the reconciler, asks for another try.
CREATE TABLE refresh_failures (
  execution_id bigint PRIMARY KEY REFERENCES executions ON DELETE CASCADE,
  attempts     integer NOT NULL DEFAULT 1,
  last_error   text NOT NULL,
  first_at     timestamptz NOT NULL DEFAULT now(),
  last_at      timestamptz NOT NULL DEFAULT now(),
  set_aside_at timestamptz
);

-- Executions and tasks of every vendor: replication, collection, expiry and whatever else runs long.

CREATE TABLE executions (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  vendor         text NOT NULL,
  -- What the vendor's execution is about (a policy); none for system-wide work.
  vendor_id      bigint,
  status         text NOT NULL DEFAULT 'Pending'
                 CHECK (status IN ('Pending', 'Running', 'Paused', 'Stopped', 'Error', 'Success', 'Skipped')),
  status_message text NOT NULL DEFAULT '',
  trigger        text NOT NULL DEFAULT 'manual' CHECK (trigger IN ('manual', 'scheduled', 'event')),
  -- Set explicitly (stopped, skipped, abandoned), so that tasks no longer decide the final status.
  pinned         boolean NOT NULL DEFAULT false,
  -- No task is added after this; before it no execution ends by its tasks.
  planned_at     timestamptz,
  tasks_total     integer NOT NULL DEFAULT 0,
  tasks_pending   integer NOT NULL DEFAULT 0,
  tasks_running   integer NOT NULL DEFAULT 0,
  tasks_waiting   integer NOT NULL DEFAULT 0,
  tasks_failed    integer NOT NULL DEFAULT 0,
  tasks_stopped   integer NOT NULL DEFAULT 0,
  tasks_succeeded integer NOT NULL DEFAULT 0,
  extra_attrs    jsonb NOT NULL DEFAULT '{}',
  workflow_id    text,
  run_id         text,
  revision       bigint NOT NULL DEFAULT 1,
  created_at     timestamptz NOT NULL DEFAULT now(),
  started_at     timestamptz,
  updated_at     timestamptz NOT NULL DEFAULT now(),
  ended_at       timestamptz,
  CONSTRAINT executions_end_is_final CHECK ((ended_at IS NOT NULL) = (status IN ('Stopped', 'Error', 'Success', 'Skipped')))
) WITH (fillfactor = 80);
CREATE INDEX executions_by_vendor ON executions (vendor, vendor_id, id DESC);
CREATE INDEX executions_by_end ON executions (vendor, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX executions_open ON executions (vendor, id) WHERE ended_at IS NULL;
-- A run has one execution, however often its first activity is tried.
CREATE UNIQUE INDEX executions_by_run ON executions (workflow_id, run_id) WHERE run_id IS NOT NULL;

CREATE TABLE tasks (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  execution_id    bigint NOT NULL REFERENCES executions ON DELETE CASCADE,
  -- The producer's own name of the task, so that adding it twice adds it once.
  key             text NOT NULL,
  status          text NOT NULL DEFAULT 'Pending'
                  CHECK (status IN ('Pending', 'Scheduled', 'Running', 'Stopped', 'Error', 'Success')),
  -- Grows with every attempt; an older attempt's news is refused.
  status_revision bigint NOT NULL DEFAULT 0,
  status_message  text NOT NULL DEFAULT '',
  run_count       integer NOT NULL DEFAULT 0,
  -- A failed task that will be tried again then: still open.
  retry_at        timestamptz CHECK (retry_at IS NULL OR status = 'Error'),
  -- Whether the execution has taken this task's latest state into account. Every statement that changes the status clears it.
  applied         boolean NOT NULL DEFAULT false,
  extra_attrs     jsonb NOT NULL DEFAULT '{}',
  created_at      timestamptz NOT NULL DEFAULT now(),
  started_at      timestamptz,
  updated_at      timestamptz NOT NULL DEFAULT now(),
  ended_at        timestamptz,
  UNIQUE (execution_id, key)
) WITH (fillfactor = 80);
CREATE INDEX tasks_unapplied ON tasks (updated_at, execution_id) WHERE NOT applied;
CREATE INDEX tasks_retry ON tasks (retry_at) WHERE retry_at IS NOT NULL;

CREATE FUNCTION task_status_rank(status text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE status WHEN 'Pending' THEN 0 WHEN 'Scheduled' THEN 1 WHEN 'Running' THEN 2 ELSE 3 END
$$;

-- The only place where tasks decide about their execution. Returns the rows that changed.
--
-- Each statement below has a snapshot of its own. The lock comes first, so that of two settlements of one execution the later one also counts
-- later. Tasks are marked applied before they are counted: one that changes in between is counted and stays marked as not applied, which
-- costs one settlement more and loses nothing.
CREATE FUNCTION settle_executions(ids bigint[]) RETURNS SETOF executions LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM executions e WHERE e.id = ANY (ids) ORDER BY e.id FOR NO KEY UPDATE;
  UPDATE tasks t SET applied = true WHERE t.execution_id = ANY (ids) AND NOT t.applied;
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
  ), judged AS (
    SELECT e.id, c.*,
           CASE
             -- Only a person or a repair leaves a final state; tasks may at most correct which one it is.
             WHEN e.ended_at IS NOT NULL AND (e.pinned OR c.pending + c.running + c.waiting > 0 OR e.planned_at IS NULL) THEN e.status
             WHEN c.pending + c.running + c.waiting > 0 OR e.planned_at IS NULL
               THEN CASE e.status WHEN 'Paused' THEN 'Paused' ELSE 'Running' END
             WHEN c.failed > 0 THEN 'Error'
             WHEN c.stopped > 0 THEN 'Stopped'
             ELSE 'Success'
           END AS new_status
      FROM executions e JOIN counted c ON c.execution_id = e.id
     WHERE e.id = ANY (ids)
  ), timed AS (
    SELECT j.*,
           coalesce(e.started_at, j.first_start) AS new_start,
           CASE
             WHEN j.new_status NOT IN ('Stopped', 'Error', 'Success', 'Skipped') THEN NULL
             WHEN e.ended_at IS NOT NULL AND e.status = j.new_status THEN e.ended_at
             ELSE coalesce(j.last_end, now())
           END AS new_end
      FROM judged j JOIN executions e ON e.id = j.id
  )
  UPDATE executions e
     SET status = s.new_status, tasks_total = s.total, tasks_pending = s.pending, tasks_running = s.running, tasks_waiting = s.waiting,
         tasks_failed = s.failed, tasks_stopped = s.stopped, tasks_succeeded = s.succeeded, started_at = s.new_start, ended_at = s.new_end,
         updated_at = now(), revision = e.revision + 1
    FROM timed s
   WHERE e.id = s.id
     AND (e.status, e.tasks_total, e.tasks_pending, e.tasks_running, e.tasks_waiting, e.tasks_failed, e.tasks_stopped, e.tasks_succeeded,
          e.started_at, e.ended_at)
         IS DISTINCT FROM (s.new_status, s.total, s.pending, s.running, s.waiting, s.failed, s.stopped, s.succeeded, s.new_start, s.new_end)
  RETURNING e.*;
END
$$;

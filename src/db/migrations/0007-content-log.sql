-- What is kept in storage so that rows can be rebuilt: an order that outlives the database, and the settings of projects.

-- Numbers of the outbox name and order the records in storage. They start at the microseconds since the epoch, so that those of a
-- database that follows a lost one come after everything that was written before.
SELECT setval(pg_get_serial_sequence('outbox', 'id'), greatest(
  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, (SELECT coalesce(max(id), 1) FROM outbox)));

-- Written by triggers, so that no writer can forget it. The row only says that there is news: the relay reads the project as it is then.
CREATE FUNCTION record_project() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO outbox (kind, key, payload) VALUES ('project-record', CASE WHEN TG_OP = 'DELETE' THEN OLD.name ELSE NEW.name END, '{}');
  RETURN NULL;
END $$;
CREATE TRIGGER projects_recorded AFTER INSERT OR DELETE ON projects FOR EACH ROW EXECUTE FUNCTION record_project();
CREATE TRIGGER projects_recorded_again AFTER UPDATE OF public, registry_id, metadata, storage_limit ON projects
  FOR EACH ROW EXECUTE FUNCTION record_project();

CREATE FUNCTION record_projects_of_registry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO outbox (kind, key, payload) SELECT 'project-record', p.name, '{}' FROM projects p WHERE p.registry_id = NEW.id ORDER BY p.name;
  RETURN NULL;
END $$;
CREATE TRIGGER registries_recorded
  AFTER UPDATE OF name, type, url, mirrors, hosts, credential_type, ca_certificate, insecure, enabled, priority, is_default, routes, prefix, projects,
    description, origin ON registries
  FOR EACH ROW EXECUTE FUNCTION record_projects_of_registry();

INSERT INTO outbox (kind, key, payload) SELECT 'project-record', name, '{}' FROM projects ORDER BY id;

-- When rows were last rebuilt to the end. Until then bytes without a row are no garbage where storage has records older than the database.
CREATE TABLE reconciliations (
  finished_at timestamptz PRIMARY KEY DEFAULT now()
);

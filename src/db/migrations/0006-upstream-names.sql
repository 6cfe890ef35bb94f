-- How names of an upstream are made, and what the view of the cache reads.

-- Put before every path that does not begin with it.
ALTER TABLE registries ADD COLUMN prefix text NOT NULL DEFAULT '';
-- [{"name": "team-a", "pattern": "team-a/*", "priority": 100, "isDefault": false}]: projects there, and the names that belong to them.
ALTER TABLE registries ADD COLUMN projects jsonb NOT NULL DEFAULT '[]';

-- Size and kind stand beside the use, so that pages and totals come from indexes alone.
ALTER TABLE cache_usage ADD COLUMN kind text NOT NULL DEFAULT 'blob' CHECK (kind IN ('blob', 'manifest'));
ALTER TABLE cache_usage ADD COLUMN size bigint NOT NULL DEFAULT 0;
UPDATE cache_usage u SET size = b.size,
  kind = CASE WHEN EXISTS (SELECT 1 FROM manifests m WHERE m.digest = u.digest) THEN 'manifest' ELSE 'blob' END
  FROM blobs b WHERE b.digest = u.digest;
CREATE FUNCTION describe_cached() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.size := coalesce((SELECT b.size FROM blobs b WHERE b.digest = NEW.digest), 0);
  NEW.kind := CASE WHEN EXISTS (SELECT 1 FROM manifests m WHERE m.digest = NEW.digest) THEN 'manifest' ELSE 'blob' END;
  RETURN NEW;
END $$;
CREATE TRIGGER cache_usage_described BEFORE INSERT ON cache_usage FOR EACH ROW EXECUTE FUNCTION describe_cached();
CREATE INDEX cache_usage_by_size ON cache_usage (size, digest);
CREATE INDEX cache_usage_totals ON cache_usage (kind) INCLUDE (size);

-- Hits and misses of all processes since the beginning, added up in batches.
CREATE TABLE cache_counters (
  name  text COLLATE "C" PRIMARY KEY,
  value bigint NOT NULL DEFAULT 0
);

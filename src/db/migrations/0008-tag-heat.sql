-- Heat is what clients pull, halved each day; until now it counted our own checks.
ALTER TABLE proxy_tags ADD COLUMN heat_at timestamptz NOT NULL DEFAULT now();
UPDATE proxy_tags SET heat = 0 WHERE heat > 0;
-- Names that upstream does not have are forgotten after a while.
CREATE INDEX proxy_tags_absent ON proxy_tags (fresh_until) WHERE digest IS NULL;

-- What was copied along with a tag: signatures that come later to an unchanged tag are noticed by it. Null: not known.
ALTER TABLE replication_known ADD COLUMN referrers text[];

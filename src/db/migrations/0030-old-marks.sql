-- Whether marks that earlier designs left in Redis are being drained, for the whole deployment: one row, so that what is empty is not scanned again.
CREATE TABLE old_mark_drain (
  id        integer PRIMARY KEY DEFAULT 1 CHECK (id = 1),
  phase     text NOT NULL DEFAULT 'none' CHECK (phase IN ('none', 'draining', 'drained')),
  passes    bigint NOT NULL DEFAULT 0,
  marked    bigint NOT NULL DEFAULT 0,
  malformed bigint NOT NULL DEFAULT 0,
  began_at  timestamptz,
  ended_at  timestamptz
);
INSERT INTO old_mark_drain DEFAULT VALUES;

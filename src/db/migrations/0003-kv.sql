-- The key-value contract where there is no Redis. Unlogged: everything here may be lost, and a crash of the server empties it.

CREATE UNLOGGED TABLE kv_entries (
  key        text COLLATE "C" PRIMARY KEY,
  value      text NOT NULL,
  expires_at timestamptz
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX kv_entries_expiry ON kv_entries (expires_at) WHERE expires_at IS NOT NULL;

CREATE UNLOGGED TABLE kv_groups (
  name       text COLLATE "C" NOT NULL,
  member     text COLLATE "C" NOT NULL,
  value      text NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (name, member)
) WITH (fillfactor = 50);

CREATE UNLOGGED TABLE kv_leases (
  key        text COLLATE "C" PRIMARY KEY,
  owner      text NOT NULL,
  fence      bigint NOT NULL,
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- A waiting member is ready since its mark; a claimed one has a token and is ready when its lease ends. `ready_at` is in no index, so that
-- a claim rewrites the row in its page only.
CREATE UNLOGGED TABLE kv_queue (
  queue       text COLLATE "C" NOT NULL,
  slot        integer NOT NULL,
  member      text COLLATE "C" NOT NULL,
  marked_at   timestamptz NOT NULL,
  ready_at    timestamptz NOT NULL,
  token       bigint,
  remarked_at timestamptz,
  PRIMARY KEY (queue, slot, member)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX kv_queue_order ON kv_queue (queue, slot, marked_at);

CREATE SEQUENCE kv_claim_tokens CACHE 100;

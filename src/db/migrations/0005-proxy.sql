-- Upstream registries and what pull-through knows about them.

CREATE TABLE registries (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          text COLLATE "C" NOT NULL UNIQUE,
  type          text NOT NULL DEFAULT 'docker-registry',
  url           text NOT NULL,
  -- Further addresses of the same registry, tried in order when the first does not answer.
  mirrors       jsonb NOT NULL DEFAULT '[]',
  -- Host names under which requests may name it (/v2/<host>/..., ?ns=<host>).
  hosts         jsonb NOT NULL DEFAULT '[]',
  credential_type text NOT NULL DEFAULT '',
  access_key    text NOT NULL DEFAULT '',
  -- Encrypted; bound to the origin of `url`.
  access_secret text NOT NULL DEFAULT '',
  ca_certificate text NOT NULL DEFAULT '',
  insecure      boolean NOT NULL DEFAULT false,
  enabled       boolean NOT NULL DEFAULT true,
  priority      integer NOT NULL DEFAULT 100,
  is_default    boolean NOT NULL DEFAULT false,
  -- [{"pattern": "team-*", "priority": 100}], globs over repository names without a project.
  routes        jsonb NOT NULL DEFAULT '[]',
  description   text NOT NULL DEFAULT '',
  status        text NOT NULL DEFAULT 'healthy',
  -- Who keeps the row: 'rest', 'config' (follows the configuration file) or 'default'.
  origin        text NOT NULL DEFAULT 'rest',
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE projects ADD CONSTRAINT projects_registry FOREIGN KEY (registry_id) REFERENCES registries ON DELETE RESTRICT;

-- Freshness of names. Content lives in the same tables as pushed content; this says when upstream last confirmed it.
CREATE TABLE proxy_tags (
  project_id  bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
  -- Full name, as in repositories.name.
  repository  text COLLATE "C" NOT NULL,
  tag         text COLLATE "C" NOT NULL,
  -- Null: upstream said that there is none.
  digest      text COLLATE "C",
  media_type  text,
  size        bigint,
  etag        text,
  checked_at  timestamptz NOT NULL,
  fresh_until timestamptz NOT NULL,
  -- What the last attempt to check gave: an HTTP status, or 0 for no answer.
  last_status integer NOT NULL DEFAULT 200,
  -- Pulls lately, halved daily; hot tags are refreshed before they are asked for.
  heat        real NOT NULL DEFAULT 0,
  PRIMARY KEY (project_id, repository, tag)
);
CREATE INDEX proxy_tags_by_heat ON proxy_tags (heat DESC) WHERE heat > 1;

-- Lists (tags, referrers) as upstream last gave them, served stale when it is away.
CREATE TABLE proxy_lists (
  project_id  bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
  repository  text COLLATE "C" NOT NULL,
  -- 'tags', or 'referrers:<digest>'.
  kind        text COLLATE "C" NOT NULL,
  items       jsonb NOT NULL,
  checked_at  timestamptz NOT NULL,
  fresh_until timestamptz NOT NULL,
  PRIMARY KEY (project_id, repository, kind)
);

-- One row per blob on its way from upstream. The lease names the process that fetches; others follow it.
CREATE TABLE fills (
  digest        text COLLATE "C" PRIMARY KEY,
  size          bigint,
  project_id    bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
  repository    text COLLATE "C" NOT NULL,
  -- Boot id of the owner, its host (who shares local staging) and its internal address.
  owner         text,
  owner_host    text,
  owner_address text,
  -- Grows with every owner; writes of a former owner are refused by it.
  fence         integer NOT NULL DEFAULT 0,
  lease_until   timestamptz,
  staged_bytes  bigint NOT NULL DEFAULT 0,
  attempts      integer NOT NULL DEFAULT 0,
  last_error    text,
  started_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX fills_by_lease ON fills (lease_until);

-- Use of cached content, flushed in batches; eviction orders by it.
CREATE TABLE cache_usage (
  digest         text COLLATE "C" PRIMARY KEY REFERENCES blobs ON DELETE CASCADE,
  fetched_at     timestamptz NOT NULL DEFAULT now(),
  last_access_at timestamptz NOT NULL DEFAULT now(),
  access_count   bigint NOT NULL DEFAULT 0,
  pinned         boolean NOT NULL DEFAULT false
);
CREATE INDEX cache_usage_by_access ON cache_usage (last_access_at);
CREATE INDEX cache_usage_by_count ON cache_usage (access_count, last_access_at);
CREATE INDEX cache_usage_by_fetch ON cache_usage (fetched_at);

-- Platforms that clients asked for, so that an index prefetches what will be needed.
CREATE TABLE proxy_platforms (
  project_id bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
  platform   text NOT NULL,
  asked_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (project_id, platform)
);

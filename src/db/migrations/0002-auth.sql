-- Who may do what: users, memberships, robots, and the keys that sign access tokens.

CREATE TABLE users (
  id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  username           text COLLATE "C" NOT NULL,
  password_hash      text NOT NULL,
  -- Part of every token: a change ends the tokens that were issued before it.
  credential_version integer NOT NULL DEFAULT 1,
  sysadmin           boolean NOT NULL DEFAULT false,
  email              text NOT NULL DEFAULT '',
  realname           text NOT NULL DEFAULT '',
  comment            text NOT NULL DEFAULT '',
  created_at         timestamptz NOT NULL DEFAULT now(),
  updated_at         timestamptz NOT NULL DEFAULT now(),
  deleted_at         timestamptz
);
-- Names that differ in case only would be taken for each other; a deleted user's name is free again.
CREATE UNIQUE INDEX users_by_folded_name ON users (lower(username)) WHERE deleted_at IS NULL;
CREATE INDEX users_by_name ON users (username) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX users_by_email ON users (lower(email)) WHERE deleted_at IS NULL AND email <> '';
CREATE INDEX users_sysadmins ON users (id) WHERE sysadmin AND deleted_at IS NULL;

CREATE TABLE project_members (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
  user_id    bigint NOT NULL REFERENCES users ON DELETE CASCADE,
  -- 1 projectAdmin, 2 developer, 3 guest, 4 maintainer, 5 limitedGuest.
  role       smallint NOT NULL CHECK (role BETWEEN 1 AND 5),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (project_id, user_id)
);
CREATE INDEX project_members_by_user ON project_members (user_id, project_id);

CREATE TABLE robots (
  id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- Without the login prefix, which is a setting: "name", or "project+name" of a project robot.
  login_name         text COLLATE "C" NOT NULL UNIQUE,
  level              text NOT NULL CHECK (level IN ('system', 'project')),
  project_id         bigint REFERENCES projects ON DELETE CASCADE,
  description        text NOT NULL DEFAULT '',
  -- [{kind, namespace, access: [{resource, action}]}]
  permissions        jsonb NOT NULL DEFAULT '[]',
  secret_hash        text NOT NULL,
  credential_version integer NOT NULL DEFAULT 1,
  -- Guards updates against a concurrent one.
  version            integer NOT NULL DEFAULT 1,
  duration_days      integer NOT NULL DEFAULT -1,
  disabled           boolean NOT NULL DEFAULT false,
  -- NULL: never.
  expires_at         timestamptz,
  created_at         timestamptz NOT NULL DEFAULT now(),
  updated_at         timestamptz NOT NULL DEFAULT now(),
  CHECK ((level = 'project') = (project_id IS NOT NULL))
);
CREATE INDEX robots_by_project ON robots (project_id, id);

-- Refresh tokens ("identity tokens") by the hash of their secret.
CREATE TABLE refresh_tokens (
  token_hash         text COLLATE "C" PRIMARY KEY,
  principal          text COLLATE "C" NOT NULL,
  credential_version integer NOT NULL,
  created_at         timestamptz NOT NULL DEFAULT now(),
  expires_at         timestamptz NOT NULL
);
CREATE INDEX refresh_tokens_by_principal ON refresh_tokens (principal, created_at);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

-- A key signs from not_before until its successor does, and verifies until retire_at. The generation keeps processes that rotate at the
-- same moment from making two successors.
CREATE TABLE signing_keys (
  kid         text PRIMARY KEY,
  generation  integer NOT NULL UNIQUE,
  private_key text NOT NULL,
  not_before  timestamptz NOT NULL,
  retire_at   timestamptz,
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- One known text under the encryption key, so that a wrong key is noticed at start and not at the first secret.
CREATE TABLE encryption_check (
  only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  sealed     text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

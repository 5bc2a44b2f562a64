-- Ids are the 16 bytes of a UUID, instants microseconds since 1970-01-01T00:00:00Z, documents JSON text.

-- People known to the service, whom flags are evaluated for and who may sign in.
CREATE TABLE users (
    id BLOB PRIMARY KEY NOT NULL,
    email TEXT NOT NULL,
    -- The e-mail in lower case: unique without regard to case.
    email_key TEXT NOT NULL CONSTRAINT users_email_key UNIQUE,
    display_name TEXT,
    role TEXT NOT NULL,
    attributes TEXT NOT NULL,
    active BOOLEAN NOT NULL,
    -- E-mail and name in lower case, for search.
    search_text TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX idx_users_email ON users(email, id);

CREATE TABLE feature_flags (
    name TEXT PRIMARY KEY NOT NULL,
    flag_type TEXT NOT NULL,
    description TEXT,
    owner TEXT,
    tags TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    variants TEXT NOT NULL,
    default_serve TEXT NOT NULL,
    off_variant TEXT NOT NULL,
    targeting_rules TEXT NOT NULL,
    salt TEXT NOT NULL,
    client_visible BOOLEAN NOT NULL,
    archived_at INTEGER,
    default_set_at INTEGER NOT NULL,
    enabled_set_at INTEGER NOT NULL,
    -- Being deleted in several revisions; nothing but the deletion may touch it any more.
    deleting BOOLEAN NOT NULL DEFAULT false,
    -- Name and description in lower case, and the tags each between line feeds, for search.
    search_text TEXT NOT NULL,
    tags_text TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX idx_feature_flags_revision ON feature_flags(revision);

CREATE TABLE scheduled_changes (
    id BLOB PRIMARY KEY NOT NULL,
    flag_name TEXT NOT NULL REFERENCES feature_flags(name),
    scheduled_at INTEGER NOT NULL,
    serve TEXT,
    enabled BOOLEAN,
    description TEXT,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    cancelled_at INTEGER,
    -- When the worker recorded that it fell due; evaluation never looks at it.
    marked_at INTEGER,
    revision BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX scheduled_changes_instant ON scheduled_changes(flag_name, scheduled_at) WHERE cancelled_at IS NULL;
CREATE INDEX idx_scheduled_changes_at ON scheduled_changes(scheduled_at, id);

CREATE TABLE user_flag_overrides (
    id BLOB PRIMARY KEY NOT NULL DEFAULT (randomblob(16)),
    user_id BLOB NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    flag_name TEXT NOT NULL,
    override_value TEXT NOT NULL,
    enabled BOOLEAN DEFAULT true,
    reason TEXT,
    created_by TEXT NOT NULL,
    created_at INTEGER DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated_at INTEGER DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    expires_at INTEGER,
    revision BIGINT NOT NULL DEFAULT 0,
    UNIQUE(user_id, flag_name)
);
CREATE INDEX idx_user_flag_overrides_user ON user_flag_overrides(user_id);
CREATE INDEX idx_user_flag_overrides_flag ON user_flag_overrides(flag_name);
CREATE INDEX idx_user_flag_overrides_expires ON user_flag_overrides(expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX idx_user_flag_overrides_revision ON user_flag_overrides(revision, id);

CREATE TABLE api_tokens (
    id BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    -- SHA-256 of the token; the token itself is kept nowhere.
    token_hash BLOB NOT NULL CONSTRAINT api_tokens_hash UNIQUE,
    last_four TEXT NOT NULL,
    -- Exactly one of role and scope.
    role TEXT,
    scope TEXT,
    user_id BLOB REFERENCES users(id),
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    last_used_at INTEGER,
    revision BIGINT NOT NULL DEFAULT 0,
    CHECK ((role IS NULL) <> (scope IS NULL))
);
CREATE INDEX idx_api_tokens_user ON api_tokens(user_id);

-- Who an actor of the log is, in words. Apart from the log, so that erasing a person changes no log row.
CREATE TABLE actor_labels (
    actor TEXT PRIMARY KEY NOT NULL,
    label TEXT NOT NULL
);

-- One row: where the log stands. Updated last in every transaction that changes state, so that revisions are dense and
-- in commit order.
CREATE TABLE log_head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- Changes when a database was restored, as numbers would be used again.
    epoch BLOB NOT NULL,
    revision BIGINT NOT NULL,
    -- The lowest revision the log still holds.
    lowest_revision BIGINT NOT NULL
);
INSERT INTO log_head (id, epoch, revision, lowest_revision) VALUES (1, randomblob(16), 0, 1);

-- Every change to anything: audit trail, history and change feed at once.
CREATE TABLE change_log (
    revision BIGINT NOT NULL,
    ord INTEGER NOT NULL,
    id BLOB NOT NULL CONSTRAINT change_log_id UNIQUE,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    entity TEXT NOT NULL,
    entity_id BLOB,
    flag_name TEXT,
    user_id BLOB,
    before TEXT,
    after TEXT,
    reason TEXT,
    request_id TEXT,
    PRIMARY KEY (revision, ord)
);
CREATE INDEX idx_change_log_flag ON change_log(flag_name, revision) WHERE flag_name IS NOT NULL;
CREATE INDEX idx_change_log_user ON change_log(user_id, revision) WHERE user_id IS NOT NULL;
CREATE INDEX idx_change_log_actor ON change_log(actor, revision);

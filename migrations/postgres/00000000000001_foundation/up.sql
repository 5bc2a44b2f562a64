-- People known to the service, whom flags are evaluated for and who may sign in.
CREATE TABLE users (
    id UUID PRIMARY KEY,
    email VARCHAR(320) COLLATE "C" NOT NULL,
    -- The e-mail in lower case: unique without regard to case.
    email_key VARCHAR(640) COLLATE "C" NOT NULL CONSTRAINT users_email_key UNIQUE,
    display_name VARCHAR(255),
    role VARCHAR(16) NOT NULL,
    attributes JSONB NOT NULL,
    active BOOLEAN NOT NULL,
    -- E-mail and name in lower case, for search.
    search_text TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX idx_users_email ON users(email, id);

CREATE TABLE feature_flags (
    name VARCHAR(255) COLLATE "C" PRIMARY KEY,
    flag_type VARCHAR(16) NOT NULL,
    description TEXT,
    owner VARCHAR(255),
    tags JSONB NOT NULL,
    enabled BOOLEAN NOT NULL,
    variants JSONB NOT NULL,
    default_serve JSONB NOT NULL,
    off_variant TEXT NOT NULL,
    targeting_rules JSONB NOT NULL,
    salt TEXT NOT NULL,
    client_visible BOOLEAN NOT NULL,
    archived_at TIMESTAMP WITH TIME ZONE,
    default_set_at TIMESTAMP WITH TIME ZONE NOT NULL,
    enabled_set_at TIMESTAMP WITH TIME ZONE NOT NULL,
    -- Being deleted in several revisions; nothing but the deletion may touch it any more.
    deleting BOOLEAN NOT NULL DEFAULT false,
    -- Name and description in lower case, and the tags each between line feeds, for search.
    search_text TEXT COLLATE "C" NOT NULL,
    tags_text TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX idx_feature_flags_revision ON feature_flags(revision);

CREATE TABLE scheduled_changes (
    id UUID PRIMARY KEY,
    flag_name VARCHAR(255) COLLATE "C" NOT NULL REFERENCES feature_flags(name),
    scheduled_at TIMESTAMP WITH TIME ZONE NOT NULL,
    serve JSONB,
    enabled BOOLEAN,
    description TEXT,
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    cancelled_at TIMESTAMP WITH TIME ZONE,
    -- When the worker recorded that it fell due; evaluation never looks at it.
    marked_at TIMESTAMP WITH TIME ZONE,
    revision BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX scheduled_changes_instant ON scheduled_changes(flag_name, scheduled_at) WHERE cancelled_at IS NULL;
CREATE INDEX idx_scheduled_changes_at ON scheduled_changes(scheduled_at, id);

CREATE TABLE user_flag_overrides (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id UUID NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    flag_name VARCHAR(255) NOT NULL,
    override_value JSONB NOT NULL,
    enabled BOOLEAN DEFAULT true,
    reason VARCHAR(500),
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    expires_at TIMESTAMP WITH TIME ZONE,
    revision BIGINT NOT NULL DEFAULT 0,
    UNIQUE(user_id, flag_name)
);
CREATE INDEX idx_user_flag_overrides_user ON user_flag_overrides(user_id);
CREATE INDEX idx_user_flag_overrides_flag ON user_flag_overrides(flag_name);
CREATE INDEX idx_user_flag_overrides_expires ON user_flag_overrides(expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX idx_user_flag_overrides_revision ON user_flag_overrides(revision, id);

CREATE TABLE api_tokens (
    id UUID PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    -- SHA-256 of the token; the token itself is kept nowhere.
    token_hash BYTEA NOT NULL CONSTRAINT api_tokens_hash UNIQUE,
    last_four VARCHAR(4) NOT NULL,
    -- Exactly one of role and scope.
    role VARCHAR(16),
    scope VARCHAR(16),
    user_id UUID REFERENCES users(id),
    created_by VARCHAR(255) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    revision BIGINT NOT NULL DEFAULT 0,
    CHECK ((role IS NULL) <> (scope IS NULL))
);
CREATE INDEX idx_api_tokens_user ON api_tokens(user_id);

-- Who an actor of the log is, in words. Apart from the log, so that erasing a person changes no log row.
CREATE TABLE actor_labels (
    actor VARCHAR(255) PRIMARY KEY,
    label TEXT NOT NULL
);

-- One row: where the log stands. Updated last in every transaction that changes state, so that revisions are dense and
-- in commit order.
CREATE TABLE log_head (
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    -- Changes when a database was restored, as numbers would be used again.
    epoch UUID NOT NULL,
    revision BIGINT NOT NULL,
    -- The lowest revision the log still holds.
    lowest_revision BIGINT NOT NULL
);
INSERT INTO log_head (id, epoch, revision, lowest_revision) VALUES (1, gen_random_uuid(), 0, 1);

-- Every change to anything: audit trail, history and change feed at once.
CREATE TABLE change_log (
    revision BIGINT NOT NULL,
    ord INTEGER NOT NULL,
    id UUID NOT NULL CONSTRAINT change_log_id UNIQUE,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    actor VARCHAR(255) COLLATE "C" NOT NULL,
    action VARCHAR(32) COLLATE "C" NOT NULL,
    entity VARCHAR(32) COLLATE "C" NOT NULL,
    entity_id UUID,
    flag_name VARCHAR(255) COLLATE "C",
    user_id UUID,
    before JSONB,
    after JSONB,
    reason TEXT,
    request_id VARCHAR(64),
    PRIMARY KEY (revision, ord)
);
CREATE INDEX idx_change_log_flag ON change_log(flag_name, revision) WHERE flag_name IS NOT NULL;
CREATE INDEX idx_change_log_user ON change_log(user_id, revision) WHERE user_id IS NOT NULL;
CREATE INDEX idx_change_log_actor ON change_log(actor, revision);

-- Rings the listeners once a revision; they read the log themselves.
CREATE FUNCTION notify_change_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('flags_change_log', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER change_log_notify AFTER INSERT ON change_log FOR EACH STATEMENT EXECUTE FUNCTION notify_change_log();

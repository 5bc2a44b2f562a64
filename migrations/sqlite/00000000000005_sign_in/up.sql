-- Passwords of those who sign in to the admin UI. Apart from the users, so that nothing that reads users can leak them.
CREATE TABLE user_passwords (
    user_id BLOB PRIMARY KEY NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    -- Argon2id in the PHC string format.
    hash TEXT NOT NULL,
    set_at INTEGER NOT NULL
);

-- Who is signed in. Book-keeping: no row here is in the log.
CREATE TABLE sessions (
    id BLOB PRIMARY KEY NOT NULL,
    -- SHA-256 of the cookie's value; the value itself is kept nowhere.
    token_hash BLOB NOT NULL CONSTRAINT sessions_hash UNIQUE,
    user_id BLOB NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    -- To the minute.
    last_seen_at INTEGER NOT NULL,
    -- Void from this instant on, however much it is used.
    ends_at INTEGER NOT NULL
);
CREATE INDEX idx_sessions_user ON sessions(user_id);
CREATE INDEX idx_sessions_ends ON sessions(ends_at);
CREATE INDEX idx_sessions_last_seen ON sessions(last_seen_at);

-- Failed attempts to sign in, by account, address, and both: the next one has to wait the longer, the more there were.
CREATE TABLE sign_in_attempts (
    -- SHA-256 of whom or what it counts for: no e-mail and no address stands here.
    subject BLOB PRIMARY KEY NOT NULL,
    failures INTEGER NOT NULL,
    last_at INTEGER NOT NULL
);
CREATE INDEX idx_sign_in_attempts_last ON sign_in_attempts(last_at);

-- Where accounts were signed in to lately: there nobody waits for what others get wrong.
CREATE TABLE sign_in_places (
    user_id BLOB NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    -- SHA-256 of the address.
    place BLOB NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, place)
);
CREATE INDEX idx_sign_in_places_last ON sign_in_places(last_at);

-- How long a token was made for, in microseconds; NULL without end. One that is rotated ends sooner, and what follows it is
-- made for as long.
ALTER TABLE api_tokens ADD COLUMN lifetime BIGINT;
UPDATE api_tokens SET lifetime = expires_at - created_at;

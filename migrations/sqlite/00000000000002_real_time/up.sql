-- Which database wrote the log, where a database has an identity of its own (PostgreSQL does).
ALTER TABLE log_head ADD COLUMN lineage TEXT;

-- Requests that were carried out under a key of the caller's, so that a retry has no second effect. Kept for 24 hours.
CREATE TABLE idempotency_keys (
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    -- SHA-256 of the request; another request with the same key is refused.
    fingerprint BLOB NOT NULL,
    -- The answer the first request got, and the revision it spoke of.
    answer BLOB NOT NULL,
    revision BIGINT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (caller, key)
);
CREATE INDEX idx_idempotency_keys_created ON idempotency_keys(created_at);

-- What the worker has still to mark.
CREATE INDEX idx_scheduled_changes_unmarked ON scheduled_changes(scheduled_at)
    WHERE marked_at IS NULL AND cancelled_at IS NULL;

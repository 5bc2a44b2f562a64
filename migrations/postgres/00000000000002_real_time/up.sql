-- Which database wrote the log: the cluster's identifier and timeline. Another one means a restored backup or a failover,
-- after which revisions may be used again, so that a new epoch begins.
ALTER TABLE log_head ADD COLUMN lineage TEXT;

-- Requests that were carried out under a key of the caller's, so that a retry has no second effect. Kept for 24 hours.
CREATE TABLE idempotency_keys (
    caller VARCHAR(255) COLLATE "C" NOT NULL,
    key VARCHAR(255) COLLATE "C" NOT NULL,
    -- SHA-256 of the request; another request with the same key is refused.
    fingerprint BYTEA NOT NULL,
    -- The answer the first request got, and the revision it spoke of.
    answer BYTEA NOT NULL,
    revision BIGINT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (caller, key)
);
CREATE INDEX idx_idempotency_keys_created ON idempotency_keys(created_at);

-- What the worker has still to mark.
CREATE INDEX idx_scheduled_changes_unmarked ON scheduled_changes(scheduled_at)
    WHERE marked_at IS NULL AND cancelled_at IS NULL;

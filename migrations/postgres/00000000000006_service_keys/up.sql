-- What all servers sign with, so that each takes what another has signed. Made at random by whichever needs one first;
-- book-keeping, which stands in no log.
CREATE TABLE service_keys (
    -- What it is for.
    name TEXT PRIMARY KEY,
    -- 32 random bytes.
    secret BYTEA NOT NULL
);

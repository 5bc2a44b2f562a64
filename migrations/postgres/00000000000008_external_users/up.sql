-- Users may come from another system and have no e-mail address. `handle` is the e-mail address or, without one, the
-- external id. External ids contain no @, so the two kinds differ.
ALTER TABLE users RENAME COLUMN email TO handle;
ALTER INDEX idx_users_email RENAME TO idx_users_handle;
-- Unique: the compared form of the e-mail address, or the external id in lower case, a line feed and the external id.
-- If an older user has the same e-mail address in another spelling, a line feed and the spelling follow the address.
ALTER TABLE users RENAME COLUMN email_key TO handle_key;
ALTER TABLE users ALTER COLUMN handle_key TYPE TEXT COLLATE "C";
ALTER TABLE users RENAME CONSTRAINT users_email_key TO users_handle_key;
-- Id of the user in another system, compared byte by byte.
ALTER TABLE users ADD COLUMN external_id VARCHAR(255) COLLATE "C";
CREATE UNIQUE INDEX idx_users_external_id ON users(external_id) WHERE external_id IS NOT NULL;

-- Work that the program must do after the migrations. `server migrate` and the start of a server complete it.
CREATE TABLE pending_upgrades (
    name TEXT PRIMARY KEY
);
INSERT INTO pending_upgrades(name) VALUES ('email_keys');

-- Secret namespace from which the ids of users with an external id are derived.
INSERT INTO service_keys (name, secret)
SELECT 'user_ids', sha256(string_agg(uuid_send(gen_random_uuid()), ''::bytea)) FROM generate_series(1, 4);

-- Older programs would take the handle of a user without an e-mail address for one, and do not know role support.
UPDATE log_head SET min_reader = 2, min_writer = 2;

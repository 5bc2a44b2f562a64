-- Minimum versions of programs that may read and change this database. A migration raises them if older programs would
-- misread its data or write data that newer ones misread. See docs/operations.md.
ALTER TABLE log_head ADD COLUMN min_reader INTEGER NOT NULL DEFAULT 1;
ALTER TABLE log_head ADD COLUMN min_writer INTEGER NOT NULL DEFAULT 1;

-- From now on, a missing key is an error: a new key would invalidate stream tokens and page cursors without notice.
INSERT INTO service_keys (name, secret) VALUES ('event_streams', randomblob(32)) ON CONFLICT DO NOTHING;

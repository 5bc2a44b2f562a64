-- Older programs do not know role support. It includes role viewer.
UPDATE users SET role = 'viewer' WHERE role = 'support';
UPDATE api_tokens SET role = 'viewer' WHERE role = 'support';
UPDATE log_head SET min_reader = 1, min_writer = 1;
DELETE FROM service_keys WHERE name = 'user_ids';
DROP TABLE pending_upgrades;
-- The former schema cannot store users without an e-mail address.
DELETE FROM api_tokens WHERE user_id IN (SELECT id FROM users WHERE handle NOT LIKE '%@%');
DELETE FROM users WHERE handle NOT LIKE '%@%';
DROP INDEX idx_users_external_id;
ALTER TABLE users DROP COLUMN external_id;
ALTER TABLE users RENAME CONSTRAINT users_handle_key TO users_email_key;
ALTER TABLE users RENAME COLUMN handle_key TO email_key;
ALTER INDEX idx_users_handle RENAME TO idx_users_email;
ALTER TABLE users RENAME COLUMN handle TO email;

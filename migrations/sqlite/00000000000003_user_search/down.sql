DROP INDEX idx_users_created;
DROP TRIGGER users_search_delete;
DROP TRIGGER users_search_update;
DROP TRIGGER users_search_insert;
DROP TABLE users_search;
DROP INDEX idx_users_search;
DROP INDEX idx_users_name_start;
ALTER TABLE users DROP COLUMN name_start;
ALTER TABLE users DROP COLUMN search_doc;

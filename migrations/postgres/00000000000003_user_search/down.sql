DROP INDEX idx_users_created;
DROP INDEX idx_users_name_start;
ALTER TABLE users DROP COLUMN name_start;
DROP INDEX idx_users_search;
DROP FUNCTION text_trigrams(text);

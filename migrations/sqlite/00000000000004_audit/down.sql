DROP TRIGGER change_log_replaces_no_row;
DROP TRIGGER change_log_loses_no_row;
DROP TRIGGER change_log_keeps_its_rows;
DROP INDEX idx_actor_labels_user;
ALTER TABLE actor_labels DROP COLUMN user_id;
DROP INDEX idx_change_log_action;
DROP INDEX idx_change_log_at;

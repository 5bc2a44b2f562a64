DROP INDEX idx_actor_labels_user;
ALTER TABLE actor_labels DROP COLUMN user_id;
DROP INDEX idx_change_log_action;
DROP INDEX idx_change_log_at;

DROP TABLE change_log;
DROP TABLE log_head;
DROP TABLE actor_labels;
DROP TABLE api_tokens;
DROP TABLE user_flag_overrides;
DROP TABLE scheduled_changes;
DROP TABLE feature_flags;
DROP TABLE users;

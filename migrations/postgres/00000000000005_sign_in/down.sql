ALTER TABLE api_tokens DROP COLUMN lifetime;
DROP TABLE sign_in_places;
DROP TABLE sign_in_attempts;
DROP TABLE sessions;
DROP TABLE user_passwords;

-- What the audit trail is filtered by, beside flag, user and actor.
CREATE INDEX idx_change_log_at ON change_log(at, revision);
CREATE INDEX idx_change_log_action ON change_log(action, revision);

-- Whose label it is: of a token that acts as a user, that user's, so that erasing them finds it when the token and its rows
-- of the log are long gone.
ALTER TABLE actor_labels ADD COLUMN user_id BLOB;
CREATE INDEX idx_actor_labels_user ON actor_labels(user_id) WHERE user_id IS NOT NULL;
UPDATE actor_labels SET user_id = tokens.user_id
FROM (
    SELECT lower(hex(id)) AS hex, user_id FROM api_tokens WHERE user_id IS NOT NULL
    UNION
    SELECT lower(hex(entity_id)), user_id FROM change_log WHERE entity = 'api_token' AND user_id IS NOT NULL
) AS tokens
WHERE replace(actor, '-', '') = 'token:' || tokens.hex;

-- The names of tokens stand in their labels alone from now on.
UPDATE change_log SET
    before = CASE WHEN json_valid(before) THEN json_remove(before, '$.name') ELSE before END,
    after = CASE WHEN json_valid(after) THEN json_remove(after, '$.name') ELSE after END
WHERE entity = 'api_token';

-- What is in the log stays as it is, and only what the log says it no longer holds may go.
CREATE TRIGGER change_log_keeps_its_rows BEFORE UPDATE ON change_log
BEGIN
    SELECT RAISE(ABORT, 'a row of change_log cannot be changed');
END;
CREATE TRIGGER change_log_loses_no_row BEFORE DELETE ON change_log
WHEN (OLD.revision < (SELECT lowest_revision FROM log_head)) IS NOT TRUE
BEGIN
    SELECT RAISE(ABORT, 'a row of change_log cannot be removed');
END;
-- An insertion that replaces a row would ring neither.
CREATE TRIGGER change_log_replaces_no_row BEFORE INSERT ON change_log
WHEN EXISTS (SELECT 1 FROM change_log WHERE revision = NEW.revision AND ord = NEW.ord)
    OR EXISTS (SELECT 1 FROM change_log WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'a row of change_log cannot be replaced');
END;

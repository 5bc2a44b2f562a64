-- What the audit trail is filtered by, beside flag, user and actor.
CREATE INDEX idx_change_log_at ON change_log(at, revision);
CREATE INDEX idx_change_log_action ON change_log(action, revision);

-- Whose label it is: of a token that acts as a user, that user's, so that erasing them finds it when the token and its rows
-- of the log are long gone.
ALTER TABLE actor_labels ADD COLUMN user_id UUID;
CREATE INDEX idx_actor_labels_user ON actor_labels(user_id) WHERE user_id IS NOT NULL;
UPDATE actor_labels SET user_id = tokens.user_id
FROM (
    SELECT id, user_id FROM api_tokens WHERE user_id IS NOT NULL
    UNION
    SELECT entity_id, user_id FROM change_log WHERE entity = 'api_token' AND user_id IS NOT NULL
) AS tokens
WHERE actor = 'token:' || tokens.id::text;

-- The names of tokens stand in their labels alone from now on.
UPDATE change_log SET
    before = CASE WHEN jsonb_typeof(before) = 'object' THEN before - 'name' ELSE before END,
    after = CASE WHEN jsonb_typeof(after) = 'object' THEN after - 'name' ELSE after END
WHERE entity = 'api_token';

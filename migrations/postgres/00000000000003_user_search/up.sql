-- The first two characters of the name in lower case, for searches of no more than that.
ALTER TABLE users ADD COLUMN name_start TEXT COLLATE "C" NOT NULL
    GENERATED ALWAYS AS (substr(search_text, strpos(search_text, E'\n') + 1, 2)) STORED;
CREATE INDEX idx_users_name_start ON users(name_start, email, email_key, id);

-- All parts of three characters that a text has. What contains a text contains its parts: `text_trigrams(a) @> parts of b`
-- holds wherever b is a part of a, and seldom elsewhere. The extension pg_trgm knows letters and digits only (in a database
-- of the locale C those of ASCII), so that it reads a quarter of the table to find `a.b`, and somebody must allow it.
-- It is dear to compute, so that the planner had better look it up.
CREATE FUNCTION text_trigrams(whole text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 1000 AS
$$ SELECT ARRAY(SELECT DISTINCT substr(whole, n, 3) FROM generate_series(1, length(whole) - 2) AS n) $$;

-- Without a list of pending entries: searches would have to read it through, and now and then one insert to put it in order.
CREATE INDEX idx_users_search ON users USING gin (text_trigrams(search_text)) WITH (fastupdate = off);

-- The order of lists that show the newest first.
CREATE INDEX idx_users_created ON users(created_at DESC, id);

-- The planner is to know how frequent each part is.
ANALYZE users;

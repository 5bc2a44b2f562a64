-- What stands for a user in the search index. The rowid of `users` will not do: VACUUM may change it.
ALTER TABLE users ADD COLUMN search_doc INTEGER;
-- The first two characters of the name in lower case, for searches of no more than that. No generated column: an index on
-- one is never taken for all there is to read.
ALTER TABLE users ADD COLUMN name_start TEXT NOT NULL DEFAULT '';
UPDATE users SET search_doc = rowid, name_start = substr(search_text, instr(search_text, char(10)) + 1, 2);
CREATE INDEX idx_users_name_start ON users(name_start, email, email_key, id);
-- All that a search needs of a user to put them in order.
CREATE INDEX idx_users_search ON users(search_doc, email, created_at, id);

-- Finds any part of three characters or more, as written in `search_text`. It keeps no copy of the text.
CREATE VIRTUAL TABLE users_search USING fts5(
    search_text, content = 'users', content_rowid = 'search_doc', columnsize = 0, tokenize = 'trigram case_sensitive 1'
);
INSERT INTO users_search(users_search) VALUES ('rebuild');

CREATE TRIGGER users_search_insert AFTER INSERT ON users BEGIN
    UPDATE users SET search_doc = (SELECT coalesce(max(search_doc), 0) + 1 FROM users),
        name_start = substr(NEW.search_text, instr(NEW.search_text, char(10)) + 1, 2)
    WHERE id = NEW.id;
    INSERT INTO users_search(rowid, search_text) SELECT search_doc, search_text FROM users WHERE id = NEW.id;
END;
-- The index is told what it held, as it keeps no copy.
CREATE TRIGGER users_search_update AFTER UPDATE OF search_text ON users WHEN OLD.search_text <> NEW.search_text BEGIN
    UPDATE users SET name_start = substr(NEW.search_text, instr(NEW.search_text, char(10)) + 1, 2) WHERE id = NEW.id;
    INSERT INTO users_search(users_search, rowid, search_text) VALUES ('delete', OLD.search_doc, OLD.search_text);
    INSERT INTO users_search(rowid, search_text) VALUES (NEW.search_doc, NEW.search_text);
END;
CREATE TRIGGER users_search_delete AFTER DELETE ON users BEGIN
    INSERT INTO users_search(users_search, rowid, search_text) VALUES ('delete', OLD.search_doc, OLD.search_text);
END;

-- The order of lists that show the newest first.
CREATE INDEX idx_users_created ON users(created_at DESC, id);

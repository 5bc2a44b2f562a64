ALTER TABLE log_head DROP COLUMN min_writer;
ALTER TABLE log_head DROP COLUMN min_reader;

DROP INDEX idx_scheduled_changes_unmarked;
DROP TABLE idempotency_keys;
ALTER TABLE log_head DROP COLUMN lineage;

-- Numbers in place of what is compared most: whether a message stands in several files is asked in each audit, of all copies there are.
-- They belong to the sorting key's columns, so a copy that is written again has the same.
ALTER TABLE telemetry.transcript_copies
    ADD COLUMN IF NOT EXISTS message_key UInt64 MATERIALIZED cityHash64(message_id) CODEC(NONE) COMMENT 'which message',
    ADD COLUMN IF NOT EXISTS copy_key UInt64 MATERIALIZED cityHash64(file_id, request_id) CODEC(NONE) COMMENT 'which file, and as which request';

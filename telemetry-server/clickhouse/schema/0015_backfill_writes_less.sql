-- The list of what is to be filled in says of which prompt a request is and when it was asked: which of them begins a prompt is found in
-- the list then, and not by looking through all transcripts once more.
ALTER TABLE telemetry.backfilled_requests
    ADD COLUMN IF NOT EXISTS prompt_key UInt64 COMMENT 'hash of the id of its prompt',
    ADD COLUMN IF NOT EXISTS timestamp DateTime64(9, 'UTC') COMMENT 'of the row that it is to have';

-- As in 0011: what one insert brings stays one file, for making and fsyncing two for each column is a fifth of the work.
ALTER TABLE telemetry.transcript_copies MODIFY SETTING min_bytes_for_wide_part = 67108864;

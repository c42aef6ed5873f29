-- What tells copies of a history from the original, which files can be missed, and which compactions are one.
ALTER TABLE telemetry.transcript_files
    ADD COLUMN IF NOT EXISTS root_id String COMMENT 'of the folder projects/ that it lies in: where that is not looked at, the file is not missed',
    ADD COLUMN IF NOT EXISTS copied_until DateTime64(9, 'UTC') COMMENT 'up to then it may hold a copied history, afterwards none',
    ADD COLUMN IF NOT EXISTS compaction_ids Array(UInt64) COMMENT 'hashes of their uuids, which a copied history keeps';

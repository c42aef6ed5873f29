-- Requests that were filled in from transcripts, or are about to be: written before the rows themselves, so that whoever stores an
-- event can tell at no cost whether a row may stand in its place. Nothing leaves this list when a row is taken back.
CREATE TABLE IF NOT EXISTS telemetry.backfilled_requests
(
    session_id String,
    request_id String,
    message_id String,
    attempt    UInt8,
    run        UInt64 COMMENT 'the run of backfill that listed it last: its beginning, in ns'
)
ENGINE = ReplacingMergeTree(run)
ORDER BY (session_id, request_id, message_id, attempt)
TTL toDateTime(intDiv(run, 1000000000)) + INTERVAL 365 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What a branch and a directory that stand in transcripts were for, by the rules that the hooks have (context/rules.py).
CREATE TABLE IF NOT EXISTS telemetry.transcript_contexts
(
    branch         LowCardinality(String),
    directory      LowCardinality(String),
    decided_at     DateTime64(9, 'UTC') DEFAULT now64(9),
    project        LowCardinality(String),
    feature        LowCardinality(String),
    chapter        LowCardinality(String),
    part           LowCardinality(String),
    feature_source LowCardinality(String),
    chapter_source LowCardinality(String),
    confidence     Float32
)
ENGINE = ReplacingMergeTree(decided_at)
ORDER BY (branch, directory)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Runs of backfill that came to their end, the last one of each machine: with nothing read since, there is nothing to fill in.
CREATE TABLE IF NOT EXISTS telemetry.backfill_runs
(
    machine String COMMENT 'as in transcript_files',
    run     UInt64 COMMENT 'its beginning, in ns',
    since   DateTime64(9, 'UTC') COMMENT 'what is older was left out',
    prices  DateTime64(9, 'UTC') COMMENT 'the load of the price list that it used',
    removed Bool COMMENT 'it took rows back'
)
ENGINE = ReplacingMergeTree(run)
ORDER BY machine
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

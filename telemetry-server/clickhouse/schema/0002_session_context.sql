-- What a session was working on from a moment on: each row is whole and holds until the session's next row.
-- Append-only. The same record may arrive twice; (session_id, at) is its identity and the latest arrival wins.
CREATE TABLE IF NOT EXISTS telemetry.session_context
(
    session_id     String,
    at             DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    received_at    DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    project        LowCardinality(String),
    branch         LowCardinality(String),
    feature        LowCardinality(String),
    chapter        LowCardinality(String),
    part           LowCardinality(String),
    step           LowCardinality(String),
    person         LowCardinality(String),
    directory      LowCardinality(String),
    spec_directory LowCardinality(String),
    worktree       LowCardinality(String),
    feature_source LowCardinality(String),
    chapter_source LowCardinality(String),
    confidence     Float32,
    hook           LowCardinality(String),
    record_id      String
)
ENGINE = ReplacingMergeTree(received_at)
ORDER BY (session_id, at)
SETTINGS index_granularity = 256, -- looked up by session at every insert of events
         fsync_after_insert = 1, fsync_part_directory = 1;

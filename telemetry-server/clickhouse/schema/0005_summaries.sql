-- One row a session, made anew from its events whenever some arrive (maintenance/sessions.sql).
CREATE TABLE IF NOT EXISTS telemetry.session_summaries
(
    session_id            String,
    version               UInt64 COMMENT 'when the newest of its events was written, in ns',
    started_at            DateTime64(9, 'UTC'),
    ended_at              DateTime64(9, 'UTC') COMMENT 'time of the last event so far',
    user_id               LowCardinality(String),
    service_version       LowCardinality(String),
    project               LowCardinality(String),
    branches              Array(String),
    features              Array(String),
    chapters              Array(String),
    steps                 Array(String),
    models                Array(String),
    prompts               UInt64,
    requests              UInt64,
    unpriced_requests     UInt64,
    api_errors            UInt64,
    tool_calls            UInt64,
    tool_failures         UInt64,
    cost_usd              Float64,
    input_tokens          UInt64,
    output_tokens         UInt64,
    cache_read_tokens     UInt64,
    cache_creation_tokens UInt64,
    api_duration_ms       UInt64,
    events                UInt64,
    numbered              UInt64 COMMENT 'events that carry event.sequence',
    whole                 Bool COMMENT 'their numbers are 0, 1, … numbered - 1, once each: nothing was lost before the last',
    versions              Array(String) COMMENT 'versions of Claude Code that made its requests',
    is_deleted            UInt8 COMMENT 'all of its events were taken back'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY session_id
TTL toDateTime(ended_at) + INTERVAL 365 DAY;

-- Usage by hour, kept for ever: days can be cut in any time zone, also long after the raw events have gone. Made anew for each
-- hour of which something arrived (maintenance/usage.sql): first the hour's old rows deleted, then its new ones.
CREATE TABLE IF NOT EXISTS telemetry.usage_hourly
(
    hour                  DateTime('UTC'),
    user_id               LowCardinality(String),
    project               LowCardinality(String),
    branch                LowCardinality(String),
    feature               LowCardinality(String),
    chapter_context       LowCardinality(String),
    workflow_step         LowCardinality(String),
    model                 LowCardinality(String),
    requests              UInt64,
    unpriced_requests     UInt64,
    api_errors            UInt64,
    prompts               UInt64,
    tool_calls            UInt64,
    tool_failures         UInt64,
    cost_usd              Float64,
    input_tokens          UInt64,
    output_tokens         UInt64,
    cache_read_tokens     UInt64,
    cache_creation_tokens UInt64,
    api_duration_ms       UInt64,
    version               UInt64 COMMENT 'when the newest event of the hour was written, in ns',
    is_deleted            UInt8
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (hour, user_id, project, branch, feature, chapter_context, workflow_step, model);

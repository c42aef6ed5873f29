-- Every event of Claude Code, one row each, typed, sanitised and attributed.
--
-- Identity: (event_type, hour, session_id, timestamp, event_id). All of it is the event's own, so whatever arrives twice
-- collapses. `version` decides which copy stays: of those that arrived the first, and before all of them the one that was
-- attributed anew last. Read it with FINAL, or with the setting final = 1, which the readers' profile has.
CREATE TABLE IF NOT EXISTS telemetry.telemetry_events
(
    timestamp                DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    event_type               LowCardinality(String),
    session_id               LowCardinality(String),
    event_id                 UInt64 CODEC(ZSTD(1)) COMMENT 'hash of its numbers and ids, and of all of it where it has no number: views/20_events.sql',
    received_at              DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    version                  UInt64 CODEC(Delta(8), ZSTD(1)) COMMENT 'arrived: 4e18 - received_at in ns; attributed anew: 4e18 + that moment in ns',
    written_ns               UInt64 ALIAS if(version > 4000000000000000000, version - 4000000000000000000, toUnixTimestamp64Nano(received_at)),
    source                   LowCardinality(String) COMMENT 'otlp; transcript for rows filled in from a transcript',
    event_sequence           Nullable(UInt64),
    prompt_id                String CODEC(ZSTD(1)),
    message_uuid             String CODEC(ZSTD(1)),
    trace_id                 String CODEC(ZSTD(1)),
    span_id                  String CODEC(ZSTD(1)),

    -- who and where
    user_id                  LowCardinality(String) COMMENT 'enduser.id where set-up wrote one, else user.id',
    installation_id          LowCardinality(String) COMMENT 'user.id: random, one per installation of the client',
    user_email_hash          LowCardinality(String),
    user_account_uuid        LowCardinality(String),
    organization_id          LowCardinality(String),
    service_name             LowCardinality(String),
    service_version          LowCardinality(String) COMMENT 'the version of Claude Code',
    entrypoint               LowCardinality(String),
    terminal_type            LowCardinality(String),
    os_type                  LowCardinality(String),
    host_arch                LowCardinality(String),

    -- what it was for: session_context as of `timestamp`
    project                  LowCardinality(String),
    branch                   LowCardinality(String),
    feature                  LowCardinality(String),
    chapter_context          LowCardinality(String),
    part                     LowCardinality(String),
    workflow_step            LowCardinality(String),
    context_source           LowCardinality(String),
    context_confidence       Float32,
    context_at               DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)) COMMENT 'moment of the context record in force; 1970 without one',

    -- api_request, api_error and their kin
    model                    LowCardinality(String),
    cost_usd                 Float64,
    input_tokens             UInt64 CODEC(T64, ZSTD(1)),
    output_tokens            UInt64 CODEC(T64, ZSTD(1)),
    token_count              UInt64 CODEC(T64, ZSTD(1)) COMMENT 'input + output; cache tokens are apart',
    cache_read_tokens        UInt64 CODEC(T64, ZSTD(1)),
    cache_creation_tokens    UInt64 CODEC(T64, ZSTD(1)),
    cache_creation_5m_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_creation_1h_tokens UInt64 CODEC(T64, ZSTD(1)),
    duration_ms              UInt64 CODEC(T64, ZSTD(1)),
    ttft_ms                  UInt64 CODEC(T64, ZSTD(1)),
    request_id               String CODEC(ZSTD(1)),
    client_request_id        String CODEC(ZSTD(1)),
    query_source             LowCardinality(String),
    speed                    LowCardinality(String),
    effort                   LowCardinality(String),
    agent_name               LowCardinality(String),
    skill_name               LowCardinality(String),
    plugin_name              LowCardinality(String),
    mcp_server_name          LowCardinality(String),
    mcp_tool_name            LowCardinality(String),
    attempt                  UInt32,
    api_error_code           LowCardinality(String),
    api_error_message        String CODEC(ZSTD(1)),
    error_type               LowCardinality(String),

    -- user_prompt, assistant_response: the text itself is never stored
    prompt_length            UInt64,
    prompt_hash              String CODEC(ZSTD(1)),
    response_length          UInt64,
    response_hash            String CODEC(ZSTD(1)),
    command_name             LowCardinality(String),
    command_source           LowCardinality(String),

    -- tool_result, tool_decision
    tool_name                LowCardinality(String),
    tool_use_id              String CODEC(ZSTD(1)),
    success                  Nullable(Bool),
    decision                 LowCardinality(String),
    decision_source          LowCardinality(String),
    tool_input_hash          String CODEC(ZSTD(1)),
    tool_parameters_hash     String CODEC(ZSTD(1)),
    tool_input_bytes         UInt64,
    tool_result_bytes        UInt64,
    error_message            String CODEC(ZSTD(1)),

    attributes               Map(LowCardinality(String), String) COMMENT 'the other attributes that the policy keeps',
    unknown_attributes       Array(LowCardinality(String)) COMMENT 'checked names of attributes that no known client version sends; nothing is kept of their values',
    is_deleted               UInt8 COMMENT '1: a row taken back, such as one from a transcript whose event came after all; FINAL hides it',

    INDEX by_session session_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_request request_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_received received_at TYPE minmax GRANULARITY 1,
    INDEX by_version version TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toMonday(timestamp)
ORDER BY (event_type, toStartOfHour(timestamp), session_id, timestamp, event_id)
TTL toDateTime(timestamp) + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1,
         -- Under load many small parts arrive. Merging them in larger steps halves the work (27 -> 15 us of CPU an event at 3,000
         -- events an insert), for some more parts that wait: about 15 in a week's partition.
         merge_selector_base = 16,
         fsync_after_insert = 1, fsync_part_directory = 1;

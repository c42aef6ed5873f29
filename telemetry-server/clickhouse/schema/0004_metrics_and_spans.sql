-- Claude Code's own metrics, one row a data point, with their temporality. Never added to the money in telemetry_events.
CREATE TABLE IF NOT EXISTS telemetry.telemetry_metrics
(
    timestamp        DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    start_timestamp  DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    received_at      DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    metric_name      LowCardinality(String),
    unit             LowCardinality(String),
    metric_type      LowCardinality(String) COMMENT 'sum, gauge, histogram, exponential_histogram, summary',
    temporality      LowCardinality(String) COMMENT 'delta, cumulative; empty where the type has none',
    is_monotonic     Bool,
    point_id         UInt64 COMMENT 'hash of the attributes that are kept, and of the value: tells series apart',
    session_id       LowCardinality(String),
    user_id          LowCardinality(String),
    installation_id  LowCardinality(String),
    service_name     LowCardinality(String),
    service_version  LowCardinality(String),
    value            Float64 COMMENT 'of a sum or gauge; the sum of the others',
    count            UInt64,
    min              Nullable(Float64),
    max              Nullable(Float64),
    bucket_counts    Array(UInt64),
    explicit_bounds  Array(Float64),
    attributes       Map(LowCardinality(String), String)
)
ENGINE = ReplacingMergeTree(received_at)
PARTITION BY toMonday(timestamp)
ORDER BY (metric_name, toStartOfHour(timestamp), session_id, timestamp, start_timestamp, point_id)
TTL toDateTime(timestamp) + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, fsync_after_insert = 1, fsync_part_directory = 1;

-- Spans (Claude Code's traces are beta). A session's trace is read by session_id or by trace_id.
CREATE TABLE IF NOT EXISTS telemetry.telemetry_spans
(
    timestamp       DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)) COMMENT 'start of the span',
    duration_ns     UInt64 CODEC(T64, ZSTD(1)),
    received_at     DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    span_name       LowCardinality(String),
    trace_id        String CODEC(ZSTD(1)),
    span_id         String CODEC(ZSTD(1)),
    parent_span_id  String CODEC(ZSTD(1)),
    kind            LowCardinality(String),
    status_code     LowCardinality(String),
    session_id      LowCardinality(String),
    user_id         LowCardinality(String),
    installation_id LowCardinality(String),
    service_name    LowCardinality(String),
    service_version LowCardinality(String),
    prompt_id       String CODEC(ZSTD(1)),
    request_id      String CODEC(ZSTD(1)),
    tool_use_id     String CODEC(ZSTD(1)),
    tool_name       LowCardinality(String),
    model           LowCardinality(String),
    success         Nullable(Bool),
    error_message   String CODEC(ZSTD(1)),
    attributes      Map(LowCardinality(String), String),
    events          Array(Tuple(timestamp DateTime64(9, 'UTC'), name LowCardinality(String))),
    INDEX by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(received_at)
PARTITION BY toMonday(timestamp)
ORDER BY (toStartOfHour(timestamp), session_id, timestamp, trace_id, span_id)
TTL toDateTime(timestamp) + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, fsync_after_insert = 1, fsync_part_directory = 1;

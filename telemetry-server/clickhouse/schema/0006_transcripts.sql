-- What Claude Code's own transcripts say: each API request that it made, and the files that say so. No content, no path of a machine.
-- `sp-telemetry audit` and `backfill` read the files (telemetry-server/transcripts/) and write here through views/30_transcripts.sql.
--
-- A request may stand in several files: a fork copies its history, a side question repeats it. Here each of them is a row;
-- telemetry.transcript_requests (a view) has each request once, credited to the session that first had it.
CREATE TABLE IF NOT EXISTS telemetry.transcript_copies
(
    file_id                  String CODEC(ZSTD(1)) COMMENT 'of transcript_files',
    message_id               String CODEC(ZSTD(1)),
    request_id               String CODEC(ZSTD(1)),
    attempt                  UInt8 COMMENT '0; where a request was billed for several attempts (usage.iterations), their numbers from 0',
    attempts                 UInt8 COMMENT 'how many it was billed for',
    read_at                  DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    timestamp                DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)) COMMENT 'of the line that was taken: the last one of the response',
    session_id               String CODEC(ZSTD(1)),
    prompt_id                String CODEC(ZSTD(1)),
    message_uuid             String CODEC(ZSTD(1)) COMMENT 'of the line that was taken; what an event calls message.uuid',
    agent_id                 String CODEC(ZSTD(1)) COMMENT 'the subagent; empty for the session itself',
    copied                   Bool COMMENT 'older than the file that it stands in: history of another session',
    lines                    UInt32 COMMENT 'in how many lines the file has it: one for each block of content, and each repeated',
    repeated_lines           UInt32,
    model                    LowCardinality(String),
    input_tokens             UInt64 CODEC(T64, ZSTD(1)),
    output_tokens            UInt64 CODEC(T64, ZSTD(1)),
    cache_read_tokens        UInt64 CODEC(T64, ZSTD(1)),
    cache_creation_tokens    UInt64 CODEC(T64, ZSTD(1)),
    cache_creation_5m_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_creation_1h_tokens UInt64 CODEC(T64, ZSTD(1)),
    web_searches             UInt32 COMMENT 'of the last attempt',
    speed                    LowCardinality(String),
    service_tier             LowCardinality(String),
    inference_geo            LowCardinality(String),
    stop_reason              LowCardinality(String) COMMENT 'empty: the file had no last line of it yet, so output_tokens may be a placeholder',
    service_version          LowCardinality(String) COMMENT 'the version of Claude Code',
    entrypoint               LowCardinality(String),
    project                  LowCardinality(String) COMMENT 'the last part of the directory',
    branch                   LowCardinality(String),
    directory                LowCardinality(String) COMMENT 'redacted: ~ for a home',
    INDEX by_session session_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_time timestamp TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(read_at)
ORDER BY (message_id, request_id, attempt, file_id)
TTL toDateTime(timestamp) + INTERVAL 365 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- One row a file, written after its requests, so that what is known here has been read. Size and time of change tell whether it was
-- changed since.
CREATE TABLE IF NOT EXISTS telemetry.transcript_files
(
    file_id          String COMMENT 'hash of its path, keyed with a secret of the machine that read it',
    machine          LowCardinality(String) COMMENT 'hash of the same secret',
    folder_id        String COMMENT 'of the folder that it lies in: sessions that began in one directory share it',
    read_at          DateTime64(9, 'UTC'),
    reader           UInt16 COMMENT 'version of the statements that read it',
    size             UInt64,
    modified_ns      UInt64,
    gone_at          DateTime64(9, 'UTC') COMMENT 'when it was missed: Claude Code deletes them after 30 days; 1970 while it is there',
    session_id       String COMMENT 'by its name',
    agent_id         String,
    requests         UInt64,
    prompts          UInt64,
    compactions      UInt64,
    cleared          Bool COMMENT 'begins with /clear',
    directory        LowCardinality(String),
    started_at       DateTime64(9, 'UTC') COMMENT 'the first time that is its own and not of a copied history',
    ended_at         DateTime64(9, 'UTC'),
    cut_lines        UInt64 COMMENT 'that end in the middle: being written, or broken off',
    unreadable_lines UInt64 COMMENT 'that are not what a transcript has',
    long_lines       UInt64 COMMENT 'longer than the reader takes',
    problem          LowCardinality(String) COMMENT 'why the file as a whole was not read; empty: it was'
)
ENGINE = ReplacingMergeTree(read_at)
ORDER BY file_id
TTL toDateTime(read_at) + INTERVAL 365 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

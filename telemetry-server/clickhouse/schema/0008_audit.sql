-- What an audit needs to know beside events and transcripts, and what it found.

-- When a server ran: a row for each start, renewed every minute. Between two of them nothing could be received.
CREATE TABLE IF NOT EXISTS telemetry.server_runs
(
    server     String COMMENT 'random, for each home one: several may write to one store',
    started_at DateTime64(3, 'UTC'),
    seen_at    DateTime64(3, 'UTC') COMMENT 'it ran at least until then; at its orderly end, the end',
    ended      Bool
)
ENGINE = ReplacingMergeTree(seen_at)
ORDER BY (server, started_at)
TTL toDateTime(seen_at) + INTERVAL 365 DAY;

-- One row a session, of its last audit: how many of its requests stand in transcripts, in telemetry, in both.
CREATE TABLE IF NOT EXISTS telemetry.session_audits
(
    session_id      String,
    audited_at      DateTime64(9, 'UTC'),
    started_at      DateTime64(9, 'UTC') COMMENT 'of the first of its requests that the audit saw',
    ended_at        DateTime64(9, 'UTC'),
    both            UInt64,
    only_telemetry  UInt64,
    only_transcript UInt64 COMMENT 'missing in telemetry',
    filled          UInt64 COMMENT 'of those, filled in from the transcript (source = transcript)',
    differing       UInt64 COMMENT 'of those in both, with other tokens'
)
ENGINE = ReplacingMergeTree(audited_at)
ORDER BY session_id
TTL toDateTime(audited_at) + INTERVAL 365 DAY;

-- Which session goes on with which: one piece of work has one first session. Found in transcripts (transcripts/links.sql).
CREATE TABLE IF NOT EXISTS telemetry.session_links
(
    session_id String,
    kind       LowCardinality(String) COMMENT 'forked: it copies the history of `follows`; cleared: it begins with /clear where `follows` ended',
    follows    String,
    work_id    String COMMENT 'the first session of the piece of work',
    found_at   DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(found_at)
ORDER BY session_id
TTL toDateTime(found_at) + INTERVAL 365 DAY;

-- What an audit found: of each session, model and version one row for the requests in which both sides agree, and a row for each other
-- request. Those of one audited_at are one audit; queries/audit.sql shows the last.
CREATE TABLE IF NOT EXISTS telemetry.audit_findings
(
    audited_at        DateTime64(9, 'UTC'),
    session_id        String,
    model             LowCardinality(String),
    service_version   LowCardinality(String),
    side              LowCardinality(String) COMMENT 'both, telemetry, transcript',
    finding           UInt64 COMMENT '0 where both sides agree',
    requests          UInt64,
    first_at          DateTime64(9, 'UTC'),
    last_at           DateTime64(9, 'UTC'),
    telemetry_usd     Float64 COMMENT 'as Claude Code reported it',
    transcript_usd    Float64 COMMENT 'at the prices of the day; 0 for those that are unpriced',
    unpriced          UInt64,
    telemetry_tokens  Tuple(UInt64, UInt64, UInt64, UInt64) COMMENT 'input, output, cache reads, cache writes',
    transcript_tokens Tuple(UInt64, UInt64, UInt64, UInt64),
    request_id        String,
    message_id        String,
    message_uuid      String,
    prompt_id         String,
    agent_id          String,
    mark              LowCardinality(String) COMMENT 'of the transcript: several attempts, unfinished',
    query_source      LowCardinality(String)
)
ENGINE = MergeTree
ORDER BY (audited_at, session_id)
TTL toDateTime(audited_at) + INTERVAL 30 DAY;

-- Audits: what was asked, and of which state of the store. While that state lasts, the same question has the same answer.
CREATE TABLE IF NOT EXISTS telemetry.audits
(
    audited_at DateTime64(9, 'UTC') COMMENT 'as in audit_findings',
    asked      UInt64 COMMENT 'hash of from, to, zone and session',
    state      UInt64 COMMENT 'hash of what the audit read: transcripts/state.sql'
)
ENGINE = MergeTree
ORDER BY audited_at
TTL toDateTime(audited_at) + INTERVAL 30 DAY;

-- usage_hourly: the rows of each hour of which something arrived, made anew. All rows that the hour had are deleted and its new
-- ones written one version higher, in one insert; so attribution that changed leaves nothing behind, and it may run at any time,
-- twice, or after having been killed. {since}: see sessions.sql. Hours that have lost events to
-- retention, also to an earlier one, stay as they are.
INSERT INTO telemetry.usage_hourly
WITH
    (SELECT max(version) FROM telemetry.usage_hourly) AS last_version,
    least(last_version, toUInt64(toUnixTimestamp64Nano({since:DateTime64(9, 'UTC')}))) AS newest_ns,
    newest_ns - least(newest_ns, 60000000000) AS known_ns, -- a minute back: see sessions.sql
    stale AS
    (
        SELECT toStartOfHour(timestamp) AS hour, max(written_ns) AS written FROM telemetry.telemetry_events
        WHERE (received_at >= fromUnixTimestamp64Nano(toInt64(known_ns)) OR version > 4000000000000000000 + known_ns)
            AND timestamp >= (SELECT max(since) FROM telemetry.events_kept)
        GROUP BY hour
    ),
    events AS
    (
        SELECT toStartOfHour(timestamp) AS hour, * FROM telemetry.telemetry_events FINAL
        WHERE toStartOfHour(timestamp) IN (SELECT hour FROM stale)
    ),
    newest AS (SELECT hour, greatest(written, last_version + 2) AS version FROM stale) -- above all old rows
SELECT
    hour, user_id, project, branch, feature, chapter_context, workflow_step, model,
    countIf(events.event_type = 'api_request') AS requests,
    countIf(events.event_type = 'api_request' AND events.cost_usd = 0 AND events.token_count + events.cache_read_tokens + events.cache_creation_tokens > 0) AS unpriced_requests,
    sumIf(events.token_count + events.cache_read_tokens + events.cache_creation_tokens, events.event_type = 'api_request' AND events.cost_usd = 0) AS unpriced_tokens,
    countIf(events.event_type = 'api_error') AS api_errors,
    countIf(events.event_type = 'user_prompt' OR events.begins_prompt) AS prompts,
    countIf(events.event_type = 'tool_result') AS tool_calls,
    countIf(events.event_type = 'tool_result' AND events.success = false) AS tool_failures,
    sumIf(events.cost_usd, events.event_type = 'api_request') AS cost_usd,
    sumIf(events.input_tokens, events.event_type = 'api_request') AS input_tokens,
    sumIf(events.output_tokens, events.event_type = 'api_request') AS output_tokens,
    sumIf(events.cache_read_tokens, events.event_type = 'api_request') AS cache_read_tokens,
    sumIf(events.cache_creation_tokens, events.event_type = 'api_request') AS cache_creation_tokens,
    sumIf(events.cache_creation_5m_tokens, events.event_type = 'api_request') AS cache_creation_5m_tokens,
    sumIf(events.cache_creation_1h_tokens, events.event_type = 'api_request') AS cache_creation_1h_tokens,
    sumIf(events.duration_ms, events.event_type = 'api_request') AS api_duration_ms,
    arraySort(groupUniqArrayIf(cityHash64(events.session_id), events.event_type = 'api_request')) AS sessions,
    any(newest.version) AS version,
    0 AS is_deleted
FROM events
INNER JOIN newest ON events.hour = newest.hour
GROUP BY events.hour AS hour, user_id, project, branch, feature, chapter_context, workflow_step, model
UNION ALL
SELECT
    old.hour AS hour, user_id, project, branch, feature, chapter_context, workflow_step, model,
    0, 0, 0, 0, 0, 0, 0, 0., 0, 0, 0, 0, 0, 0, 0, old.sessions, newest.version - 1, 1
FROM (SELECT * FROM telemetry.usage_hourly FINAL WHERE hour IN (SELECT hour FROM stale)) AS old
INNER JOIN newest ON old.hour = newest.hour
SETTINGS do_not_merge_across_partitions_select_final = 1, final = 0; -- rows that were taken back make stale as well

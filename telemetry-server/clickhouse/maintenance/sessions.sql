-- session_summaries: a new row for each session of which something arrived since its last one. Nothing is added up, each row is
-- made from all of the session's events; so it may run at any time, twice, or after having been killed. {since}: what was written
-- from then on is looked at in any case, for a clock that was set back writes times before the newest that is known.
INSERT INTO telemetry.session_summaries
WITH
    -- a minute back: an insert that began before the newest that is known may have been committed after it
    least((SELECT max(version) FROM telemetry.session_summaries), toUInt64(toUnixTimestamp64Nano({since:DateTime64(9, 'UTC')}))) AS newest_ns,
    newest_ns - least(newest_ns, 60000000000) AS known_ns,
    stale AS
    (
        SELECT session_id, min(timestamp) AS since FROM telemetry.telemetry_events
        WHERE (received_at >= fromUnixTimestamp64Nano(toInt64(known_ns)) OR version > 4000000000000000000 + known_ns) AND session_id != ''
        GROUP BY session_id
    ),
    first_of_stale AS
    (
        SELECT least(min(since), min(started_at)) FROM stale
        LEFT JOIN (SELECT session_id, started_at FROM telemetry.session_summaries) AS known ON stale.session_id = known.session_id
        SETTINGS join_use_nulls = 1
    ),
    ifNull(max(e.event_sequence) - min(e.event_sequence) + 1 = numbered
        AND groupBitmapIf(toUInt32(assumeNotNull(e.event_sequence)), isNotNull(e.event_sequence)) = numbered, false) AS unbroken
SELECT
    session_id,
    greatest(max(e.written_ns), (SELECT max(version) FROM telemetry.session_summaries)) AS version,
    min(e.timestamp) AS started_at,
    max(e.timestamp) AS ended_at,
    anyLast(e.user_id) AS user_id,
    anyLast(e.service_version) AS service_version,
    anyLast(e.project) AS project,
    arraySort(groupUniqArrayIf(e.branch, e.branch != '')) AS branches,
    arraySort(groupUniqArrayIf(e.feature, e.feature != '')) AS features,
    arraySort(groupUniqArrayIf(e.chapter_context, e.chapter_context != '')) AS chapters,
    arraySort(groupUniqArrayIf(e.workflow_step, e.workflow_step != '')) AS steps,
    arraySort(groupUniqArrayIf(e.model, e.event_type = 'api_request')) AS models,
    countIf(e.event_type = 'user_prompt' OR e.begins_prompt) AS prompts,
    countIf(e.event_type = 'api_request') AS requests,
    countIf(e.event_type = 'api_request' AND e.cost_usd = 0 AND e.token_count + e.cache_read_tokens + e.cache_creation_tokens > 0) AS unpriced_requests,
    countIf(e.event_type = 'api_error') AS api_errors,
    countIf(e.event_type = 'tool_result') AS tool_calls,
    countIf(e.event_type = 'tool_result' AND e.success = false) AS tool_failures,
    sumIf(e.cost_usd, e.event_type = 'api_request') AS cost_usd,
    sumIf(e.input_tokens, e.event_type = 'api_request') AS input_tokens,
    sumIf(e.output_tokens, e.event_type = 'api_request') AS output_tokens,
    sumIf(e.cache_read_tokens, e.event_type = 'api_request') AS cache_read_tokens,
    sumIf(e.cache_creation_tokens, e.event_type = 'api_request') AS cache_creation_tokens,
    sumIf(e.duration_ms, e.event_type = 'api_request') AS api_duration_ms,
    count() AS events,
    count(e.event_sequence) AS numbered,
    unbroken AND ifNull(min(e.event_sequence) = 0, false) AS whole,
    if(unbroken, min(e.event_sequence), NULL) AS numbers_from,
    arraySort(groupUniqArrayIf(toString(e.service_version), e.event_type = 'api_request' AND e.service_version != '')) AS versions,
    0 AS is_deleted
FROM (SELECT *, written_ns FROM telemetry.telemetry_events FINAL) AS e
WHERE session_id IN (SELECT session_id FROM stale) AND e.timestamp >= (SELECT * FROM first_of_stale)
GROUP BY session_id
SETTINGS do_not_merge_across_partitions_select_final = 1, final = 0; -- rows that were taken back make stale as well

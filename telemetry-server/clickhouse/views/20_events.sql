-- otel_logs -> typed_events -> telemetry_events. First each event by itself: typed, and sanitised by the policy (00_privacy.sql). Then what
-- needs the store: attributed to what its session was working on at its moment. Apart, for the first of them is most of the work and depends
-- on nothing stored, so the embedded server runs it as a query that never ends (store/standing_query.py).
-- In typed_events user_id and project are what the event itself says, and file_path is what telemetry_file needs.
CREATE TABLE IF NOT EXISTS telemetry.typed_events ENGINE = Null EMPTY AS SELECT *, '' AS file_path FROM telemetry.telemetry_events;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.typed_events_mv TO telemetry.typed_events AS
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt
SELECT
    timestamp,
    name AS event_type,
    i['session.id'] AS session_id,
    sipHash64(sequence, request_id, client_request_id, tool_use_id, message_uuid, prompt_id, content, no_time) AS event_id,
    toUInt64OrNull(sequence) AS event_sequence,
    i['prompt.id'] AS prompt_id,
    i['message.uuid'] AS message_uuid,
    extract(TraceId, '^[0-9a-f]{32}$') AS trace_id,
    extract(SpanId, '^[0-9a-f]{16}$') AS span_id,

    w['enduser.id'] AS user_id,
    w['user.id'] AS installation_id,
    h['user.email'] AS user_email_hash,
    w['user.account_uuid'] AS user_account_uuid,
    w['organization.id'] AS organization_id,
    w['anthropic.plan'] AS plan,
    w['anthropic.seat_type'] AS seat_type,
    w['service.name'] AS service_name,
    w['service.version'] AS service_version,
    w['app.entrypoint'] AS entrypoint,
    w['terminal.type'] AS terminal_type,
    w['os.type'] AS os_type,
    w['host.arch'] AS host_arch,

    w['vcs.repository.name'] AS project,

    w['model'] AS model,
    n['cost_usd'] AS cost_usd,
    telemetry_count(n['input_tokens']) AS input_tokens,
    telemetry_count(n['output_tokens']) AS output_tokens,
    input_tokens + output_tokens AS token_count,
    telemetry_count(n['cache_read_tokens']) AS cache_read_tokens,
    telemetry_count(n['cache_creation_tokens']) AS cache_creation_tokens,
    telemetry_count(n['cache_creation_5m_tokens']) AS cache_creation_5m_tokens,
    telemetry_count(n['cache_creation_1h_tokens']) AS cache_creation_1h_tokens,
    telemetry_count(if(n['duration_ms'] = 0, n['total_duration_ms'], n['duration_ms'])) AS duration_ms,
    telemetry_count(n['ttft_ms']) AS ttft_ms,
    i['request_id'] AS request_id,
    i['client_request_id'] AS client_request_id,
    w['query_source'] AS query_source,
    w['speed'] AS speed,
    w['effort'] AS effort,
    w['agent.name'] AS agent_name,
    w['skill.name'] AS skill_name,
    w['plugin.name'] AS plugin_name,
    w['mcp_server.name'] AS mcp_server_name,
    w['mcp_tool.name'] AS mcp_tool_name,
    telemetry_count(if(n['attempt'] = 0, n['total_attempts'], n['attempt'])) AS attempt,
    w['status_code'] AS api_error_code,
    if(startsWith(name, 'api_'), w['error'], '') AS api_error_message,
    multiIf(
        notEmpty(w['error_type']), w['error_type'],
        notEmpty(w['error_name']), w['error_name'],
        name NOT IN ('api_error', 'api_retries_exhausted'), '',
        w['status_code'] = '', 'connection',
        w['status_code'] = '429', 'rate_limit',
        w['status_code'] = '529', 'overloaded',
        w['status_code'] IN ('401', '403'), 'authentication',
        w['status_code'] = '404', 'not_found',
        w['status_code'] LIKE '4%', 'invalid_request',
        'server_error') AS error_type,

    telemetry_count(n['prompt_length']) AS prompt_length,
    h['prompt'] AS prompt_hash,
    telemetry_count(n['response_length']) AS response_length,
    h['response'] AS response_hash,
    w['command_name'] AS command_name,
    w['command_source'] AS command_source,

    w['tool_name'] AS tool_name,
    i['tool_use_id'] AS tool_use_id,
    multiIf(w['success'] = 'true', true, w['success'] = 'false', false, NULL) AS success,
    w['decision'] AS decision,
    if(empty(w['decision_source']), w['source'], w['decision_source']) AS decision_source,
    h['tool_input'] AS tool_input_hash,
    h['tool_parameters'] AS tool_parameters_hash,
    telemetry_count(n['tool_input_size_bytes']) AS tool_input_bytes,
    telemetry_count(n['tool_result_size_bytes']) AS tool_result_bytes,
    if(startsWith(name, 'api_'), '', w['error']) AS error_message,

    telemetry_kept(w) AS attributes,
    telemetry_unknown(a) AS unknown_attributes,
    telemetry_path(a) AS file_path
FROM
(
    SELECT
        -- Without a time that can be, the client's own words count; without those the hour of arrival, so that a copy which comes within
        -- it is known as one, and what the time was instead is part of the key.
        parseDateTime64BestEffortOrZero(LogAttributes['event.timestamp'], 9, 'UTC') AS said,
        multiIf(toYear(Timestamp, 'UTC') BETWEEN 2000 AND 2099, Timestamp, toYear(said, 'UTC') BETWEEN 2000 AND 2099, said,
                toDateTime64(toStartOfHour(nowInBlock64(9)), 9)) AS timestamp,
        if(timestamp IN (Timestamp, said), 0, toUnixTimestamp64Nano(Timestamp)) AS no_time,
        mapConcat(LogAttributes, ResourceAttributes) AS a, -- the first of two equal names counts
        telemetry_words(salt, a) AS w,
        telemetry_numbers(a) AS n,
        telemetry_identifiers(salt, a) AS i,
        telemetry_hashes(salt, a) AS h,
        telemetry_name(replaceOne(coalesce(nullIf(LogAttributes['event.name'], ''), nullIf(EventName, ''), Body), 'claude_code.', '')) AS name,
        if(match(a['event.sequence'], '^[0-9]{1,20}$'), a['event.sequence'], '') AS sequence,
        -- An event with no number is all that is kept of it: of itself, for a collector may add to the resource.
        if(empty(sequence), cityHash64(SeverityNumber, TraceId, SpanId, arrayMap(of -> mapSort(mapFilter((k, v) -> mapContains(LogAttributes, k), of)),
            [w, i, h, mapApply((k, v) -> (k, toString(v)), n)])), 0) AS content,
        TraceId, SpanId
    FROM telemetry.otel_logs
    WHERE LogAttributes['event.name'] != 'sp_telemetry.context'
);

-- The subquery on typed_events sees the inserted block, so only its sessions' contexts are read.
CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.telemetry_events_mv TO telemetry.telemetry_events AS
SELECT
    events.* EXCEPT (file_path) REPLACE
    (
        now64(9) AS received_at,
        4000000000000000000 - toUInt64(toUnixTimestamp64Nano(now64(9))) AS version,
        'otlp' AS source,
        coalesce(nullIf(events.user_id, ''), nullIf(contexts.person, ''), events.installation_id) AS user_id,
        if(contexts.project != '', contexts.project, events.project) AS project,
        contexts.branch AS branch,
        contexts.feature AS feature,
        contexts.chapter AS chapter_context,
        contexts.part AS part,
        contexts.step AS workflow_step,
        if(contexts.feature_source = '' AND contexts.chapter_source = '', '',
           concat('feature:', contexts.feature_source, ' chapter:', contexts.chapter_source)) AS context_source,
        contexts.confidence AS context_confidence,
        contexts.at AS context_at,
        mapConcat(events.attributes, telemetry_file(events.file_path, if(contexts.project != '', contexts.project, events.project))) AS attributes
    )
FROM telemetry.typed_events AS events
ASOF LEFT JOIN
(
    SELECT * FROM telemetry.session_context FINAL WHERE session_id IN (SELECT session_id FROM telemetry.typed_events)
) AS contexts
ON events.session_id = contexts.session_id AND events.timestamp >= contexts.at;

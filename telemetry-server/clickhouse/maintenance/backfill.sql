-- Rows of telemetry_events for requests that only transcripts know: those that are listed in backfilled_requests under {run}. A row that
-- is there already and says the same is not written again; one that says something else is written over. {person}: under whose name,
-- where the session's own events don't tell; else that of the one installation whose events are of the sessions of {machine}.
INSERT INTO telemetry.telemetry_events
    (timestamp, event_type, session_id, event_id, received_at, version, source, prompt_id, begins_prompt, message_uuid,
     user_id, installation_id, user_account_uuid, organization_id, plan, seat_type, service_name, service_version, entrypoint, terminal_type,
     os_type, host_arch,
     project, branch, feature, chapter_context, part, workflow_step, context_source, context_confidence, context_at,
     model, cost_usd, input_tokens, output_tokens, token_count, cache_read_tokens, cache_creation_tokens, cache_creation_5m_tokens,
     cache_creation_1h_tokens, request_id, speed, attributes)
WITH
    listed AS (SELECT * FROM telemetry.backfilled_requests WHERE run = {run:UInt64}),
    sessions AS (SELECT DISTINCT session_id FROM telemetry.backfilled_requests WHERE run = {run:UInt64}),
    begun AS -- prompts that a row begins which this run does not list, for it is older than what was asked for
    (
        SELECT prompt_id FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND source = 'transcript' AND begins_prompt
            AND event_id NOT IN (SELECT sipHash64('transcript', if(message_id != '', message_id, request_id), attempt) FROM listed)
    ),
    first AS -- of each prompt: moment and key of a row, as one number. A window would sort all that is written
    (
        SELECT min(bitShiftLeft(toUInt128(toUnixTimestamp64Nano(timestamp)), 64)
                   + sipHash64('transcript', if(message_id != '', message_id, request_id), attempt))
        FROM listed
        GROUP BY prompt_key
    ),
    people AS
    (
        SELECT
            session_id,
            argMax((user_id, installation_id, user_account_uuid, organization_id, terminal_type, os_type, host_arch, plan, seat_type), timestamp) AS is
        FROM telemetry.telemetry_events
        WHERE source = 'otlp' AND session_id IN sessions
        GROUP BY session_id
    ),
    (SELECT if(uniqExact(installation_id) = 1, any(toString(installation_id)), '') FROM telemetry.telemetry_events
     WHERE source = 'otlp' AND session_id IN (SELECT session_id FROM telemetry.transcript_files WHERE machine = {machine:String})) AS only_installation,
    wanted AS
    (
        SELECT
            t.timestamp AS timestamp,
            t.session_id AS session_id,
            sipHash64('transcript', if(t.message_id != '', t.message_id, t.request_id), t.attempt) AS event_id,
            t.prompt_id AS prompt_id,
            prompt_id != '' AND prompt_id NOT IN (SELECT prompt_id FROM telemetry.telemetry_events WHERE event_type = 'user_prompt' AND source = 'otlp')
                AND prompt_id NOT IN (SELECT prompt_id FROM begun)
                AND bitShiftLeft(toUInt128(toUnixTimestamp64Nano(timestamp)), 64) + event_id IN first AS begins_prompt,
            t.message_uuid AS message_uuid,
            coalesce(nullIf(toString(who.is.1), ''), nullIf(toString(c.person), ''),
                     nullIf(if(telemetry_taken('enduser.id'), '', telemetry_text('enduser.id', {person:String})), ''), only_installation) AS user_id,
            if(who.is.2 != '', toString(who.is.2), only_installation) AS installation_id,
            toString(who.is.3) AS user_account_uuid,
            toString(who.is.4) AS organization_id,
            t.service_version AS service_version,
            t.entrypoint AS entrypoint,
            toString(who.is.5) AS terminal_type,
            toString(who.is.6) AS os_type,
            toString(who.is.7) AS host_arch,
            toString(who.is.8) AS plan,
            toString(who.is.9) AS seat_type,
            -- what a hook told of this moment counts more than where the transcript was
            c.session_id != '' AS told,
            multiIf(told AND c.project != '', toString(c.project), x.project != '', toString(x.project), t.project) AS project,
            if(told, toString(c.branch), t.branch) AS branch,
            toString(if(told, c.feature, x.feature)) AS feature,
            toString(if(told, c.chapter, x.chapter)) AS chapter,
            toString(if(told, c.part, x.part)) AS part,
            toString(c.step) AS step,
            multiIf(told AND c.feature_source = '' AND c.chapter_source = '', '',
                    told, concat('feature:', c.feature_source, ' chapter:', c.chapter_source),
                    x.feature_source = '' AND x.chapter_source = '', '',
                    concat('feature:', if(x.feature_source = '', '', 'transcript '), x.feature_source,
                           ' chapter:', if(x.chapter_source = '', '', 'transcript '), x.chapter_source)) AS context_source,
            toFloat32(if(told, c.confidence, x.confidence * 0.5)) AS confidence,
            if(told, c.at, toDateTime64(0, 9, 'UTC')) AS context_at,
            t.model AS model,
            if(telemetry_taken('cost_usd'), 0, ifNull(t.computed_usd, 0)) AS cost_usd,
            t.input_tokens AS input_tokens,
            t.output_tokens AS output_tokens,
            t.cache_read_tokens AS cache_read_tokens,
            t.cache_creation_tokens AS cache_creation_tokens,
            t.cache_creation_5m_tokens AS cache_creation_5m_tokens,
            t.cache_creation_1h_tokens AS cache_creation_1h_tokens,
            t.request_id AS request_id,
            if(t.speed = 'standard', 'normal', t.speed) AS speed,
            mapFilter((k, v) -> v != '',
                map('cost_source', if(isNull(t.computed_usd), 'unpriced', 'computed'), 'message.id', t.message_id,
                    'agent_id', if(telemetry_taken('agent_id'), '', t.agent_id))) AS attributes
        FROM
        (
            SELECT * FROM telemetry.transcript_costs
            WHERE cityHash64(message_id, request_id, attempt) IN (SELECT cityHash64(message_id, request_id, attempt) FROM listed)
        ) AS t
        LEFT JOIN people AS who ON t.session_id = who.session_id
        LEFT JOIN (SELECT * FROM telemetry.transcript_contexts FINAL) AS x ON t.branch = x.branch AND t.directory = x.directory
        ASOF LEFT JOIN
        (
            SELECT * FROM telemetry.session_context FINAL WHERE session_id IN sessions
        ) AS c ON t.session_id = c.session_id AND t.timestamp >= c.at
    ),
    present AS
    (
        SELECT event_id, max(version) AS last_version,
            argMax((timestamp, session_id, prompt_id, begins_prompt, user_id, installation_id, project, branch, feature, chapter_context, part, workflow_step,
                    context_source, model, cost_usd, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
                    cache_creation_1h_tokens, request_id), version) AS said
        FROM (SELECT * FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request' AND source = 'transcript')
        GROUP BY event_id
    )
SELECT
    w.timestamp, 'api_request', w.session_id, w.event_id, now64(9),
    greatest(4000000000000000000 + toUInt64(toUnixTimestamp64Nano(now64(9))), p.last_version + 1), 'transcript', w.prompt_id, w.begins_prompt, w.message_uuid,
    w.user_id, w.installation_id, w.user_account_uuid, w.organization_id, w.plan, w.seat_type, if(telemetry_taken('service.name'), '', 'claude-code'),
    w.service_version, w.entrypoint, w.terminal_type, w.os_type, w.host_arch,
    w.project, w.branch, w.feature, w.chapter, w.part, w.step, w.context_source, w.confidence, w.context_at,
    w.model, w.cost_usd, w.input_tokens, w.output_tokens, w.input_tokens + w.output_tokens, w.cache_read_tokens, w.cache_creation_tokens,
    w.cache_creation_5m_tokens, w.cache_creation_1h_tokens, w.request_id, w.speed, w.attributes
FROM wanted AS w
LEFT JOIN present AS p ON w.event_id = p.event_id
WHERE p.event_id = 0 OR p.said != (w.timestamp, w.session_id, w.prompt_id, w.begins_prompt, w.user_id, w.installation_id, w.project, w.branch, w.feature,
    w.chapter, w.part, w.step, w.context_source, w.model, w.cost_usd, w.input_tokens, w.output_tokens, w.cache_read_tokens, w.cache_creation_tokens,
    w.cache_creation_1h_tokens, w.request_id)
SETTINGS do_not_merge_across_partitions_select_final = 1,
    min_insert_block_size_rows = 65536, -- not all rows in memory at once
    optimize_on_insert = 0; -- no row is written twice, and to look for one costs as much as to write all

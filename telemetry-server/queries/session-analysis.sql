-- Sessions, by hand. Each statement runs as printed; change what it says after WHERE. README.md says how.
-- Times are UTC. FINAL counts what arrived twice once.

-- 1. The newest sessions: what they were for, how long they took, what they cost.
SELECT
    session_id,
    any(user_id) AS user,
    min(timestamp) AS started_at,
    dateDiff('minute', min(timestamp), max(timestamp)) AS minutes,
    arraySort(groupUniqArrayIf(chapter_context, chapter_context != '')) AS chapters,
    countIf(event_type = 'user_prompt' OR begins_prompt) AS prompts,
    countIf(event_type = 'api_request') AS requests,
    round(sumIf(cost_usd, event_type = 'api_request'), 4) AS cost_usd
FROM telemetry.telemetry_events FINAL
WHERE timestamp >= now() - INTERVAL 7 DAY
GROUP BY session_id
ORDER BY started_at DESC
LIMIT 50;

-- 2. The dearest session of the last 30 days, event by event, in the client's own order.
SELECT timestamp, event_sequence, event_type, tool_name, success, model, cost_usd, duration_ms, workflow_step, chapter_context
FROM telemetry.telemetry_events FINAL
WHERE session_id = (
    SELECT session_id
    FROM telemetry.telemetry_events FINAL
    WHERE event_type = 'api_request' AND timestamp >= now() - INTERVAL 30 DAY
    GROUP BY session_id
    ORDER BY sum(cost_usd) DESC
    LIMIT 1)
ORDER BY timestamp, event_sequence
LIMIT 1000;

-- 3. Sessions that went from one chapter or feature to another, and what each stretch cost.
SELECT session_id, feature, chapter_context, min(timestamp) AS since, count() AS requests, round(sum(cost_usd), 4) AS cost_usd
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'api_request' AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY session_id, feature, chapter_context
QUALIFY count() OVER (PARTITION BY session_id) > 1
ORDER BY session_id, since;

-- 4. What nobody knows the chapter or the feature of, with what was known instead.
SELECT project, branch, feature, workflow_step, count() AS requests, uniqExact(session_id) AS sessions, round(sum(cost_usd), 4) AS cost_usd
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'api_request' AND timestamp >= now() - INTERVAL 30 DAY AND (chapter_context = '' OR feature = '')
GROUP BY project, branch, feature, workflow_step
ORDER BY cost_usd DESC;

-- 5. What subagents cost, and what the main thread did.
SELECT
    if(agent_name != '' OR startsWith(query_source, 'agent:'), if(agent_name = '', query_source, agent_name), 'main thread and auxiliary') AS agent,
    count() AS requests, round(sum(cost_usd), 4) AS cost_usd, sum(output_tokens) AS output_tokens, sum(cache_read_tokens) AS cache_read_tokens
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'api_request' AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY agent
ORDER BY cost_usd DESC;

-- Tools, by hand. Each statement runs as printed; change what it says after WHERE. README.md says how.
-- Times are UTC. A call that a person or a rule refused has a tool_decision and no tool_result.

-- 1. Tools by use: calls, failures, duration, size of what they gave back.
SELECT
    tool_name,
    count() AS calls,
    countIf(success = false) AS failures,
    round(100 * failures / calls, 1) AS failed_percent,
    round(quantile(0.5)(duration_ms)) AS p50_ms,
    round(quantile(0.95)(duration_ms)) AS p95_ms,
    formatReadableSize(sum(tool_result_bytes)) AS gave_back,
    uniqExact(session_id) AS sessions
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'tool_result' AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY tool_name
ORDER BY calls DESC;

-- 2. Who decides: how often tools were accepted or refused, and by what (a person, a rule, a hook).
SELECT tool_name, decision, decision_source, count() AS times
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'tool_decision' AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY tool_name, decision, decision_source
ORDER BY tool_name, times DESC;

-- 3. Tools by chapter: what kind of work each chapter is.
SELECT if(chapter_context = '', '(unattributed)', chapter_context) AS chapter, tool_name, count() AS calls, countIf(success = false) AS failures
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'tool_result' AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY chapter, tool_name
ORDER BY chapter = '(unattributed)', chapter, calls DESC;

-- 4. The slowest calls.
SELECT timestamp, session_id, tool_name, round(duration_ms / 1000, 1) AS seconds, success, tool_result_bytes, workflow_step, chapter_context
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'tool_result' AND timestamp >= now() - INTERVAL 30 DAY
ORDER BY duration_ms DESC
LIMIT 50;

-- 5. Steps (slash commands and skills) by tools and cost.
SELECT
    if(workflow_step = '', '(unattributed)', workflow_step) AS step,
    countIf(event_type = 'tool_result') AS calls,
    countIf(event_type = 'tool_result' AND success = false) AS failures,
    countIf(event_type = 'api_request') AS requests,
    round(sumIf(cost_usd, event_type = 'api_request'), 4) AS cost_usd
FROM telemetry.telemetry_events FINAL
WHERE event_type IN ('tool_result', 'api_request') AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY step
ORDER BY cost_usd DESC;

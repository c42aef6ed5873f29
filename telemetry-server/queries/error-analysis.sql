-- Errors, by hand. Each statement runs as printed; change what it says after WHERE. README.md says how.
-- Times are UTC. A request that a retry cured leaves no event; only those that failed for good are here.

-- 1. What fails, and how many sessions it hits.
SELECT
    event_type, error_type, api_error_code, tool_name,
    count() AS errors, uniqExact(session_id) AS sessions, min(timestamp) AS first_at, max(timestamp) AS last_at
FROM telemetry.telemetry_events FINAL
WHERE (event_type IN ('api_error', 'internal_error') OR event_type = 'tool_result' AND success = false)
  AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY event_type, error_type, api_error_code, tool_name
ORDER BY errors DESC;

-- 2. The newest errors, with their messages as the privacy policy left them.
SELECT timestamp, session_id, event_type, error_type, api_error_code, attempt, model, tool_name, api_error_message, error_message
FROM telemetry.telemetry_events FINAL
WHERE (event_type IN ('api_error', 'internal_error') OR event_type = 'tool_result' AND success = false)
  AND timestamp >= now() - INTERVAL 30 DAY
ORDER BY timestamp DESC
LIMIT 100;

-- 3. Sessions by how often their validation failed: tool calls that failed while /validate was under way.
SELECT
    session_id, any(user_id) AS user, any(feature) AS feature, any(chapter_context) AS chapter,
    countIf(event_type = 'tool_result' AND success = false) AS failures,
    countIf(event_type = 'tool_result') AS calls,
    min(timestamp) AS first_at
FROM telemetry.telemetry_events FINAL
WHERE workflow_step = 'validate' AND event_type = 'tool_result' AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY session_id
HAVING failures > 0
ORDER BY failures DESC;

-- 4. Errors a day for every 1,000 requests or tool calls: whether it gets better.
SELECT
    toDate(timestamp) AS day,
    countIf(event_type = 'api_error') AS api_errors,
    countIf(event_type = 'tool_result' AND success = false) AS tool_failures,
    countIf(event_type IN ('api_request', 'api_error', 'tool_result')) AS attempts,
    round(1000 * (api_errors + tool_failures) / attempts, 1) AS per_1000
FROM telemetry.telemetry_events FINAL
WHERE event_type IN ('api_request', 'api_error', 'tool_result') AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY day
ORDER BY day;

-- 5. Retries that ran out: how many attempts, and how long they took.
SELECT model, api_error_code, count() AS times, max(attempt) AS most_attempts, round(avg(duration_ms) / 1000, 1) AS seconds_lost, uniqExact(session_id) AS sessions
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'api_retries_exhausted' AND timestamp >= now() - INTERVAL 30 DAY
GROUP BY model, api_error_code
ORDER BY times DESC;

-- 6. What was under way right before an error: the tools called in the two minutes before a request failed.
SELECT failed.error_type AS error_type, called.tool_name AS tool_name, count() AS times
FROM
    (SELECT session_id, timestamp, tool_name FROM telemetry.telemetry_events FINAL
     WHERE event_type = 'tool_result' AND timestamp >= now() - INTERVAL 30 DAY) AS called
    INNER JOIN -- the right side is the one that is held in memory
    (SELECT session_id, timestamp, error_type FROM telemetry.telemetry_events FINAL
     WHERE event_type = 'api_error' AND timestamp >= now() - INTERVAL 30 DAY) AS failed
    ON failed.session_id = called.session_id
WHERE called.timestamp <= failed.timestamp AND called.timestamp > failed.timestamp - INTERVAL 2 MINUTE
GROUP BY error_type, tool_name
ORDER BY times DESC;

-- A row if there is an event in a session with requests that were filled in, and the event or one of these has no request id: then
-- likeness decides (cancel_alike.sql).
SELECT 1 FROM telemetry.telemetry_events FINAL
WHERE event_type = 'api_request' AND source = 'otlp'
    AND (session_id IN (SELECT session_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'transcript' AND request_id = '')
        OR request_id = ''
            AND session_id IN (SELECT session_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'transcript'))
LIMIT 1;

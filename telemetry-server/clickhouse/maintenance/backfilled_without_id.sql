-- A row if any request, filled in or in a session with some that were, has no request id: then likeness decides (cancel_alike.sql).
SELECT 1 FROM telemetry.telemetry_events AS e FINAL
WHERE event_type = 'api_request' AND request_id = '' AND (source = 'transcript'
    OR session_id IN (SELECT session_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'transcript'))
LIMIT 1;

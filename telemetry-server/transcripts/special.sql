-- What is special about the requests that matched.sql matches, and most often nothing is: without it, that statement is half as long.
--
--   several   some were billed for several attempts
--   pairs     some can't be paired by a request id of their own: several have one, or one side has none
--   events    telemetry knows of any request at all
WITH
    told AS (SELECT session_id, request_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'otlp')
SELECT
    (SELECT count() > 0 FROM telemetry.transcript_copies WHERE attempts > 1) AS several,
    (SELECT count() > 0 FROM telemetry.transcript_copies WHERE request_id = '' AND session_id IN (SELECT session_id FROM told))
        OR (SELECT count() > 0 FROM told WHERE request_id = '')
        OR (SELECT count() > 0 FROM
               (SELECT 1 FROM telemetry.transcript_copies WHERE request_id != '' GROUP BY cityHash64(request_id)
                HAVING min(message_key) != max(message_key) LIMIT 1)) AS pairs,
    (SELECT count() > 0 FROM (SELECT 1 FROM told LIMIT 1)) AS events

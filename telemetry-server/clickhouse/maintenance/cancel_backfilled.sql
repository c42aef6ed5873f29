-- Takes back what was filled in and is no longer needed: rows whose event came after all (by request id; of several with one id those stay of
-- which no event tells), and rows that stand under another key since (the transcript said more, later). Each gets a copy of a higher version
-- that is marked as deleted. {by_id}: as in list_for_backfill.sql.
--
-- Most often there is nothing to take back, and where telemetry knows of no request nothing was reported: the engine plans and reads nothing
-- for a condition that it knows to be false.
INSERT INTO telemetry.telemetry_events
WITH
    (SELECT count() > 0 FROM (SELECT 1 FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'otlp' LIMIT 1)) AS any_told,
    twice AS
    (
        SELECT event_id FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND source = 'transcript' GROUP BY event_id HAVING count() > 1
    ),
    (SELECT count() > 0 FROM (SELECT 1 FROM twice LIMIT 1)) AS any_twice,
    reported AS
    (
        SELECT request_id FROM telemetry.telemetry_events
        WHERE event_type = 'api_request' AND source = 'otlp' AND request_id IN
            (SELECT request_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'transcript' AND request_id != '')
    )
SELECT
    * EXCEPT (nth)
    REPLACE
    (
        now64(9) AS received_at,
        greatest(4000000000000000000 + toUInt64(toUnixTimestamp64Nano(now64(9))), version + 1) AS version,
        1 AS is_deleted
    )
FROM
(
    SELECT *, row_number() OVER (PARTITION BY event_id ORDER BY version DESC) AS nth
    FROM telemetry.telemetry_events FINAL
    WHERE event_type = 'api_request' AND source = 'transcript'
        AND (any_twice AND event_id IN twice OR any_told AND request_id IN reported)
)
WHERE nth > 1 OR any_told AND request_id IN reported
    AND ({by_id:Bool} OR (attributes['message.id'], request_id) NOT IN (SELECT message_id, request_id FROM telemetry.surplus_requests))
SETTINGS do_not_merge_across_partitions_select_final = 1;

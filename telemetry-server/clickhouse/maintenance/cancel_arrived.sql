-- What was filled in from transcripts and whose events are in the block that was just stored (stage_events), by request id. Runs before the
-- sender is answered, so that no request counts twice for longer than its insert takes. Of several with one id those stay of which no event
-- tells; asked only where there are any.
INSERT INTO telemetry.telemetry_events
WITH
    (
        SELECT count() FROM
        (
            SELECT request_id FROM telemetry.transcript_copies WHERE request_id != '' AND request_id IN (SELECT request_id FROM stage_events)
            GROUP BY request_id HAVING min(message_key) != max(message_key)
        )
    ) AS several
SELECT
    * REPLACE
    (
        now64(9) AS received_at,
        greatest(4000000000000000000 + toUInt64(toUnixTimestamp64Nano(now64(9))), version + 1) AS version,
        1 AS is_deleted
    )
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'api_request' AND source = 'transcript' AND request_id != ''
    AND request_id IN (SELECT request_id FROM stage_events)
    AND (several = 0 OR (attributes['message.id'], request_id) NOT IN (SELECT message_id, request_id FROM telemetry.surplus_requests))
SETTINGS do_not_merge_across_partitions_select_final = 1;

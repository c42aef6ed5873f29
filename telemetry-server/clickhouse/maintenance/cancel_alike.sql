-- The same as cancel_backfilled.sql where the row or the event has no request id: transcripts tell which of their requests still has no
-- event, and no other row needs to be there.
INSERT INTO telemetry.telemetry_events
WITH
    filled AS
    (
        SELECT * FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND source = 'transcript' AND attributes['message.id'] != ''
    ),
    alike AS
    (
        SELECT message_id FROM telemetry.transcript_copies
        WHERE message_id IN (SELECT attributes['message.id'] FROM filled)
            AND message_id NOT IN (SELECT message_id FROM telemetry.unreported_requests)
    )
SELECT
    * REPLACE
    (
        now64(9) AS received_at,
        greatest(4000000000000000000 + toUInt64(toUnixTimestamp64Nano(now64(9))), version + 1) AS version,
        1 AS is_deleted
    )
FROM filled
WHERE attributes['message.id'] IN alike
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- What was filled in from transcripts and whose events are in the block that was just stored (stage_events), by request id. Runs before the
-- sender is answered, so that no request counts twice for longer than its insert takes.
INSERT INTO telemetry.telemetry_events
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
SETTINGS do_not_merge_across_partitions_select_final = 1;

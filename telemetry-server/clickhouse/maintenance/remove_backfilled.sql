-- Takes back everything that was filled in from transcripts since {since}.
INSERT INTO telemetry.telemetry_events
SELECT
    * REPLACE
    (
        now64(9) AS received_at,
        greatest(4000000000000000000 + toUInt64(toUnixTimestamp64Nano(now64(9))), version + 1) AS version,
        1 AS is_deleted
    )
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'api_request' AND source = 'transcript' AND timestamp >= {since:DateTime64(9, 'UTC')}
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- Summaries are made from events, so one whose events were all taken back would stay as it was: it gets a copy that is marked as deleted.
-- Not so one whose events went with their time.
INSERT INTO telemetry.session_summaries
SELECT * REPLACE (version + 1 AS version, 1 AS is_deleted)
FROM telemetry.session_summaries FINAL
WHERE session_id IN (SELECT session_id FROM telemetry.backfilled_requests)
    AND ended_at >= (SELECT max(since) FROM telemetry.events_kept) AND session_id NOT IN
(
    SELECT session_id FROM telemetry.telemetry_events FINAL
    WHERE session_id IN (SELECT session_id FROM telemetry.backfilled_requests)
)
SETTINGS do_not_merge_across_partitions_select_final = 1;

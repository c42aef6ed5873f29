-- Requests that were filled in, whose events are in the block that was just stored (stage_events) and of which no hook told anything: they keep
-- the context that their transcript gave them, or a report by chapter would say something else when the event comes. Before cancel_arrived.sql.
INSERT INTO telemetry.telemetry_events
SELECT
    e.* REPLACE
    (
        greatest(4000000000000000000 + toUInt64(toUnixTimestamp64Nano(now64(9))), e.version + 1) AS version,
        if(e.project != '', e.project, f.project) AS project,
        f.branch AS branch,
        f.feature AS feature,
        f.chapter_context AS chapter_context,
        f.part AS part,
        f.context_source AS context_source,
        f.context_confidence AS context_confidence
    )
FROM
(
    SELECT * FROM telemetry.telemetry_events FINAL
    WHERE event_type = 'api_request' AND source = 'otlp' AND request_id != '' AND request_id IN (SELECT request_id FROM stage_events)
      AND toUnixTimestamp64Nano(context_at) = 0 AND context_source = ''
) AS e
INNER JOIN
(
    SELECT request_id, project, branch, feature, chapter_context, part, context_source, context_confidence
    FROM telemetry.telemetry_events FINAL
    WHERE event_type = 'api_request' AND source = 'transcript' AND request_id != '' AND request_id IN (SELECT request_id FROM stage_events)
      AND context_source != ''
    LIMIT 1 BY request_id
) AS f ON e.request_id = f.request_id
SETTINGS do_not_merge_across_partitions_select_final = 1;

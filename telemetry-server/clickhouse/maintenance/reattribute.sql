-- Late context: events whose session has since told more about their moment are written again, attributed to it. The new copies
-- have a higher version and so replace the old ones. {since}: contexts received from then on are looked at.
INSERT INTO telemetry.telemetry_events
WITH
    late AS (SELECT session_id, at FROM telemetry.session_context WHERE received_at >= {since:DateTime64(9, 'UTC')})
SELECT
    e.* REPLACE
    (
        greatest(4000000000000000000 + toUInt64(toUnixTimestamp64Nano(now64(9))), e.version + 1) AS version, -- clocks are set back
        if(e.user_id = e.installation_id AND c.person != '', c.person, e.user_id) AS user_id,
        if(c.project != '', c.project, e.project) AS project,
        c.branch AS branch,
        c.feature AS feature,
        c.chapter AS chapter_context,
        c.part AS part,
        c.step AS workflow_step,
        if(c.feature_source = '' AND c.chapter_source = '', '',
           concat('feature:', c.feature_source, ' chapter:', c.chapter_source)) AS context_source,
        c.confidence AS context_confidence,
        c.at AS context_at
    )
FROM
(
    SELECT * FROM telemetry.telemetry_events FINAL
    WHERE session_id IN (SELECT session_id FROM late) AND timestamp >= (SELECT min(at) FROM late)
) AS e
ASOF LEFT JOIN
(
    SELECT * FROM telemetry.session_context FINAL WHERE session_id IN (SELECT session_id FROM late)
) AS c
ON e.session_id = c.session_id AND e.timestamp >= c.at
WHERE (e.context_at, e.project, e.branch, e.feature, e.chapter_context, e.part, e.workflow_step)
    != (c.at, if(c.project != '', c.project, e.project), c.branch, c.feature, c.chapter, c.part, c.step)
    -- before the first record, what its transcript says counts, also of an event that took the place of what was filled in
    AND NOT ((e.source = 'transcript' OR position(e.context_source, 'transcript') > 0) AND c.session_id = '')
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- Tools: how often they were called, how often they failed, how long they took, how much they gave back.
-- rejected: calls that a person or a rule refused; they never ran, so they are not among the calls. The durations are of the middle
-- call and of the one that 95 of 100 are faster than, to 0.4 %.
--
--   by        one to three of: tool chapter feature user day session step branch project; with commas between
--   from      a moment or a day, in tz; empty: 30 days ago, at midnight
--   to        a moment, or a day, which counts whole; empty: no end
--   tz        the time zone in which days are cut, such as Europe/Berlin
--   user, session      the whole name; empty: all
--   chapter, feature   the whole name, its number ('33', '017'), or (unattributed); empty: all
--   type      event type: tool_result or tool_decision; empty: all
--   limit     how many groups; 0: all
--
-- `row` tells groups, what is unattributed, and the total, which is over all groups, also those beyond the limit.
-- unattributed: calls without the chapter, feature, step, branch, project or user that they are grouped by; without a chapter if
-- they are grouped by none of these.
WITH
    splitByChar(',', {by:String}) AS by,
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    events AS
    (
        WITH
            if(has(by, 'chapter') OR NOT hasAny(by, ['feature', 'step', 'branch', 'project', 'user']), chapter_context = '', false)
                OR if(has(by, 'feature'), e.feature = '', false) OR if(has(by, 'step'), workflow_step = '', false)
                OR if(has(by, 'branch'), e.branch = '', false) OR if(has(by, 'project'), e.project = '', false)
                OR if(has(by, 'user'), user_id = '', false) AS without
        SELECT
            if(has(by, 'tool'), e.tool_name, '') AS tool,
            if(has(by, 'chapter'), chapter_context, '') AS chapter,
            if(has(by, 'feature'), e.feature, '') AS feature,
            if(has(by, 'user'), user_id, '') AS user,
            if(has(by, 'day'), toDate(timestamp, {tz:String}), toDate(0)) AS day,
            if(has(by, 'session'), session_id, '') AS session,
            if(has(by, 'step'), workflow_step, '') AS step,
            if(has(by, 'branch'), e.branch, '') AS branch,
            if(has(by, 'project'), e.project, '') AS project,
            uniqState(session_id) AS sessions,
            countIf(event_type = 'tool_result') AS calls,
            countIf(success = false) AS failures,
            countIf(event_type = 'tool_decision' AND decision = 'reject') AS rejected,
            -- it keeps eight binary digits and cuts the rest off; half of the last one more, and it rounds
            quantilesBFloat16StateIf(0.5, 0.95)(e.duration_ms * 1.00390625, event_type = 'tool_result') AS durations,
            sum(e.tool_result_bytes) AS result_bytes,
            countIf(event_type = 'tool_result' AND without) AS unattributed
        FROM telemetry.telemetry_events AS e FINAL
        WHERE event_type IN ('tool_result', 'tool_decision')
          AND timestamp >= since AND timestamp < until
          AND if({type:String} = '', true, event_type = {type:String})
          AND if({user:String} = '', true, user_id = {user:String})
          AND if({session:String} = '', true, session_id = {session:String})
          AND if({chapter:String} = '', true, chapter_context = if({chapter:String} = '(unattributed)', '', {chapter:String})
                 OR toUInt64OrNull(extract(chapter_context, '^[0-9]+')) = toUInt64OrNull({chapter:String}))
          AND if({feature:String} = '', true, e.feature = if({feature:String} = '(unattributed)', '', {feature:String})
                 OR toUInt64OrNull(extract(e.feature, '^[0-9]+')) = toUInt64OrNull({feature:String}))
        GROUP BY tool, chapter, feature, user, day, session, step, branch, project
    ),
    named AS
    (
        SELECT
            map('tool', if(tool = '', '(no tool)', tool), 'chapter', chapter, 'feature', feature, 'user', user,
                'day', toString(day), 'session', session, 'step', step, 'branch', branch, 'project', project) AS names,
            if(throwIf(length(by) > 3 OR NOT hasAll(mapKeys(names), by), 'by: one to three of tool, chapter, feature, user, day, session, step, branch, project') = 0
               AND names[by[1]] = '', '(unattributed)', names[by[1]]) AS group_1,
            if(length(by) > 1 AND names[by[2]] = '', '(unattributed)', names[by[2]]) AS group_2,
            if(length(by) > 2 AND names[by[3]] = '', '(unattributed)', names[by[3]]) AS group_3,
            *
        FROM events
    )
SELECT
    multiIf(grouping(group_1) = 1, 'total', group_1 = '(unattributed)', 'unattributed', 'group') AS row,
    group_1, group_2, group_3,
    sum(n.calls) AS calls,
    sum(n.failures) AS failures,
    if(calls = 0, NULL, failures / calls) AS failure_ratio,
    sum(n.rejected) AS rejected,
    quantilesBFloat16Merge(0.5, 0.95)(n.durations) AS percentiles,
    if(calls = 0, NULL, percentiles[1]) AS p50_ms,
    if(calls = 0, NULL, percentiles[2]) AS p95_ms,
    sum(n.result_bytes) AS result_bytes,
    uniqMerge(n.sessions) AS sessions,
    sum(n.unattributed) AS unattributed,
    count() AS groups
FROM named AS n
GROUP BY GROUPING SETS ((group_1, group_2, group_3), ())
ORDER BY
    indexOf(['group', 'unattributed', 'total'], row),
    if(by[1] = 'day', group_1, '') DESC, sum(calls) OVER (PARTITION BY row, group_1) DESC, group_1,
    group_2 = '(unattributed)', if(by[2] = 'day', group_2, '') DESC, calls DESC, group_2, group_3
LIMIT if({limit:UInt64} = 0, 1000000000, {limit:UInt64}) BY row

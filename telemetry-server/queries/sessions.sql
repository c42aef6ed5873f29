-- Sessions and what happened in them: prompts, requests, tool calls, failures, cost. By session: a row for each; by anything else:
-- how many had something to do with it, so a session may count in several groups, and once in the total. prompts: NULL where all was filled
-- in, from transcripts that don't tell which requests belong to one.
-- elapsed_ms is from the first of these events to the last, pauses included; active_ms the minutes in which there were any; api_ms the
-- time that requests took. By session, those that go on from one another are one, under the first one's id: `joined` says how (forked,
-- cleared, compacted), `joined_sessions` which follows which, `ended_by` what came last: answer, error, command (typed with a slash; many, as
-- /telemetry-report, need no answer), broken off (no answer came), open (in the last ten minutes).
--
--   by        one to three of: session chapter feature user day step branch project; with commas between
--   from      a moment or a day, in tz; empty: 30 days ago, at midnight
--   to        a moment, or a day, which counts whole; empty: no end
--   tz        the time zone in which days are cut, such as Europe/Berlin
--   user, session      the whole name; empty: all; of the first session of a piece of work all of it, of another one that alone
--   chapter, feature   the whole name, its number ('33', '017'), or (unattributed); empty: all
--   type      event type: user_prompt, api_request, api_error or tool_result; empty: all
--   limit     how many groups; 0: all
--
-- `row` tells groups, what is unattributed, and the total, which is over all groups, also those beyond the limit.
-- unattributed: cost of requests without the chapter, feature, step, branch, project or user that they are grouped by; without a chapter if
-- they are grouped by none of these.
WITH
    splitByChar(',', {by:String}) AS by,
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    -- Which session goes on from which, found in transcripts: a fork, what was begun by /clear. By session, they are one piece of work.
    (SELECT (groupArray(session_id), groupArray(work_id), groupArray(toString(kind)), groupArray(follows)) FROM telemetry.session_links FINAL) AS links,
    (
        SELECT (groupArray(session_id), groupArray(ids))
        FROM
        (
            SELECT session_id, groupUniqArrayArray(compaction_ids) AS ids
            FROM telemetry.transcript_files FINAL GROUP BY session_id HAVING notEmpty(ids)
        )
    ) AS compacted,
    -- A row for each session, 64 minutes of its time and what is asked for: the minutes with events are the bits of one number. These are
    -- a hundredth of the events, so that what is dear (names, distinct sessions, minutes in several groups) is done to few rows. Grouped by
    -- a hash, for names of several columns make a slow key.
    events AS
    (
        WITH
            if(has(by, 'chapter') OR NOT hasAny(by, ['feature', 'step', 'branch', 'project', 'user']), chapter_context = '', false)
                OR if(has(by, 'feature'), e.feature = '', false) OR if(has(by, 'step'), workflow_step = '', false)
                OR if(has(by, 'branch'), e.branch = '', false) OR if(has(by, 'project'), e.project = '', false)
                OR if(has(by, 'user'), user_id = '', false) AS without,
            intDiv(toUnixTimestamp64Nano(timestamp), 60000000000) AS minute,
            bitXor(cityHash64(e.session_id), bitShiftRight(minute, 6)) AS stretch_key,
            -- Where times are equal, the number of the event decides (what has none, has 0 there). In the lowest bits what it was.
            4 * (toUInt64(toUnixTimestamp64Nano(timestamp)) + least(assumeNotNull(event_sequence), 999999))
                + multiIf(event_type = 'api_error', 3, event_type = 'api_request', 2, event_type = 'user_prompt' AND command_name != '', 1, 0) AS moment
        SELECT
            if(has(by, 'session'), toString(any(e.session_id)), '') AS session,
            any(cityHash64(e.session_id)) AS session_key,
            any(bitShiftRight(minute, 6)) AS stretch,
            if(has(by, 'chapter'), toString(any(chapter_context)), '') AS chapter,
            if(has(by, 'feature'), toString(any(e.feature)), '') AS feature,
            if(has(by, 'user'), toString(any(user_id)), '') AS user,
            any(if(has(by, 'day'), toDate(timestamp, {tz:String}), toDate(0))) AS day,
            if(has(by, 'step'), toString(any(workflow_step)), '') AS step,
            if(has(by, 'branch'), toString(any(e.branch)), '') AS branch,
            if(has(by, 'project'), toString(any(e.project)), '') AS project,
            groupBitOr(bitShiftLeft(toUInt64(1), bitAnd(minute, 63))) AS minutes,
            max(if(has(by, 'session'), moment, 0)) AS last,
            min(timestamp) AS first_at,
            max(timestamp) AS last_at,
            countIf(event_type = 'user_prompt' OR begins_prompt) AS prompts,
            countIf(e.source = 'transcript') AS filled_in,
            countIf(event_type = 'api_request') AS requests,
            countIf(event_type = 'api_error') AS api_errors,
            countIf(event_type = 'tool_result') AS tool_calls,
            countIf(event_type = 'tool_result' AND success = false) AS tool_failures,
            sum(if(event_type = 'api_request', e.cost_usd, 0)) AS cost_usd,
            sum(if(event_type = 'api_request', e.duration_ms, 0)) AS api_ms,
            sumIf(e.cost_usd, without AND event_type = 'api_request') AS unattributed
        FROM telemetry.telemetry_events AS e FINAL
        WHERE event_type IN ('user_prompt', 'api_request', 'api_error', 'tool_result')
          AND timestamp >= since AND timestamp < until
          AND if({type:String} = '', true, event_type = {type:String})
          AND if({user:String} = '', true, user_id = {user:String})
          AND if({session:String} = '', true, e.session_id = {session:String}
                 OR e.session_id IN (SELECT session_id FROM telemetry.session_links FINAL WHERE work_id = {session:String}))
          AND if({chapter:String} = '', true, chapter_context = if({chapter:String} = '(unattributed)', '', {chapter:String})
                 OR toUInt64OrNull(extract(chapter_context, '^[0-9]+')) = toUInt64OrNull({chapter:String}))
          AND if({feature:String} = '', true, e.feature = if({feature:String} = '(unattributed)', '', {feature:String})
                 OR toUInt64OrNull(extract(e.feature, '^[0-9]+')) = toUInt64OrNull({feature:String}))
        GROUP BY cityHash64(
            stretch_key,
            if(has(by, 'day'), toDate(timestamp, {tz:String}), toDate(0)),
            if(hasAny(by, ['chapter', 'feature', 'user', 'step', 'branch', 'project']), cityHash64(
                if(has(by, 'chapter'), cityHash64(chapter_context), 0),
                if(has(by, 'feature'), cityHash64(e.feature), 0),
                if(has(by, 'user'), cityHash64(user_id), 0),
                if(has(by, 'step'), cityHash64(workflow_step), 0),
                if(has(by, 'branch'), cityHash64(e.branch), 0),
                if(has(by, 'project'), cityHash64(e.project), 0)), 0))
    ),
    named AS
    (
        WITH transform(session, links.1, links.2, session) AS work
        SELECT
            map('session', if({session:String} = '' OR work = {session:String}, work, session), 'chapter', chapter, 'feature', feature, 'user', user,
                'day', toString(day), 'step', step, 'branch', branch, 'project', project) AS names,
            if(throwIf(length(by) > 3 OR NOT hasAll(mapKeys(names), by), 'by: one to three of session, chapter, feature, user, day, step, branch, project') = 0
               AND names[by[1]] = '', '(unattributed)', names[by[1]]) AS group_1,
            if(length(by) > 1 AND names[by[2]] = '', '(unattributed)', names[by[2]]) AS group_2,
            if(length(by) > 2 AND names[by[3]] = '', '(unattributed)', names[by[3]]) AS group_3,
            transform(session, links.1, links.3, '') AS link,
            transform(session, compacted.1, arrayEnumerate(compacted.1), toUInt32(0)) AS compacted_at,
            bitXor(if(has(by, 'session'), cityHash64(work), session_key), stretch) AS whose_stretch,
            *
        FROM events
    )
SELECT
    multiIf(grouping(group_1) = 1, 'total', group_1 = '(unattributed)', 'unattributed', 'group') AS row,
    group_1, group_2, group_3,
    sum(n.cost_usd) AS cost_usd,
    uniq(n.session_key) AS sessions,
    if(sum(n.prompts) = 0 AND sum(n.filled_in) > 0, NULL, sum(n.prompts)) AS prompts,
    sum(n.requests) AS requests,
    sum(n.tool_calls) AS tool_calls,
    sum(n.tool_failures) AS tool_failures,
    sum(n.api_errors) AS api_errors,
    sum(n.api_ms) AS api_ms,
    toTimeZone(min(n.first_at), {tz:String}) AS started_at,
    toTimeZone(max(n.last_at), {tz:String}) AS ended_at,
    dateDiff('millisecond', started_at, ended_at) AS elapsed_ms,
    -- where one of a session's minutes may be of several groups, it counts in each, and once in the total; one of several linked sessions once
    least(60000 * if(hasAny(by, ['chapter', 'feature', 'user', 'step', 'branch', 'project']) OR has(by, 'session') AND notEmpty(links.1),
                     arraySum(arrayMap(bits -> bitCount(bits), mapValues(groupBitOrMap(map(n.whose_stretch, n.minutes))))),
                     sum(bitCount(n.minutes))), elapsed_ms) AS active_ms,
    multiIf(
        max(n.session) = '' OR row = 'total', '',
        max(n.last_at) > now64(9) - INTERVAL 10 MINUTE, 'open',
        ['broken off', 'command', 'answer', 'error'][1 + bitAnd(max(n.last), 3)]) AS ended_by,
    arrayStringConcat(arrayFilter(text -> text != '', [
        if(uniqExactIf(n.session, link = 'forked') AS forks > 0, concat(toString(forks), ' forked'), ''),
        if(uniqExactIf(n.session, link = 'cleared') AS clears > 0, concat(toString(clears), ' cleared'), ''),
        if(length(arrayDistinct(arrayFlatten(arrayMap(at -> compacted.2[at], groupUniqArrayIf(n.compacted_at, n.compacted_at > 0))))) AS times > 0, concat(toString(times), ' compacted'), '')]), ', ') AS joined,
    -- those with events here, in the order of their first ones
    arrayMap(
        id -> CAST((id, transform(id, links.1, links.3, ''), transform(id, links.1, links.4, '')), 'Tuple(session String, joined String, follows String)'),
        if(row = 'total', [], arrayDistinct(arraySort(groupArrayIf((n.first_at, n.session), link != '')).2))) AS joined_sessions,
    sum(n.unattributed) AS unattributed,
    uniqExact(cityHash64(group_1, group_2, group_3)) AS groups
FROM named AS n
GROUP BY GROUPING SETS ((group_1, group_2, group_3), ())
ORDER BY
    indexOf(['group', 'unattributed', 'total'], row),
    if(by[1] = 'day', group_1, '') DESC, sum(cost_usd) OVER (PARTITION BY row, group_1) DESC, group_1,
    group_2 = '(unattributed)', if(by[2] = 'day', group_2, '') DESC, cost_usd DESC, group_2, group_3
LIMIT if({limit:UInt64} = 0, 1000000000, {limit:UInt64}) BY row

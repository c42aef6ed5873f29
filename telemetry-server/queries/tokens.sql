-- Tokens: what was sent (input), written (output), read from the cache and written to it, each apart. There is no total of all four:
-- cache reads are many times the rest, and cost a tenth.
-- cache_hit_ratio: cache_read / (input + cache_read + cache_creation), the share of what the model read that came from the cache.
--
--   by        one to three of: chapter feature user day session step branch project model; with commas between
--   from      a moment or a day, in tz; empty: 30 days ago, at midnight
--   to        a moment, or a day, which counts whole; empty: no end
--   tz        the time zone in which days are cut, such as Europe/Berlin
--   user, session      the whole name; empty: all
--   chapter, feature   the whole name, its number ('33', '017'), or (unattributed); empty: all
--   type      event type: api_request; empty: all
--   limit     how many groups; 0: all
--
-- `row` tells groups, what is unattributed, and the total, which is over all groups, also those beyond the limit.
-- unattributed: input and output tokens of requests without the chapter, feature, step, branch, project or user that they are grouped by; without a chapter if
-- they are grouped by none of these.
WITH
    splitByChar(',', {by:String}) AS by,
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    /* if sums */
    has(by, 'session') OR {session:String} != '' AS by_session,
    (SELECT max(since) FROM telemetry.events_kept) AS kept,
    /* end */
    events AS
    (
        WITH
            if(has(by, 'chapter') OR NOT hasAny(by, ['feature', 'step', 'branch', 'project', 'user']), chapter_context = '', false)
                OR if(has(by, 'feature'), e.feature = '', false) OR if(has(by, 'step'), workflow_step = '', false)
                OR if(has(by, 'branch'), e.branch = '', false) OR if(has(by, 'project'), e.project = '', false)
                OR if(has(by, 'user'), user_id = '', false) AS without
        SELECT
            if(has(by, 'chapter'), chapter_context, '') AS chapter,
            if(has(by, 'feature'), e.feature, '') AS feature,
            if(has(by, 'user'), user_id, '') AS user,
            if(has(by, 'day'), toDate(timestamp, {tz:String}), toDate(0)) AS day,
            if(has(by, 'session'), session_id, '') AS session,
            if(has(by, 'step'), workflow_step, '') AS step,
            if(has(by, 'branch'), e.branch, '') AS branch,
            if(has(by, 'project'), e.project, '') AS project,
            if(has(by, 'model'), e.model, '') AS model,
            uniqState(cityHash64(session_id)) AS sessions,
            0 AS uncounted,
            count() AS requests,
            sum(e.input_tokens) AS input_tokens,
            sum(e.output_tokens) AS output_tokens,
            sum(e.token_count) AS token_count,
            sum(e.cache_read_tokens) AS cache_read_tokens,
            sum(e.cache_creation_tokens) AS cache_creation_tokens,
            sum(e.cache_creation_5m_tokens) AS cache_creation_5m_tokens,
            sum(e.cache_creation_1h_tokens) AS cache_creation_1h_tokens,
            sumIf(e.token_count, without) AS unattributed
        FROM telemetry.telemetry_events AS e FINAL
        WHERE event_type = 'api_request'
          AND timestamp >= since AND timestamp < until /* if sums */ AND if(by_session, true, timestamp >= kept) /* end */
          AND if({type:String} = '', true, event_type = {type:String})
          AND if({user:String} = '', true, user_id = {user:String})
          AND if({session:String} = '', true, session_id = {session:String})
          AND if({chapter:String} = '', true, chapter_context = if({chapter:String} = '(unattributed)', '', {chapter:String})
                 OR toUInt64OrNull(extract(chapter_context, '^[0-9]+')) = toUInt64OrNull({chapter:String}))
          AND if({feature:String} = '', true, e.feature = if({feature:String} = '(unattributed)', '', {feature:String})
                 OR toUInt64OrNull(extract(e.feature, '^[0-9]+')) = toUInt64OrNull({feature:String}))
        GROUP BY chapter, feature, user, day, session, step, branch, project, model
        /* if sums */
        -- Hours whose events are no longer kept, each by its beginning.
        UNION ALL
        WITH
            if(has(by, 'chapter') OR NOT hasAny(by, ['feature', 'step', 'branch', 'project', 'user']), chapter_context = '', false)
                OR if(has(by, 'feature'), h.feature = '', false) OR if(has(by, 'step'), workflow_step = '', false)
                OR if(has(by, 'branch'), h.branch = '', false) OR if(has(by, 'project'), h.project = '', false)
                OR if(has(by, 'user'), user_id = '', false) AS without
        SELECT
            if(has(by, 'chapter'), chapter_context, '') AS chapter,
            if(has(by, 'feature'), h.feature, '') AS feature,
            if(has(by, 'user'), user_id, '') AS user,
            if(has(by, 'day'), toDate(hour, {tz:String}), toDate(0)) AS day,
            '' AS session,
            if(has(by, 'step'), workflow_step, '') AS step,
            if(has(by, 'branch'), h.branch, '') AS branch,
            if(has(by, 'project'), h.project, '') AS project,
            if(has(by, 'model'), h.model, '') AS model,
            uniqMergeState(arrayReduce('uniqState', h.sessions)) AS sessions,
            countIf(empty(h.sessions)) AS uncounted,
            sum(h.requests) AS requests,
            sum(h.input_tokens) AS input_tokens,
            sum(h.output_tokens) AS output_tokens,
            input_tokens + output_tokens AS token_count,
            sum(h.cache_read_tokens) AS cache_read_tokens,
            sum(h.cache_creation_tokens) AS cache_creation_tokens,
            sum(h.cache_creation_5m_tokens) AS cache_creation_5m_tokens,
            sum(h.cache_creation_1h_tokens) AS cache_creation_1h_tokens,
            sumIf(h.input_tokens + h.output_tokens, without) AS unattributed
        FROM telemetry.usage_hourly AS h FINAL
        WHERE NOT by_session AND h.requests > 0 AND hour >= since AND hour < until AND hour < kept
          AND {type:String} IN ('', 'api_request')
          AND if({user:String} = '', true, user_id = {user:String})
          AND if({chapter:String} = '', true, chapter_context = if({chapter:String} = '(unattributed)', '', {chapter:String})
                 OR toUInt64OrNull(extract(chapter_context, '^[0-9]+')) = toUInt64OrNull({chapter:String}))
          AND if({feature:String} = '', true, h.feature = if({feature:String} = '(unattributed)', '', {feature:String})
                 OR toUInt64OrNull(extract(h.feature, '^[0-9]+')) = toUInt64OrNull({feature:String}))
        GROUP BY chapter, feature, user, day, session, step, branch, project, model
        /* end */
    ),
    named AS
    (
        SELECT
            map('chapter', chapter, 'feature', feature, 'user', user, 'day', toString(day), 'session', session, 'step', step,
                'branch', branch, 'project', project, 'model', if(model = '', '(no model)', model)) AS names,
            if(throwIf(length(by) > 3 OR NOT hasAll(mapKeys(names), by), 'by: one to three of chapter, feature, user, day, session, step, branch, project, model') = 0
               AND names[by[1]] = '', '(unattributed)', names[by[1]]) AS group_1,
            if(length(by) > 1 AND names[by[2]] = '', '(unattributed)', names[by[2]]) AS group_2,
            if(length(by) > 2 AND names[by[3]] = '', '(unattributed)', names[by[3]]) AS group_3,
            *
        FROM events
    )
SELECT
    multiIf(grouping(group_1) = 1, 'total', group_1 = '(unattributed)', 'unattributed', 'group') AS row,
    group_1, group_2, group_3,
    sum(n.requests) AS requests,
    sum(n.input_tokens) AS input_tokens,
    sum(n.output_tokens) AS output_tokens,
    sum(n.cache_read_tokens) AS cache_read_tokens,
    sum(n.cache_creation_tokens) AS cache_creation_tokens,
    sum(n.cache_creation_5m_tokens) AS cache_creation_5m_tokens,
    sum(n.cache_creation_1h_tokens) AS cache_creation_1h_tokens,
    if(input_tokens + cache_read_tokens + cache_creation_tokens = 0, NULL,
       cache_read_tokens / (input_tokens + cache_read_tokens + cache_creation_tokens)) AS cache_hit_ratio,
    sum(n.token_count) AS token_count,
    if(sum(n.uncounted) > 0, NULL, uniqMerge(n.sessions)) AS sessions,
    sum(n.unattributed) AS unattributed,
    uniqExact(cityHash64(group_1, group_2, group_3)) AS groups
FROM named AS n
GROUP BY GROUPING SETS ((group_1, group_2, group_3), ())
ORDER BY
    indexOf(['group', 'unattributed', 'total'], row),
    if(by[1] = 'day', group_1, '') DESC, sum(token_count) OVER (PARTITION BY row, group_1) DESC, group_1,
    group_2 = '(unattributed)', if(by[2] = 'day', group_2, '') DESC, token_count DESC, group_2, group_3
LIMIT if({limit:UInt64} = 0, 1000000000, {limit:UInt64}) BY row

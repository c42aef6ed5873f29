-- What was spent by the price list (telemetry.prices), beside what Claude Code reported. Grouped as in cost.sql.
-- cost_usd is computed from tokens at the prices of the request's day. reported_usd is what Claude Code said, and difference_usd how much
-- more that is, of requests that have both. unpriced: requests with tokens whose model has no price in the list.
--
--   by, from, to, tz, user, session, chapter, feature, type, limit     as in cost.sql
WITH
    splitByChar(',', {by:String}) AS by,
    if({from:String} = '', toStartOfDay(now({tz:String})) - INTERVAL 30 DAY, parseDateTime64BestEffort({from:String}, 9, {tz:String})) AS since,
    if({to:String} = '', toDateTime64('2200-01-01 00:00:00', 9, 'UTC'),
       parseDateTime64BestEffort({to:String}, 9, {tz:String}) + toIntervalDay(length({to:String}) = 10)) AS until,
    events AS
    (
        WITH
            if(has(by, 'chapter') OR NOT hasAny(by, ['feature', 'step', 'branch', 'project', 'user']), chapter_context = '', false)
                OR if(has(by, 'feature'), e.feature = '', false) OR if(has(by, 'step'), workflow_step = '', false)
                OR if(has(by, 'branch'), e.branch = '', false) OR if(has(by, 'project'), e.project = '', false)
                OR if(has(by, 'user'), user_id = '', false) AS without,
            e.token_count + e.cache_read_tokens + e.cache_creation_tokens AS all_tokens
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
            uniqState(session_id) AS sessions,
            count() AS requests,
            sum(ifNull(e.computed_usd, 0)) AS cost_usd,
            sum(ifNull(e.reported_usd, 0)) AS reported_usd,
            sum(ifNull(e.reported_usd - e.computed_usd, 0)) AS difference_usd,
            sum(e.token_count) AS token_count,
            sum(e.cache_read_tokens) AS cache_read_tokens,
            sum(e.cache_creation_tokens) AS cache_creation_tokens,
            countIf(isNull(e.computed_usd) AND all_tokens > 0) AS unpriced_requests,
            sumIf(all_tokens, isNull(e.computed_usd)) AS unpriced_tokens,
            sumIf(ifNull(e.computed_usd, 0), without) AS unattributed
        FROM telemetry.request_costs AS e
        WHERE event_type = 'api_request'
          AND timestamp >= since AND timestamp < until
          AND if({type:String} = '', true, event_type = {type:String})
          AND if({user:String} = '', true, user_id = {user:String})
          AND if({session:String} = '', true, session_id = {session:String})
          AND if({chapter:String} = '', true, chapter_context = replaceOne({chapter:String}, '(unattributed)', '')
                 OR toUInt64OrNull(extract(chapter_context, '^[0-9]+')) = toUInt64OrNull({chapter:String}))
          AND if({feature:String} = '', true, e.feature = replaceOne({feature:String}, '(unattributed)', '')
                 OR toUInt64OrNull(extract(e.feature, '^[0-9]+')) = toUInt64OrNull({feature:String}))
        GROUP BY chapter, feature, user, day, session, step, branch, project, model
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
    sum(n.cost_usd) AS cost_usd,
    sum(n.reported_usd) AS reported_usd,
    sum(n.difference_usd) AS difference_usd,
    sum(n.requests) AS requests,
    uniqMerge(n.sessions) AS sessions,
    sum(n.token_count) AS token_count,
    sum(n.cache_read_tokens) AS cache_read_tokens,
    sum(n.cache_creation_tokens) AS cache_creation_tokens,
    sum(n.unpriced_requests) AS unpriced_requests,
    sum(n.unpriced_tokens) AS unpriced_tokens,
    sum(n.unattributed) AS unattributed,
    count() AS groups
FROM named AS n
GROUP BY GROUPING SETS ((group_1, group_2, group_3), ())
ORDER BY
    indexOf(['group', 'unattributed', 'total'], row),
    if(by[1] = 'day', group_1, '') DESC, sum(cost_usd) OVER (PARTITION BY row, group_1) DESC, group_1,
    group_2 = '(unattributed)', if(by[2] = 'day', group_2, '') DESC, cost_usd DESC, group_2, group_3
LIMIT if({limit:UInt64} = 0, 1000000000, {limit:UInt64}) BY row

-- What was spent: by chapter, feature, user, day, model, session, step, branch or project, or by two or three of these at once.
-- Money has one source: api_request events. Metrics and spans repeat it and are never added.
-- unpriced: requests with tokens and without a cost, so of a model whose price the client did not know, nor the price list as 0.
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
-- under_plan: cost of requests under a subscription (plans), whose seat is not billed by use. Hours don't know it.
-- unattributed: cost of requests without the chapter, feature, step, branch, project or user that they are grouped by; without a chapter if
-- they are grouped by none of these.
WITH
    splitByChar(',', {by:String}) AS by,
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    /* if sums */
    has(by, 'session') OR {session:String} != '' AS by_session,
    (SELECT max(since) FROM telemetry.events_kept) AS kept,
    /* end */
    (
        SELECT groupArray((model, valid_from, valid_to)) FROM telemetry.prices
        WHERE tier = 'standard' AND input = 0 AND output = 0 AND cache_read = 0 AND cache_write_5m = 0 AND cache_write_1h = 0
    ) AS free,
    events AS
    (
        WITH
            if(has(by, 'chapter') OR NOT hasAny(by, ['feature', 'step', 'branch', 'project', 'user']), chapter_context = '', false)
                OR if(has(by, 'feature'), e.feature = '', false) OR if(has(by, 'step'), workflow_step = '', false)
                OR if(has(by, 'branch'), e.branch = '', false) OR if(has(by, 'project'), e.project = '', false)
                OR if(has(by, 'user'), user_id = '', false) AS without,
            e.token_count + e.cache_read_tokens + e.cache_creation_tokens AS all_tokens,
            telemetry_price_model(e.model) AS price_model,
            e.cost_usd = 0 AND all_tokens > 0 AND NOT if(empty(free), false,
                arrayExists(of -> of.1 = price_model AND toDate(timestamp) >= of.2 AND toDate(timestamp) < of.3, free)) AS unpriced,
            e.plan != '' AND e.seat_type != 'usage_based' AS is_under_plan
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
            sum(e.cost_usd) AS cost_usd,
            sum(e.token_count) AS token_count,
            sum(e.cache_read_tokens) AS cache_read_tokens,
            sum(e.cache_creation_tokens) AS cache_creation_tokens,
            countIf(unpriced) AS unpriced_requests,
            sumIf(all_tokens, unpriced) AS unpriced_tokens,
            sumIf(e.cost_usd, without) AS unattributed,
            sumIf(e.cost_usd, is_under_plan) AS under_plan,
            groupUniqArrayIf(toString(e.plan), is_under_plan) AS plans
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
                OR if(has(by, 'user'), user_id = '', false) AS without,
            telemetry_price_model(h.model) AS price_model,
            if(empty(free), false, arrayExists(of -> of.1 = price_model AND toDate(hour) >= of.2 AND toDate(hour) < of.3, free)) AS is_free
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
            sum(h.cost_usd) AS cost_usd,
            sum(h.input_tokens + h.output_tokens) AS token_count,
            sum(h.cache_read_tokens) AS cache_read_tokens,
            sum(h.cache_creation_tokens) AS cache_creation_tokens,
            sum(if(is_free, 0, h.unpriced_requests)) AS unpriced_requests,
            sum(if(is_free, 0, h.unpriced_tokens)) AS unpriced_tokens,
            sumIf(h.cost_usd, without) AS unattributed,
            0 AS under_plan,
            [] AS plans
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
    sum(n.cost_usd) AS cost_usd,
    sum(n.requests) AS requests,
    if(sum(n.uncounted) > 0, NULL, uniqMerge(n.sessions)) AS sessions,
    sum(n.token_count) AS token_count,
    sum(n.cache_read_tokens) AS cache_read_tokens,
    sum(n.cache_creation_tokens) AS cache_creation_tokens,
    sum(n.unpriced_requests) AS unpriced_requests,
    sum(n.unpriced_tokens) AS unpriced_tokens,
    sum(n.unattributed) AS unattributed,
    sum(n.under_plan) AS under_plan,
    arraySort(groupUniqArrayArray(n.plans)) AS plans,
    uniqExact(cityHash64(group_1, group_2, group_3)) AS groups
FROM named AS n
GROUP BY GROUPING SETS ((group_1, group_2, group_3), ())
ORDER BY
    indexOf(['group', 'unattributed', 'total'], row),
    if(by[1] = 'day', group_1, '') DESC, sum(cost_usd) OVER (PARTITION BY row, group_1) DESC, group_1,
    group_2 = '(unattributed)', if(by[2] = 'day', group_2, '') DESC, cost_usd DESC, group_2, group_3
LIMIT if({limit:UInt64} = 0, 1000000000, {limit:UInt64}) BY row

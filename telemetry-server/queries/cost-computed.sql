-- What was spent by the price list (telemetry.prices), beside what Claude Code reported. Grouped as in cost.sql.
-- cost_usd is computed from tokens at the prices of the request's day. reported_usd is what Claude Code said, and difference_usd how much
-- more that is, of requests that have both. under_plan: as in cost.sql. unpriced: requests with tokens whose model has no price in the list.
--
--   by, from, to, tz, user, session, chapter, feature, type, limit     as in cost.sql
WITH
    splitByChar(',', {by:String}) AS by,
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    -- A row for each that is asked for and each price: these are few, so that what is dear (names, prices) is done to few rows. Grouped by a
    -- hash, for names of several columns make a slow key.
    requests AS
    (
        WITH
            if(has(by, 'chapter') OR NOT hasAny(by, ['feature', 'step', 'branch', 'project', 'user']), chapter_context = '', false)
                OR if(has(by, 'feature'), e.feature = '', false) OR if(has(by, 'step'), workflow_step = '', false)
                OR if(has(by, 'branch'), e.branch = '', false) OR if(has(by, 'project'), e.project = '', false)
                OR if(has(by, 'user'), user_id = '', false) AS lacks,
            e.source = 'transcript' AS is_filled_in,
            e.plan != '' AND e.seat_type != 'usage_based' AS is_under_plan,
            -- what was filled in was priced then, from all that the transcript says
            if(is_filled_in AND e.cost_usd != 0, 0, e.price_key) AS key
        SELECT
            if(has(by, 'chapter'), toString(any(chapter_context)), '') AS chapter,
            if(has(by, 'feature'), toString(any(e.feature)), '') AS feature,
            if(has(by, 'user'), toString(any(user_id)), '') AS user,
            if(has(by, 'day'), toString(any(toDate(timestamp, {tz:String}))), '') AS day,
            if(has(by, 'session'), toString(any(session_id)), '') AS session,
            if(has(by, 'step'), toString(any(workflow_step)), '') AS step,
            if(has(by, 'branch'), toString(any(e.branch)), '') AS branch,
            if(has(by, 'project'), toString(any(e.project)), '') AS project,
            if(has(by, 'model'), toString(any(e.model)), '') AS model,
            any(lacks) AS without,
            any(is_filled_in) AS filled_in,
            any(is_under_plan) AS by_plan,
            groupUniqArrayIf(toString(e.plan), is_under_plan) AS plans,
            any(key) AS price_key,
            any(e.service_tier) AS service_tier,
            any(e.inference_geo) AS inference_geo,
            uniqStateIf(cityHash64(session_id), NOT has(by, 'session')) AS sessions,
            count() AS requests,
            countIf(e.input_tokens + e.output_tokens + e.cache_read_tokens + e.cache_creation_tokens > 0) AS with_tokens,
            sum(e.cost_usd) AS said_usd,
            sum(e.input_tokens) AS input_tokens,
            sum(e.output_tokens) AS output_tokens,
            sum(e.cache_read_tokens) AS cache_read_tokens,
            sum(e.cache_creation_tokens) AS cache_creation_tokens,
            sum(e.written_for_1h) AS written_for_1h,
            sum(e.web_searches) AS web_searches
        FROM telemetry.billed_requests AS e
        WHERE timestamp >= since AND timestamp < until
          AND if({type:String} = '', true, event_type = {type:String})
          AND if({user:String} = '', true, user_id = {user:String})
          AND if({session:String} = '', true, session_id = {session:String})
          AND if({chapter:String} = '', true, chapter_context = if({chapter:String} = '(unattributed)', '', {chapter:String})
                 OR toUInt64OrNull(extract(chapter_context, '^[0-9]+')) = toUInt64OrNull({chapter:String}))
          AND if({feature:String} = '', true, e.feature = if({feature:String} = '(unattributed)', '', {feature:String})
                 OR toUInt64OrNull(extract(e.feature, '^[0-9]+')) = toUInt64OrNull({feature:String}))
        GROUP BY cityHash64(
            bitXor(key, bitShiftLeft(toUInt64(lacks + 2 * is_filled_in + 4 * is_under_plan), 32)), -- the day is in the lowest bits
            e.service_tier, e.inference_geo,
            if(has(by, 'chapter'), cityHash64(chapter_context), 0),
            if(has(by, 'feature'), cityHash64(e.feature), 0),
            if(has(by, 'user'), cityHash64(user_id), 0),
            if(has(by, 'day'), toDate(timestamp, {tz:String}), toDate(0)),
            if(has(by, 'session'), cityHash64(session_id), 0),
            if(has(by, 'step'), cityHash64(workflow_step), 0),
            if(has(by, 'branch'), cityHash64(e.branch), 0),
            if(has(by, 'project'), cityHash64(e.project), 0),
            if(has(by, 'model'), cityHash64(e.model), 0))
    ),
    named AS
    (
        SELECT
            map('chapter', chapter, 'feature', feature, 'user', user, 'day', day, 'session', session, 'step', step,
                'branch', branch, 'project', project, 'model', if(model = '', '(no model)', model)) AS names,
            if(throwIf(length(by) > 3 OR NOT hasAll(mapKeys(names), by), 'by: one to three of chapter, feature, user, day, session, step, branch, project, model') = 0
               AND names[by[1]] = '', '(unattributed)', names[by[1]]) AS group_1,
            if(length(by) > 1 AND names[by[2]] = '', '(unattributed)', names[by[2]]) AS group_2,
            if(length(by) > 2 AND names[by[3]] = '', '(unattributed)', names[by[3]]) AS group_3,
            r.price_key = 0 OR p.price_key != 0 AS priced,
            if(r.price_key = 0, said_usd, telemetry_price(p.price, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
                written_for_1h, service_tier, inference_geo, web_searches)) AS cost_usd,
            if(filled_in, 0, said_usd) AS reported_usd,
            if(priced AND NOT filled_in, said_usd - cost_usd, 0) AS difference_usd,
            input_tokens + output_tokens AS token_count,
            requests, session, sessions, without, by_plan, plans, with_tokens, cache_read_tokens, cache_creation_tokens
        FROM requests AS r
        LEFT ANY JOIN telemetry.price_keys AS p ON r.price_key = p.price_key
    )
SELECT
    multiIf(grouping(group_1) = 1, 'total', group_1 = '(unattributed)', 'unattributed', 'group') AS row,
    group_1, group_2, group_3,
    sum(n.cost_usd) AS cost_usd,
    sum(n.reported_usd) AS reported_usd,
    sum(n.difference_usd) AS difference_usd,
    sum(n.requests) AS requests,
    if(has(by, 'session'), uniq(n.session), uniqMerge(n.sessions)) AS sessions,
    sum(n.token_count) AS token_count,
    sum(n.cache_read_tokens) AS cache_read_tokens,
    sum(n.cache_creation_tokens) AS cache_creation_tokens,
    sum(if(n.priced, 0, n.with_tokens)) AS unpriced_requests,
    sum(if(n.priced, 0, n.token_count + n.cache_read_tokens + n.cache_creation_tokens)) AS unpriced_tokens,
    sum(if(n.without, n.cost_usd, 0)) AS unattributed,
    sum(if(n.by_plan, n.cost_usd, 0)) AS under_plan,
    arraySort(groupUniqArrayArray(n.plans)) AS plans,
    uniqExact(cityHash64(group_1, group_2, group_3)) AS groups
FROM named AS n
GROUP BY GROUPING SETS ((group_1, group_2, group_3), ())
ORDER BY
    indexOf(['group', 'unattributed', 'total'], row),
    if(by[1] = 'day', group_1, '') DESC, sum(cost_usd) OVER (PARTITION BY row, group_1) DESC, group_1,
    group_2 = '(unattributed)', if(by[2] = 'day', group_2, '') DESC, cost_usd DESC, group_2, group_3
LIMIT if({limit:UInt64} = 0, 1000000000, {limit:UInt64}) BY row

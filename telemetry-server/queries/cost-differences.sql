-- Where what Claude Code reported and what the price list says differ, and why: by reason, model, version of Claude Code, request, …
--
--   by        one to three of: reason model version request chapter feature user day session step branch project; with commas between
--   from, to, tz, user, session, chapter, feature, type, limit     as in cost.sql
--
-- difference_usd: how much more was reported than computed. A reason is named where leaving one thing out of the price list's sum, or taking
-- another of its prices, gives what was reported. no price in the list: what was reported then is a guess of Claude Code's.
WITH
    splitByChar(',', {by:String}) AS by,
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    (SELECT groupArray((model, tier, price)) FROM telemetry.prices) AS list,
    differing AS
    (
        WITH
            web_searches * price.8 AS of_searches,
            computed_usd - of_searches AS of_tokens
        SELECT
            timestamp, event_type, session_id, event_id, user_id, chapter_context, feature, workflow_step, branch, project, model, service_version,
            request_id, token_count, cache_read_tokens, cache_creation_tokens, reported_usd, computed_usd,
            multiIf(
                isNull(computed_usd), 'no price in the list',
                reported_usd = 0, 'not priced by Claude Code',
                abs(computed_usd - written_for_1h * (price.5 - price.4) / 1000000 * if(service_tier = 'batch', price.6, 1) * if(inference_geo = 'us', price.7, 1)
                    - reported_usd) < 0.000001, 'cache writes for 1 hour counted as for 5 minutes',
                inference_geo = 'us' AND abs(of_tokens / price.7 + of_searches - reported_usd) < 0.000001, 'inference in the US not counted',
                abs(of_tokens - reported_usd) < 0.000001, 'web searches not counted',
                service_tier = 'batch' AND abs(of_tokens / price.6 + of_searches - reported_usd) < 0.000001, 'batch discount not counted',
                substring(arrayReduce('min', arrayMap(p -> multiIf(
                    abs(telemetry_price(p.3, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
                                        written_for_1h, service_tier, inference_geo, web_searches) - reported_usd) >= 0.000001, '4 unknown',
                    p.1 != price_model, '3 price of another model',
                    p.2 = price_tier, '1 price of another day',
                    concat('2 price of tier ', p.2, ' instead of ', price_tier)), list)), 3)) AS reason
        FROM telemetry.request_costs
        WHERE isNotNull(reported_usd) AND input_tokens + output_tokens + cache_read_tokens + cache_creation_tokens > 0
          AND (isNull(computed_usd) OR abs(reported_usd - computed_usd) > 0.000001)
    ),
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
            if(has(by, 'reason'), e.reason, '') AS reason,
            if(has(by, 'version'), e.service_version, '') AS version,
            if(has(by, 'request'), if(e.request_id = '', toString(e.event_id), e.request_id), '') AS request,
            uniqState(session_id) AS sessions,
            count() AS requests,
            sum(ifNull(e.reported_usd - e.computed_usd, 0)) AS difference_usd,
            sum(ifNull(e.reported_usd, 0)) AS reported_usd,
            sum(ifNull(e.computed_usd, 0)) AS computed_usd,
            countIf(isNull(e.computed_usd)) AS unpriced_requests,
            sumIf(all_tokens, isNull(e.computed_usd)) AS unpriced_tokens,
            sumIf(ifNull(e.reported_usd - e.computed_usd, 0), without) AS unattributed
        FROM differing AS e
        WHERE event_type = 'api_request'
          AND timestamp >= since AND timestamp < until
          AND if({type:String} = '', true, event_type = {type:String})
          AND if({user:String} = '', true, user_id = {user:String})
          AND if({session:String} = '', true, session_id = {session:String})
          AND if({chapter:String} = '', true, chapter_context = if({chapter:String} = '(unattributed)', '', {chapter:String})
                 OR toUInt64OrNull(extract(chapter_context, '^[0-9]+')) = toUInt64OrNull({chapter:String}))
          AND if({feature:String} = '', true, e.feature = if({feature:String} = '(unattributed)', '', {feature:String})
                 OR toUInt64OrNull(extract(e.feature, '^[0-9]+')) = toUInt64OrNull({feature:String}))
        GROUP BY chapter, feature, user, day, session, step, branch, project, model, reason, version, request
    ),
    named AS
    (
        SELECT
            map('chapter', chapter, 'feature', feature, 'user', user, 'day', toString(day), 'session', session, 'step', step,
                'branch', branch, 'project', project, 'model', if(model = '', '(no model)', model), 'reason', reason,
                'version', version, 'request', request) AS names,
            if(throwIf(length(by) > 3 OR NOT hasAll(mapKeys(names), by), 'by: one to three of reason, model, version, request, chapter, feature, user, day, session, step, branch, project') = 0
               AND names[by[1]] = '', '(unattributed)', names[by[1]]) AS group_1,
            if(length(by) > 1 AND names[by[2]] = '', '(unattributed)', names[by[2]]) AS group_2,
            if(length(by) > 2 AND names[by[3]] = '', '(unattributed)', names[by[3]]) AS group_3,
            *
        FROM events
    )
SELECT
    multiIf(grouping(group_1) = 1, 'total', group_1 = '(unattributed)', 'unattributed', 'group') AS row,
    group_1, group_2, group_3,
    sum(n.difference_usd) AS difference_usd,
    sum(n.requests) AS requests,
    uniqMerge(n.sessions) AS sessions,
    sum(n.reported_usd) AS reported_usd,
    sum(n.computed_usd) AS computed_usd,
    sum(n.unpriced_requests) AS unpriced_requests,
    sum(n.unpriced_tokens) AS unpriced_tokens,
    sum(n.unattributed) AS unattributed,
    count() AS groups
FROM named AS n
GROUP BY GROUPING SETS ((group_1, group_2, group_3), ())
ORDER BY
    indexOf(['group', 'unattributed', 'total'], row),
    if(by[1] = 'day', group_1, '') DESC, abs(sum(difference_usd) OVER (PARTITION BY row, group_1)) DESC, group_1,
    group_2 = '(unattributed)', if(by[2] = 'day', group_2, '') DESC, abs(difference_usd) DESC, group_2, group_3
LIMIT if({limit:UInt64} = 0, 1000000000, {limit:UInt64}) BY row

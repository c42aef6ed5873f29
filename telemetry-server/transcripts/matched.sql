-- Each request that transcripts or telemetry know of, matched one to one: `matched`, which match.sql writes down and sessions.sql counts.
-- The beginning of a statement; what stands in its place in these two is {matched}.
--
--   from, to, tz, session   as in queries/cost.sql
--
-- A pair has the same request id (of several with one id, and there should be none, the first goes with the first). Where one of the two
-- has none (some providers give none), likeness decides (views/50_backfill.sql).
--
-- What stands between `if` and `end` is left out where it is not so: the engine would plan it, for half a second. special.sql says what is.
--
--   findings, counts        what is asked for: each request, with its cost, or how many there are
--   events, silence         telemetry knows of any request, or of none
WITH
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    -- requests that were billed for several attempts, by their messages: only these have to be added up
    several AS (SELECT message_id FROM telemetry.transcript_copies WHERE attempts > 1),
    requests AS
    (
        /* if findings */
        SELECT * FROM telemetry.transcript_costs
        /* end */
        /* if counts */
        SELECT *, CAST(NULL, 'Nullable(Float64)') AS computed_usd FROM telemetry.transcript_requests
        /* end */
        WHERE timestamp >= since - INTERVAL 1 HOUR AND timestamp < until + INTERVAL 1 HOUR
    ),
    transcript AS
    (
        SELECT
            sipHash64(message_id, request_id) AS id, request_id, message_id, toString(session_id) AS session_id, timestamp, model, service_version,
            prompt_id, agent_id, message_uuid, if(stop_reason = '', 'unfinished', '') AS mark,
            (input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens) AS tokens, computed_usd AS usd
        FROM requests
        /* if several */
        WHERE message_id NOT IN (SELECT message_id FROM several)
        UNION ALL
        SELECT
            sipHash64(t.message_id, t.request_id), t.request_id, t.message_id, argMax(t.session_id, attempt), argMax(t.timestamp, attempt),
            argMax(t.model, attempt), argMax(t.service_version, attempt), argMax(t.prompt_id, attempt), argMax(t.agent_id, attempt),
            argMax(t.message_uuid, attempt), multiIf(count() > 1, 'several attempts', argMax(t.stop_reason, attempt) = '', 'unfinished', ''),
            (sum(t.input_tokens), sum(t.output_tokens), sum(t.cache_read_tokens), sum(t.cache_creation_tokens)),
            if(countIf(isNull(t.computed_usd)) = 0, sum(assumeNotNull(t.computed_usd)), NULL)
        FROM requests AS t
        WHERE message_id IN (SELECT message_id FROM several)
        GROUP BY message_id, request_id
        /* end */
    ),
    events AS
    (
        SELECT
            sipHash64(toString(e.session_id), timestamp, event_id) AS id, request_id, toString(e.session_id) AS session_id, timestamp, e.model,
            service_version, prompt_id, e.attributes['agent_id'] AS agent_id, message_uuid, query_source,
            (e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_creation_tokens) AS tokens, e.cost_usd AS usd
        FROM telemetry.telemetry_events AS e FINAL
        WHERE event_type = 'api_request' AND source = 'otlp' AND timestamp >= since - INTERVAL 1 HOUR AND timestamp < until + INTERVAL 1 HOUR
    ),
    -- what is not simply paired under its request id: id -> the key under which it is
    transcript_keys AS
    (
        SELECT toUInt64(0) AS id, toUInt64(0) AS key WHERE false
        /* if pairs */
        UNION ALL
        SELECT each.2 AS id, sipHash64(request_id, toUInt64(nth - 1)) AS key
        FROM
        (
            SELECT request_id, arraySort(groupArray((at, sipHash64(message_id, request_id)))) AS same
            FROM
            (
                SELECT request_id, message_id, min(timestamp) AS at
                FROM telemetry.transcript_copies
                WHERE request_id IN
                    (SELECT request_id FROM telemetry.transcript_copies WHERE request_id != ''
                     GROUP BY request_id HAVING min(cityHash64(message_id)) != max(cityHash64(message_id)))
                GROUP BY request_id, message_id
            )
            GROUP BY request_id
        )
        ARRAY JOIN same AS each, arrayEnumerate(same) AS nth
        UNION ALL
        SELECT
            sipHash64(message_id, request_id),
            if(event_request_id = '', sipHash64(toString(session_id), event_at, event_id), sipHash64(event_request_id, toUInt64(0)))
        FROM telemetry.alike_requests
        /* end */
    ),
    event_keys AS
    (
        SELECT each.2 AS id, sipHash64(request_id, toUInt64(nth - 1)) AS key
        FROM
        (
            SELECT request_id, arraySort(groupArray((timestamp, sipHash64(toString(session_id), timestamp, event_id)))) AS same
            FROM telemetry.telemetry_events FINAL
            WHERE event_type = 'api_request' AND source = 'otlp' AND request_id IN
                (SELECT request_id FROM telemetry.telemetry_events
                 WHERE event_type = 'api_request' AND source = 'otlp' AND request_id != ''
                   AND timestamp >= since - INTERVAL 1 HOUR AND timestamp < until + INTERVAL 1 HOUR
                 GROUP BY request_id HAVING min(cityHash64(event_id)) != max(cityHash64(event_id)))
            GROUP BY request_id
        )
        ARRAY JOIN same AS each, arrayEnumerate(same) AS nth
    ),
    keyed_transcript AS
    (
        SELECT t.*, true AS there, multiIf(k.key != 0, k.key, t.request_id = '', t.id, sipHash64(t.request_id, toUInt64(0))) AS key
        FROM transcript AS t ANY LEFT JOIN transcript_keys AS k ON t.id = k.id
    ),
    keyed_events AS
    (
        SELECT e.*, true AS there, multiIf(k.key != 0, k.key, e.request_id = '', e.id, sipHash64(e.request_id, toUInt64(0))) AS key
        FROM events AS e ANY LEFT JOIN event_keys AS k ON e.id = k.id
    ),
    matched AS
    (
        /* if events */
        SELECT
            multiIf(t.there AND e.there, 'both', t.there, 'transcript', 'telemetry') AS side,
            -- By the names that they are priced under. Which model is not said may be any: nor does a hash say it, for there is one of each of its
            -- names, nor a profile of Bedrock that has a name of its own.
            side = 'both' AND t.model != e.model AND t.mark != 'several attempts'
                AND telemetry_price_model(t.model) != telemetry_price_model(e.model)
                AND NOT arrayExists(of -> match(of, '^(hash-[0-9a-f]{16}|other-[0-9a-f]{8}|arn:.*)?$'),
                                    [telemetry_price_model(t.model), telemetry_price_model(e.model)]) AS other_model,
            side != 'both' OR other_model OR t.tokens != e.tokens OR isNotNull(t.usd) AND abs(e.usd - assumeNotNull(t.usd)) > 0.000001 AS found,
            if(t.there, t.id, e.id) AS id,
            if(t.there, t.session_id, e.session_id) AS session_id,
            if(t.there, t.timestamp, e.timestamp) AS at,
            if(t.there, t.model, e.model) AS model,
            if(t.there, t.service_version, e.service_version) AS version,
            if(t.there, t.prompt_id, e.prompt_id) AS prompt_id,
            if(t.there, t.agent_id, e.agent_id) AS agent_id,
            if(t.request_id = '', e.request_id, t.request_id) AS request_id,
            t.message_id AS message_id, t.message_uuid AS message_uuid,
            if(other_model AND t.tokens = e.tokens, 'other model', t.mark) AS mark, e.query_source AS query_source,
            t.tokens AS transcript_tokens, e.tokens AS telemetry_tokens, t.usd AS transcript_usd, e.usd AS telemetry_usd
        FROM keyed_transcript AS t FULL JOIN keyed_events AS e ON t.key = e.key
        /* end */
        /* if silence */
        SELECT
            'transcript' AS side, true AS found, id, session_id, timestamp AS at, model, service_version AS version, prompt_id, agent_id, request_id,
            message_id, message_uuid, mark, '' AS query_source, tokens AS transcript_tokens,
            CAST((0, 0, 0, 0), 'Tuple(UInt64, UInt64, UInt64, UInt64)') AS telemetry_tokens, usd AS transcript_usd, toFloat64(0) AS telemetry_usd
        FROM transcript
        /* end */
        WHERE at >= since AND at < until AND if({session:String} = '', true, session_id = {session:String})
    )

-- Each request that transcripts or telemetry know of, matched one to one: what agrees is counted by session, model and version, what
-- does not is named. Rows of one {audited_at} are one audit; queries/audit.sql gives the rest its reasons.
--
--   from, to, tz, session   as in queries/cost.sql
--   audited_at              the moment of the audit
--
-- A pair has the same request id. Where one of the two has none (some providers give none): the same session, model and tokens, and of
-- those the nearest in time, within a minute.
INSERT INTO telemetry.audit_findings
WITH
    if({from:String} = '', toStartOfDay(now({tz:String})) - INTERVAL 30 DAY, parseDateTime64BestEffort({from:String}, 9, {tz:String})) AS since,
    if({to:String} = '', toDateTime64('2200-01-01 00:00:00', 9, 'UTC'),
       parseDateTime64BestEffort({to:String}, 9, {tz:String}) + toIntervalDay(length({to:String}) = 10)) AS until,
    both_sides AS
    (
        SELECT
            true AS of_transcript,
            sipHash64(t.message_id, t.request_id) AS id,
            t.request_id AS request_id,
            t.message_id AS message_id,
            argMax(t.session_id, attempt) AS session_id,
            argMax(t.timestamp, attempt) AS timestamp,
            argMax(toString(t.model), attempt) AS model,
            argMax(toString(t.service_version), attempt) AS version,
            argMax(t.prompt_id, attempt) AS prompt_id,
            argMax(t.agent_id, attempt) AS agent_id,
            argMax(t.message_uuid, attempt) AS message_uuid,
            multiIf(count() > 1, 'several attempts', argMax(t.stop_reason, attempt) = '', 'unfinished', '') AS mark,
            (sum(t.input_tokens), sum(t.output_tokens), sum(t.cache_read_tokens), sum(t.cache_creation_tokens)) AS tokens,
            if(countIf(isNull(t.computed_usd)) = 0, sum(assumeNotNull(t.computed_usd)), NULL) AS usd
        FROM telemetry.transcript_costs AS t
        WHERE t.timestamp >= since - INTERVAL 1 HOUR AND t.timestamp < until + INTERVAL 1 HOUR
        GROUP BY message_id, request_id
        UNION ALL
        SELECT
            false, sipHash64(session_id, timestamp, event_id), request_id, '', session_id, timestamp, toString(e.model), toString(service_version),
            prompt_id, e.attributes['agent_id'], message_uuid, toString(query_source),
            (e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_creation_tokens), e.cost_usd
        FROM telemetry.telemetry_events AS e FINAL
        WHERE event_type = 'api_request' AND source = 'otlp' AND timestamp >= since - INTERVAL 1 HOUR AND timestamp < until + INTERVAL 1 HOUR
    ),
    by_request AS -- of several with one id (there should be none) the first goes with the first
    (
        SELECT groupArrayIf(request, of_transcript) AS transcript, groupArrayIf(request, NOT of_transcript) AS events
        FROM
        (
            SELECT
                of_transcript,
                request_id,
                (id, request_id, message_id, session_id, timestamp, model, version, prompt_id, agent_id, message_uuid, mark, tokens, usd) AS request,
                if(request_id = '', id, row_number() OVER (PARTITION BY of_transcript, request_id ORDER BY timestamp, id)) AS nth
            FROM both_sides
        )
        GROUP BY request_id, nth, request_id = '' AND of_transcript
    ),
    alike AS
    (
        SELECT
            arraySort(request -> (request.5, request.1), arrayFlatten(groupArray(transcript))) AS transcript,
            arraySort(request -> (request.5, request.1), arrayFlatten(groupArray(events))) AS events
        FROM
        (
            SELECT
                transcript, events, arrayConcat(transcript, events)[1] AS either,
                if(notEmpty(transcript) AND notEmpty(events), (either.1, 0), (0, sipHash64(either.4, either.6, either.12))) AS likeness
            FROM by_request
        )
        GROUP BY likeness
    ),
    pairs AS
    (
        SELECT
            transcript,
            events,
            arrayMap(t -> arraySort(i -> (abs(toUnixTimestamp64Nano(events[i].5) - toUnixTimestamp64Nano(t.5)), i),
                arrayFilter(i -> (t.2 = events[i].2 OR t.2 = '' OR events[i].2 = '')
                    AND abs(toUnixTimestamp64Nano(events[i].5) - toUnixTimestamp64Nano(t.5)) < 60000000000, arrayEnumerate(events)))[1], transcript) AS nearest_event,
            arrayMap(e -> arraySort(i -> (abs(toUnixTimestamp64Nano(transcript[i].5) - toUnixTimestamp64Nano(e.5)), i),
                arrayFilter(i -> (e.2 = transcript[i].2 OR e.2 = '' OR transcript[i].2 = '')
                    AND abs(toUnixTimestamp64Nano(transcript[i].5) - toUnixTimestamp64Nano(e.5)) < 60000000000, arrayEnumerate(transcript)))[1], events) AS nearest_transcript,
            arrayFilter(i -> nearest_event[i] > 0 AND nearest_transcript[nearest_event[i]] = i, arrayEnumerate(transcript)) AS paired,
            arrayMap(i -> nearest_event[i], paired) AS paired_with,
            -- what is left of equal ones goes in order
            arrayFilter(i -> NOT has(paired, i), arrayEnumerate(transcript)) AS left_transcript,
            arrayFilter(i -> NOT has(paired_with, i), arrayEnumerate(events)) AS left_events,
            arrayFilter(i -> i <= length(left_events)
                AND (transcript[left_transcript[i]].2 = '' OR events[left_events[i]].2 = '' OR transcript[left_transcript[i]].2 = events[left_events[i]].2)
                AND abs(toUnixTimestamp64Nano(transcript[left_transcript[i]].5) - toUnixTimestamp64Nano(events[left_events[i]].5)) < 60000000000,
                arrayEnumerate(left_transcript)) AS more,
            arrayConcat(paired, arrayMap(i -> left_transcript[i], more)) AS transcript_of,
            arrayConcat(paired_with, arrayMap(i -> left_events[i], more)) AS event_of
        FROM alike
    ),
    matched AS -- 0: that side has none; arrays begin at 1, and there is an empty request at 0
    (
        SELECT
            p.1 > 0 AS in_transcript, p.2 > 0 AS in_telemetry, transcript[p.1] AS t, events[p.2] AS e, if(in_transcript, t, e) AS known,
            multiIf(in_transcript AND in_telemetry, 'both', in_transcript, 'transcript', 'telemetry') AS side,
            side != 'both' OR t.12 != e.12 OR isNotNull(t.13) AND abs(assumeNotNull(e.13) - assumeNotNull(t.13)) > 0.000001 AS found
        FROM pairs
        ARRAY JOIN arrayConcat(
            arrayZip(transcript_of, event_of),
            arrayMap(i -> (i, toUInt32(0)), arrayFilter(i -> NOT has(transcript_of, i), arrayEnumerate(transcript))),
            arrayMap(i -> (toUInt32(0), i), arrayFilter(i -> NOT has(event_of, i), arrayEnumerate(events)))) AS p
        WHERE known.5 >= since AND known.5 < until AND if({session:String} = '', true, known.4 = {session:String})
    )
SELECT
    {audited_at:DateTime64(9, 'UTC')} AS audited_at,
    known.4 AS session_id,
    known.6 AS model,
    known.7 AS service_version,
    side,
    if(found, known.1, 0) AS finding,
    count() AS requests,
    min(known.5) AS first_at,
    max(known.5) AS last_at,
    sum(ifNull(e.13, 0)) AS telemetry_usd,
    sum(ifNull(t.13, 0)) AS transcript_usd,
    countIf(side != 'telemetry' AND isNull(t.13)) AS unpriced,
    (sum(e.12.1), sum(e.12.2), sum(e.12.3), sum(e.12.4)) AS telemetry_tokens,
    (sum(t.12.1), sum(t.12.2), sum(t.12.3), sum(t.12.4)) AS transcript_tokens,
    anyIf(if(t.2 = '', e.2, t.2), found) AS request_id,
    anyIf(t.3, found) AS message_id,
    anyIf(t.10, found) AS message_uuid,
    anyIf(known.8, found) AS prompt_id,
    anyIf(known.9, found) AS agent_id,
    anyIf(t.11, found) AS mark,
    anyIf(e.11, found) AS query_source
FROM matched
GROUP BY session_id, model, service_version, side, finding

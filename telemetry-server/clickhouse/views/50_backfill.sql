-- Pairs of a request in a transcript and an event, of which one has no request id: the same session, model (by the name that it is priced
-- under: a provider's own name for it is in events alone) and tokens, and of those the nearest in time; what is left of equal ones goes in
-- order. More than a minute apart is no pair.
CREATE VIEW IF NOT EXISTS telemetry.alike_requests AS
WITH
    lacking AS -- sessions in which one side has no id
    (
        SELECT session_id FROM telemetry.transcript_copies WHERE request_id = ''
        UNION DISTINCT
        SELECT session_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'otlp' AND request_id = ''
    ),
    told AS
    (
        SELECT
            false AS of_transcript, '' AS message_id, request_id, toString(session_id) AS session_id, timestamp, event_id,
            telemetry_price_model(toString(model)) AS model,
            (input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens) AS tokens
        FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND source = 'otlp' AND session_id IN (SELECT session_id FROM lacking)
            AND (request_id = '' OR request_id NOT IN (SELECT request_id FROM telemetry.transcript_copies))
    ),
    asked AS
    (
        SELECT
            true, message_id, request_id, argMax(t.session_id, attempt), argMax(t.timestamp, attempt), toUInt64(0),
            telemetry_price_model(argMax(toString(t.model), attempt)),
            (sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_creation_tokens))
        FROM telemetry.transcript_requests AS t
        WHERE (SELECT count() > 0 FROM told) AND session_id IN (SELECT session_id FROM told)
            AND (request_id = ''
                OR request_id NOT IN (SELECT request_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'otlp'))
        GROUP BY message_id, request_id
    ),
    alike AS
    (
        SELECT
            arraySort(groupArrayIf((toUnixTimestamp64Nano(timestamp), message_id, request_id), of_transcript)) AS t,
            arraySort(groupArrayIf((toUnixTimestamp64Nano(timestamp), event_id, request_id, session_id), NOT of_transcript)) AS e
        FROM (SELECT * FROM told UNION ALL SELECT * FROM asked)
        GROUP BY session_id, model, tokens
        HAVING notEmpty(t) AND notEmpty(e)
    ),
    paired AS
    (
        SELECT
            arrayMap(a -> arraySort(i -> (abs(e[i].1 - a.1), i),
                arrayFilter(i -> (a.3 = '' OR e[i].3 = '') AND abs(e[i].1 - a.1) < 60000000000, arrayEnumerate(e)))[1], t) AS nearest_told,
            arrayMap(b -> arraySort(i -> (abs(t[i].1 - b.1), i),
                arrayFilter(i -> (b.3 = '' OR t[i].3 = '') AND abs(t[i].1 - b.1) < 60000000000, arrayEnumerate(t)))[1], e) AS nearest_asked,
            arrayFilter(i -> nearest_told[i] > 0 AND nearest_asked[nearest_told[i]] = i, arrayEnumerate(t)) AS sure,
            arrayFilter(i -> NOT has(sure, i), arrayEnumerate(t)) AS left_asked,
            arrayFilter(i -> NOT has(arrayMap(s -> nearest_told[s], sure), i), arrayEnumerate(e)) AS left_told,
            arrayFilter(n -> n <= length(left_told) AND (t[left_asked[n]].3 = '' OR e[left_told[n]].3 = '')
                AND abs(t[left_asked[n]].1 - e[left_told[n]].1) < 60000000000, arrayEnumerate(left_asked)) AS more,
            arrayJoin(arrayConcat(arrayMap(i -> (t[i], e[nearest_told[i]]), sure), arrayMap(n -> (t[left_asked[n]], e[left_told[n]]), more))) AS pair
        FROM alike
    )
SELECT
    pair.1.2 AS message_id, pair.1.3 AS request_id,
    pair.2.4 AS session_id, fromUnixTimestamp64Nano(pair.2.1, 'UTC') AS event_at, pair.2.2 AS event_id, pair.2.3 AS event_request_id
FROM paired;

-- Of requests in transcripts that have one id, and there should be none: those for which no event with that id is left, the first going with
-- the first, as in transcripts/matched.sql.
CREATE VIEW IF NOT EXISTS telemetry.surplus_requests AS
WITH
    several AS
    (
        SELECT cityHash64(request_id) AS of FROM telemetry.transcript_copies WHERE request_id != ''
        GROUP BY of HAVING min(message_key) != max(message_key)
    )
SELECT message.3 AS message_id, request_id
FROM
(
    SELECT request_id, arraySort(groupArray((at, sipHash64(message_id, request_id), message_id))) AS messages
    FROM
    (
        SELECT request_id, message_id, min(timestamp) AS at
        FROM telemetry.transcript_copies WHERE cityHash64(request_id) IN several GROUP BY request_id, message_id
    )
    GROUP BY request_id
) AS asked
INNER JOIN
(
    SELECT request_id, uniqExact(session_id, timestamp, event_id) AS events
    FROM telemetry.telemetry_events
    WHERE event_type = 'api_request' AND source = 'otlp' AND request_id != '' AND cityHash64(request_id) IN several
    GROUP BY request_id
) AS told ON asked.request_id = told.request_id
ARRAY JOIN arraySlice(messages, events + 1) AS message;

-- Requests in transcripts of which no event tells: whose id none has, nor is any like them. Some of them may have been filled in.
CREATE VIEW IF NOT EXISTS telemetry.unreported_requests AS
SELECT *
FROM telemetry.transcript_requests
WHERE (request_id = '' OR request_id NOT IN (SELECT request_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'otlp'))
    AND (message_id, request_id) NOT IN (SELECT message_id, request_id FROM telemetry.alike_requests)
    OR (message_id, request_id) IN (SELECT message_id, request_id FROM telemetry.surplus_requests);

-- What Python decided about branches and directories -> transcript_contexts, under the policy.
CREATE TABLE telemetry.read_contexts
(
    branch String, directory String, project String, feature String, chapter String, part String, feature_source String, chapter_source String,
    confidence Float32
)
ENGINE = Null;

-- The policy is a long expression, and stands here once: six of them took the engine 60 ms more to analyse.
CREATE MATERIALIZED VIEW telemetry.transcript_contexts_mv TO telemetry.transcript_contexts AS
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt
SELECT
    kept[1] AS branch,
    kept[2] AS directory,
    now64(9) AS decided_at,
    kept[3] AS project,
    kept[4] AS feature,
    kept[5] AS chapter,
    kept[6] AS part,
    feature_source,
    chapter_source,
    confidence
FROM
(
    SELECT
        arrayMap((name, called) -> telemetry_ruled(salt, called, telemetry_redact(name)),
            [r.branch, r.directory, r.project, r.feature, r.chapter, r.part],
            ['vcs.ref.head.name', 'directory', 'vcs.repository.name', 'context.feature', 'context.chapter', 'context.part']) AS kept,
        r.feature_source AS feature_source,
        r.chapter_source AS chapter_source,
        r.confidence AS confidence
    FROM telemetry.read_contexts AS r
);

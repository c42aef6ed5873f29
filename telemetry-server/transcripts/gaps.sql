-- Numbers (event.sequence) that are missing, and between which moments: a row for each range of them.
--
--   from, to, tz, session   as in queries/cost.sql
--   details                 how many rows at most
--
-- process: the how manieth of the session, in the order of its events' times; it ends where numbers begin again. Where two ran at once or
-- a clock went wrong, or a number is not believed, it is 0 and the numbers alone decide, as in queries/coverage.sql. total: of all rows, also
-- those beyond the limit. What stands in the session that a process turned away from is not missing: see queries/coverage.sql.
WITH
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    -- a session whose summary says that its numbers are whole, and of which nothing came since, has no gap: see queries/coverage.sql
    (SELECT greatest(max(version), 60000000000) - 60000000000 FROM telemetry.session_summaries) AS known_ns,
    numbered AS
    (
        SELECT toString(session_id) AS session_id, toString(user_id) AS user, timestamp, toInt128(assumeNotNull(event_sequence)) AS number
        FROM telemetry.telemetry_events FINAL
        WHERE timestamp >= since AND timestamp < until AND event_sequence IS NOT NULL AND source = 'otlp'
          AND if({session:String} = '', true, session_id = {session:String})
          AND (session_id NOT IN (SELECT session_id FROM telemetry.session_summaries FINAL WHERE whole)
               OR session_id IN (SELECT session_id FROM telemetry.telemetry_events
                                 WHERE timestamp >= since AND timestamp < until AND received_at >= fromUnixTimestamp64Nano(toInt64(known_ns))))
    ),
    -- of a process that began before `from`, what came before is not asked for
    earlier AS
    (
        SELECT DISTINCT toString(session_id) AS session_id FROM telemetry.telemetry_events
        WHERE timestamp >= since - INTERVAL 7 DAY AND timestamp < since AND event_sequence IS NOT NULL
    ),
    by_time AS
    (
        SELECT
            session_id, user, begins,
            toUInt32(countIf(begins) OVER (PARTITION BY session_id ORDER BY timestamp, number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) AS process,
            if(begins, 0, before + 1) AS first,
            number - 1 AS last,
            if(is_first, NULL, before_at) AS after_at,
            timestamp AS before_at_most,
            is_first,
            is_first AND number > 0 AND session_id IN (SELECT session_id FROM earlier) AS of_earlier
        FROM
        (
            SELECT
                session_id, user, timestamp, number,
                lagInFrame(number, 1, toInt128(-1)) OVER w AS before,
                lagInFrame(timestamp) OVER w AS before_at,
                row_number() OVER w = 1 AS is_first,
                is_first OR number <= before AS begins
            FROM numbered
            WINDOW w AS (PARTITION BY session_id ORDER BY timestamp, number ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
        )
    ),
    by_number AS -- as queries/coverage.sql counts; process: the how manieth with this number
    (
        SELECT
            session_id, user, process, number, number - left_out AS first, number - 1 AS last, begins, ends,
            before_at AS after_at, at AS before_at_most,
            min(is_near) OVER (PARTITION BY session_id, process ORDER BY number) AS believed
        FROM
        (
            SELECT
                session_id, user, process, number, at,
                row_number() OVER upwards = 1 AS begins,
                leadInFrame(number, 1, number) OVER upwards != number + 1 AS ends,
                toUInt64(if(begins, if(session_id IN (SELECT session_id FROM earlier), 0, number),
                            number - 1 - lagInFrame(number) OVER upwards)) AS left_out,
                left_out <= greatest(100000, 1000 * (1 + count() OVER upwards - row_number() OVER upwards)) AS is_near,
                if(begins, NULL, lagInFrame(at) OVER upwards) AS before_at
            FROM
            (
                SELECT session_id, number, user, at, toUInt32(process - 1) AS process
                FROM (SELECT session_id, number, any(user) AS user, arraySort(groupArray(timestamp)) AS moments FROM numbered GROUP BY session_id, number)
                ARRAY JOIN moments AS at, arrayEnumerate(moments) AS process
            )
            WINDOW upwards AS (PARTITION BY session_id, process ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        )
    ),
    apart AS -- sessions whose processes ran one after the other: each began anew at 0, or there are no more than had one number in common
    (
        SELECT session_id
        FROM
        (
            SELECT session_id, max(process) AS processes, countIf(first = 0 AND last >= 0 AND NOT is_first) AS odd, 0 AS in_common, true AS sane
            FROM by_time GROUP BY session_id
            UNION ALL
            SELECT session_id, 0, 0, max(process) + 1, min(believed) FROM by_number GROUP BY session_id
        )
        GROUP BY session_id
        HAVING (sum(odd) = 0 OR sum(processes) <= sum(in_common)) AND min(sane)
    ),
    listed AS
    (
        SELECT session_id, user, process, first, last, after_at, before_at_most AS at, begins, false AS ends
        FROM by_time WHERE last >= first AND NOT of_earlier AND session_id IN (SELECT session_id FROM apart)
        UNION ALL
        SELECT session_id, user, toUInt32(0), first, last, after_at, before_at_most, begins, false
        FROM by_number WHERE last >= first AND believed AND session_id NOT IN (SELECT session_id FROM apart)
        UNION ALL
        SELECT session_id, user, 0, 0, number, NULL, before_at_most, false, true FROM by_number WHERE ends
        UNION ALL
        SELECT session_id, user_id, 0, 0, toInt128(assumeNotNull(numbers_from)) + numbered - 1, NULL, ended_at, false, true
        FROM telemetry.session_summaries FINAL
        WHERE isNotNull(numbers_from) AND started_at < until AND ended_at >= since - INTERVAL 1 DAY
    ),
    looked_at AS
    (
        SELECT *, maxIf(at, ends) OVER (PARTITION BY user, begins OR ends, last ORDER BY at, begins ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING) AS other_at
        FROM listed
    )
SELECT session_id, process, first, last, times AS missing, after, before, sum(times) OVER () AS total
FROM
(
    SELECT session_id, process, first, last, toInt128(count()) * (last - first + 1) AS times, min(after_at) AS after, max(at) AS before
    FROM looked_at
    WHERE NOT ends AND NOT (begins AND user != '' AND other_at > at - INTERVAL 1 DAY)
    GROUP BY session_id, process, first, last
)
ORDER BY before, session_id, process, first
LIMIT {details:UInt32}

-- What stands under each report: whether events are missing, and which versions of Claude Code sent those that are there.
--
--   from, to, tz, user, session, chapter, feature     as in cost.sql; with a chapter or feature, the sessions that had requests for it
--
-- expected, gaps: Claude Code numbers the events of a process from 0 (event.sequence), and begins again when a session is resumed.
-- If a session has the number 7 twice, two of its processes got as far as 7, so each lower number is expected twice as well. That
-- needs no order of time, so wrong clocks and late events do not disturb it. What was lost after the last event that arrived can't
-- be seen here: missing_requests are what the last `sp-telemetry audit` found in transcripts and not in telemetry. Of a session that began
-- before `from`, the process under way then is counted from its first number in the range. A number is believed if what would be missing
-- below it is no more than 100,000, or than a thousand times as many as arrived from it on. /clear and --continue begin a session within a
-- process, whose numbers go on: what is below its first is not missing if the last session of that person which got just as far did so
-- within the day before.
WITH
    (SELECT max(since) FROM telemetry.events_kept) AS kept,
    greatest(telemetry_since({from:String}, {tz:String}), kept) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    chosen AS
    (
        SELECT DISTINCT session_id
        FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND timestamp >= since AND timestamp < until
          AND if({chapter:String} = '', true, chapter_context = if({chapter:String} = '(unattributed)', '', {chapter:String})
                 OR toUInt64OrNull(extract(chapter_context, '^[0-9]+')) = toUInt64OrNull({chapter:String}))
          AND if({feature:String} = '', true, feature = if({feature:String} = '(unattributed)', '', {feature:String})
                 OR toUInt64OrNull(extract(feature, '^[0-9]+')) = toUInt64OrNull({feature:String}))
    ),
    -- First look. What a session's summary says holds if the session lies in the range and nothing of it was written since: its numbers
    -- are simply 0, 1, … n, once each. All others are looked at closely. A minute back: see maintenance/sessions.sql.
    (
        SELECT tuple(sumIf(n, settled), countIf(settled), groupArrayIf(session_id, NOT settled), groupUniqArrayArray(said))
        FROM
        (
            SELECT session_id, max(s.numbered) AS n, min(s.settled) AS settled, groupUniqArrayArray(s.versions) AS said
            FROM
            (
                SELECT session_id, numbered, whole AND started_at >= since AND ended_at < until AS settled, versions
                FROM telemetry.session_summaries FINAL
                WHERE started_at < until AND ended_at >= since AND numbered > 0
                  AND if({user:String} = '', true, user_id = {user:String})
                UNION ALL
                WITH (SELECT greatest(max(version), 60000000000) - 60000000000 FROM telemetry.session_summaries) AS known_ns
                SELECT session_id, 0, false, groupUniqArrayIf(toString(service_version), event_type = 'api_request' AND service_version != '')
                FROM telemetry.telemetry_events
                WHERE timestamp >= since AND timestamp < until
                  AND (received_at >= fromUnixTimestamp64Nano(toInt64(known_ns)) OR version > 4000000000000000000 + known_ns)
                  AND if({user:String} = '', true, user_id = {user:String})
                GROUP BY session_id
            ) AS s
            WHERE if({session:String} = '', true, session_id = {session:String})
              AND if({chapter:String} = '' AND {feature:String} = '', true, session_id IN (SELECT session_id FROM chosen))
            GROUP BY session_id
        )
    ) AS first_look,
    -- What the last audit of these sessions found in their transcripts: requests that telemetry lacks and that were not filled in.
    (
        SELECT tuple(count(), sum(both + only_transcript), sum(only_transcript - least(filled, only_transcript)), max(audited_at))
        FROM telemetry.session_audits FINAL
        WHERE started_at < until AND ended_at >= since
          AND if({session:String} = '', true, session_id = {session:String})
          AND if({user:String} = '', true, session_id IN (SELECT session_id FROM telemetry.session_summaries FINAL WHERE user_id = {user:String}))
          AND if({chapter:String} = '' AND {feature:String} = '', true, session_id IN (SELECT session_id FROM chosen))
    ) AS audited,
    -- Requests that were filled in from transcripts, by the sessions that had such ever.
    (
        SELECT count()
        FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND source = 'transcript' AND timestamp >= since AND timestamp < until
          AND session_id IN (SELECT session_id FROM telemetry.backfilled_requests)
          AND if({user:String} = '', true, user_id = {user:String})
          AND if({session:String} = '', true, session_id = {session:String})
          AND if({chapter:String} = '', true, chapter_context = if({chapter:String} = '(unattributed)', '', {chapter:String})
                 OR toUInt64OrNull(extract(chapter_context, '^[0-9]+')) = toUInt64OrNull({chapter:String}))
          AND if({feature:String} = '', true, feature = if({feature:String} = '(unattributed)', '', {feature:String})
                 OR toUInt64OrNull(extract(feature, '^[0-9]+')) = toUInt64OrNull({feature:String}))
    ) AS filled,
    -- Numbers of sessions to look at closely. Those before the first 0 in the range are of a process that began before it, if the session did.
    numbered AS
    (
        SELECT session_id, user_id, timestamp, assumeNotNull(event_sequence) AS number, session_began < since AND timestamp < anew_at AS begun
        FROM
        (
            SELECT
                session_id, user_id, timestamp, event_sequence,
                min(timestamp) OVER (PARTITION BY session_id) AS session_began,
                min(if(event_sequence = 0 AND timestamp >= since, timestamp, toDateTime64('2200-01-01 00:00:00', 9, 'UTC'))) OVER (PARTITION BY session_id) AS anew_at
            FROM telemetry.telemetry_events FINAL
            WHERE timestamp >= since - INTERVAL 7 DAY AND timestamp < until AND session_id IN (SELECT arrayJoin(first_look.3))
        )
        WHERE timestamp >= since AND event_sequence IS NOT NULL
    ),
    -- The second event with a number is one of a second process, the third of a third.
    counted AS
    (
        SELECT session_id, begun, number, user, at, process
        FROM
        (
            SELECT session_id, begun, number, any(user_id) AS user, arraySort(groupArray(timestamp)) AS moments
            FROM numbered GROUP BY session_id, begun, number
        )
        ARRAY JOIN moments AS at, arrayEnumerate(moments) AS process
    ),
    reached AS
    (
        SELECT
            session_id, user, number, at, is_first, is_last,
            if(min(is_near) OVER (PARTITION BY session_id, begun, process ORDER BY number), left_out, 0) AS missing
        FROM
        (
            SELECT
                session_id, begun, process, number, user, at,
                row_number() OVER upwards = 1 AS is_first,
                leadInFrame(number, 1, number) OVER upwards != number + 1 AS is_last,
                toUInt64(if(is_first, if(begun, 0, number), number - 1 - lagInFrame(number) OVER upwards)) AS left_out,
                left_out <= greatest(100000, 1000 * (1 + count() OVER upwards - row_number() OVER upwards)) AS is_near
            FROM counted
            WINDOW upwards AS (PARTITION BY session_id, begun, process ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        )
    ),
    -- Of each session what it has, and where its processes begin with another number than 0 or end: the number with which they begin or would
    -- have gone on, when, whether they begin, and what is missing below it.
    stretches AS
    (
        SELECT
            any(user) AS user, count() AS events, sum(missing) AS gaps,
            arrayConcat(groupArrayIf((number + 1, at, false, toUInt64(0)), is_last), groupArrayIf((number, at, true, missing), is_first AND missing > 0)) AS steps
        FROM reached
        GROUP BY session_id
        UNION ALL
        SELECT user_id, 0, 0, [(assumeNotNull(numbers_from) + numbered, ended_at, false, toUInt64(0))]
        FROM telemetry.session_summaries FINAL
        WHERE isNotNull(numbers_from) AND started_at < until AND ended_at >= since - INTERVAL 1 DAY
    ),
    looked_at AS
    (
        SELECT
            if(nth = 1, events, 0) AS events,
            if(nth = 1, gaps, 0) AS gaps,
            if(step.3 AND user != '' AND other_at > step.2 - INTERVAL 1 DAY, step.4, 0) AS of_others
        FROM
        (
            SELECT
                events, gaps, user, step, nth,
                maxIf(step.2, NOT step.3) OVER (PARTITION BY user, step.1 ORDER BY step.2, step.3 ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING) AS other_at
            FROM stretches
            ARRAY JOIN steps AS step, arrayEnumerate(steps) AS nth
        )
    )
SELECT
    assumeNotNull(first_look.2) + countIf(events > 0) AS sessions,
    assumeNotNull(first_look.1) + sum(events) AS received,
    sum(l.gaps) - sum(of_others) AS gaps,
    received + gaps AS expected,
    arraySort(assumeNotNull(first_look.4)) AS versions,
    kept AS events_since,
    assumeNotNull(audited.1) AS audited_sessions,
    assumeNotNull(audited.2) AS audited_requests,
    assumeNotNull(audited.3) AS missing_requests,
    assumeNotNull(audited.4) AS audited_at,
    assumeNotNull(filled) AS filled_requests,
    -- these send their requests chunked, which some receivers lose (ours does not)
    arrayFilter(version -> (arrayMap(part -> toUInt32OrZero(part), splitByChar('.', version)) AS parts) >= [2, 1, 191] AND parts <= [2, 1, 211],
                versions) AS chunked_versions
FROM looked_at AS l
SETTINGS final = 0 -- only where it says FINAL: what was written since needs no copies taken out

-- session_audits: of each session that an audit saw whole, how many requests stand where. Coverage under reports reads it, whatever range
-- these are asked for, so a session of which the audit's range cuts something off keeps the row that it has.
--
--   from, to, tz     of the audit, as in queries/cost.sql
--   audited_at       which audit
--
-- What stands between `if` and `end` is left out where it is not so.
--
--   findings         counted is what the audit of {audited_at} wrote down
--   counts           nobody asks which requests these are: counted is what matches now, and {matched} is matched.sql
INSERT INTO telemetry.session_audits
WITH
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until,
    cut_off AS
    (
        SELECT session_id FROM telemetry.transcript_copies
        WHERE (timestamp < since OR timestamp >= until) AND message_key NOT IN (SELECT message_key FROM telemetry.shared_messages)
        UNION DISTINCT
        SELECT toString(session_id) FROM telemetry.telemetry_events
        WHERE event_type = 'api_request' AND source = 'otlp' AND (timestamp < since OR timestamp >= until)
    ),
    -- of what stands in several files whose it is: a fork's history is not its own. Asked only where there is any, for it takes 0.1 s to plan
    (SELECT count() FROM telemetry.transcript_copies
     WHERE (timestamp < since OR timestamp >= until) AND message_key IN (SELECT message_key FROM telemetry.shared_messages)) AS shared_beyond,
    filled_in AS
    (
        SELECT event_id FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND source = 'transcript'
          /* if findings */
          AND session_id IN (SELECT session_id FROM telemetry.audit_findings WHERE audited_at = {audited_at:DateTime64(9, 'UTC')} AND side = 'transcript')
          /* end */
    )
SELECT
    session_id,
    now64(9),
    min(f.first_at),
    max(f.last_at),
    sumIf(f.requests, side = 'both'),
    sumIf(f.requests, side = 'telemetry'),
    sumIf(f.requests, side = 'transcript'),
    sumIf(f.requests, side = 'transcript' AND filled_as IN (SELECT event_id FROM filled_in)),
    sumIf(f.requests, side = 'both' AND found AND f.telemetry_tokens != f.transcript_tokens)
FROM
(
    /* if findings */
    SELECT
        session_id, first_at, last_at, requests, side, finding != 0 AS found, telemetry_tokens, transcript_tokens,
        sipHash64('transcript', if(message_id != '', message_id, request_id), 0) AS filled_as -- the key of its row (maintenance/backfill.sql)
    FROM telemetry.audit_findings
    WHERE audited_at = {audited_at:DateTime64(9, 'UTC')}
    /* end */
    /* if counts */
    {matched}
    SELECT
        session_id, at AS first_at, at AS last_at, 1 AS requests, side, found, telemetry_tokens, transcript_tokens,
        sipHash64('transcript', if(message_id != '', message_id, request_id), 0) AS filled_as
    FROM matched
    /* end */
) AS f
WHERE session_id NOT IN (SELECT session_id FROM cut_off)
    AND (shared_beyond = 0 OR session_id NOT IN (SELECT session_id FROM telemetry.shared_requests WHERE timestamp < since OR timestamp >= until))
GROUP BY session_id

-- What an audit found: what agrees is counted by session, model and version, what does not is named. Rows of one {audited_at} are one audit;
-- queries/audit.sql gives the rest its reasons.
--
--   from, to, tz, session   as in queries/cost.sql
--   audited_at              the moment of the audit
--   {matched}               matched.sql, and its `if` and `end`. Where telemetry knows of nothing, nothing has to be grouped.
INSERT INTO telemetry.audit_findings
{matched}
/* if events */
SELECT
    {audited_at:DateTime64(9, 'UTC')} AS audited_at,
    session_id,
    model,
    version AS service_version,
    side,
    if(found, id, 0) AS finding,
    count() AS requests,
    min(at) AS first_at,
    max(at) AS last_at,
    sum(m.telemetry_usd) AS telemetry_usd,
    sum(ifNull(m.transcript_usd, 0)) AS transcript_usd,
    countIf(side != 'telemetry' AND isNull(m.transcript_usd)) AS unpriced,
    (sum(m.telemetry_tokens.1), sum(m.telemetry_tokens.2), sum(m.telemetry_tokens.3), sum(m.telemetry_tokens.4)) AS telemetry_tokens,
    (sum(m.transcript_tokens.1), sum(m.transcript_tokens.2), sum(m.transcript_tokens.3), sum(m.transcript_tokens.4)) AS transcript_tokens,
    anyIf(m.request_id, found) AS request_id,
    anyIf(m.message_id, found) AS message_id,
    anyIf(m.message_uuid, found) AS message_uuid,
    anyIf(m.prompt_id, found) AS prompt_id,
    anyIf(m.agent_id, found) AS agent_id,
    anyIf(m.mark, found) AS mark,
    anyIf(m.query_source, found) AS query_source
FROM matched AS m
GROUP BY session_id, model, service_version, side, finding
/* end */
/* if silence */
SELECT
    {audited_at:DateTime64(9, 'UTC')}, session_id, model, version, side, id, 1, at, at, telemetry_usd, ifNull(transcript_usd, 0), isNull(transcript_usd),
    telemetry_tokens, transcript_tokens, request_id, message_id, message_uuid, prompt_id, agent_id, mark, query_source
FROM matched
/* end */
SETTINGS min_insert_block_size_rows = 65536 -- not all rows in memory at once

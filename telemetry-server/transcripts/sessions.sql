-- session_audits: of each session that the audit of {audited_at} saw, how many requests stand where. Coverage under reports reads it.
INSERT INTO telemetry.session_audits
WITH
    filled_in AS
    (
        SELECT request_id, message_uuid FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND source = 'transcript'
          AND session_id IN (SELECT session_id FROM telemetry.audit_findings WHERE audited_at = {audited_at:DateTime64(9, 'UTC')} AND side = 'transcript')
    )
SELECT
    session_id,
    audited_at,
    min(f.first_at),
    max(f.last_at),
    sumIf(f.requests, side = 'both'),
    sumIf(f.requests, side = 'telemetry'),
    sumIf(f.requests, side = 'transcript'),
    sumIf(f.requests, side = 'transcript' AND (f.request_id != '' AND f.request_id IN (SELECT request_id FROM filled_in)
        OR f.message_uuid != '' AND f.message_uuid IN (SELECT message_uuid FROM filled_in))),
    sumIf(f.requests, side = 'both' AND finding != 0 AND f.telemetry_tokens != f.transcript_tokens)
FROM telemetry.audit_findings AS f
WHERE audited_at = {audited_at:DateTime64(9, 'UTC')}
GROUP BY session_id, audited_at

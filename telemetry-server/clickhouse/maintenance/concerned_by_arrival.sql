-- Of what was listed for backfill: how many have their request in the block that was just stored (stage_logs) by id, and how many are
-- of its sessions where an id is lacking on either side.
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt,
    came AS
    (
        SELECT
            telemetry_identifier(salt, LogAttributes['session.id']) AS session_id,
            telemetry_identifier(salt, LogAttributes['request_id']) AS request_id
        FROM stage_logs WHERE LogAttributes['event.name'] = 'api_request' OR Body = 'claude_code.api_request'
    )
SELECT
    countIf(request_id != '' AND request_id IN (SELECT request_id FROM came)),
    countIf(session_id IN (SELECT session_id FROM came WHERE request_id = '')
        OR request_id = '' AND session_id IN (SELECT session_id FROM came))
FROM telemetry.backfilled_requests;

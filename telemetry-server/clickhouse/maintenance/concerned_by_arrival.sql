-- Of what was listed for backfill: how many have their request in the block that was just stored (stage_events) by id, and how many are
-- of its sessions where an id is lacking on either side.
WITH
    came AS (SELECT session_id, request_id FROM stage_events WHERE event_type = 'api_request')
SELECT
    countIf(request_id != '' AND request_id IN (SELECT request_id FROM came)),
    countIf(session_id IN (SELECT session_id FROM came WHERE request_id = '')
        OR request_id = '' AND session_id IN (SELECT session_id FROM came))
FROM telemetry.backfilled_requests;

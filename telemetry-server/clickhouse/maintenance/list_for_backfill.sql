-- What backfill.sql is to write: the requests that only the transcripts of {machine} know, since {since}. {by_id}: each has an id of its own;
-- looking for what is alike would take 0.2 s to find nothing. Otherwise they are those of telemetry.unreported_requests.
INSERT INTO telemetry.backfilled_requests (session_id, request_id, message_id, attempt, run, prompt_key, timestamp)
SELECT session_id, request_id, message_id, attempt, {run:UInt64}, cityHash64(prompt_id), timestamp
FROM telemetry.transcript_requests
WHERE timestamp >= {since:DateTime64(9, 'UTC')}
    AND ((request_id = '' OR request_id NOT IN (SELECT request_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'otlp'))
            AND ({by_id:Bool} OR (message_id, request_id) NOT IN (SELECT message_id, request_id FROM telemetry.alike_requests))
        OR NOT {by_id:Bool} AND (message_id, request_id) IN (SELECT message_id, request_id FROM telemetry.surplus_requests))
    AND file_id IN (SELECT file_id FROM telemetry.transcript_files FINAL WHERE machine = {machine:String})
SETTINGS optimize_on_insert = 0; -- no request is listed twice, so none has to be looked for

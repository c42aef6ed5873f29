-- What backfill.sql is to write: the requests that only the transcripts of {machine} know, since {since}. {by_id}: each has an id of its own;
-- looking for what is alike would take 0.2 s to find nothing.
INSERT INTO telemetry.backfilled_requests (session_id, request_id, message_id, attempt, run)
SELECT session_id, request_id, message_id, attempt, {run:UInt64}
FROM telemetry.unreported_ids
WHERE timestamp >= {since:DateTime64(9, 'UTC')}
    AND ({by_id:Bool} OR (message_id, request_id) NOT IN (SELECT message_id, request_id FROM telemetry.alike_requests))
    AND file_id IN (SELECT file_id FROM telemetry.transcript_files FINAL WHERE machine = {machine:String});

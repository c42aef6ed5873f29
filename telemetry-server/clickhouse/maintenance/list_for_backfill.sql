-- What backfill.sql is to write: the requests that only the transcripts of {machine} know, since {since}.
INSERT INTO telemetry.backfilled_requests (session_id, request_id, message_id, attempt, run)
SELECT session_id, request_id, message_id, attempt, {run:UInt64}
FROM telemetry.unreported_requests
WHERE timestamp >= {since:DateTime64(9, 'UTC')}
    AND file_id IN (SELECT file_id FROM telemetry.transcript_files FINAL WHERE machine = {machine:String});

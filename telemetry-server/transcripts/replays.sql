-- What stands in transcripts more than once and is counted once: requests in several files (forks, side questions), lines repeated in one.
-- A file that is gone may be there under another name.
SELECT countIf(copies > 1) AS replayed_requests, sum(again) AS repeated_lines
FROM
(
    SELECT cityHash64(message_id, request_id) AS request, count() AS copies, sum(repeated_lines) AS again
    FROM telemetry.transcript_copies FINAL
    WHERE attempt = 0 AND file_id NOT IN (SELECT file_id FROM telemetry.transcript_files FINAL WHERE gone_at != 0) AND if({session:String} = '', true, session_id = {session:String})
    GROUP BY request
)

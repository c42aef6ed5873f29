-- What stands in transcripts more than once and is counted once: requests in several files (forks, side questions), lines repeated in one.
-- Of a session: those of its requests that stand in others' files too, and lines repeated in its own.
-- A file that is gone may be there under another name.
SELECT countIf(copies > 1) AS replayed_requests, sum(again) AS repeated_lines
FROM
(
    SELECT
        cityHash64(message_id, request_id) AS request, count() AS copies,
        sumIf(repeated_lines, {session:String} = '' OR session_id = {session:String}) AS again
    FROM telemetry.transcript_copies FINAL
    WHERE attempt = 0 AND file_id NOT IN (SELECT file_id FROM telemetry.transcript_files FINAL WHERE gone_at != 0)
        AND if({session:String} = '', true, cityHash64(message_id, request_id) IN (
            SELECT cityHash64(message_id, request_id) FROM telemetry.transcript_copies WHERE session_id = {session:String}))
    GROUP BY request
)

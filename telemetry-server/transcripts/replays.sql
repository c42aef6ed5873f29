-- What stands in transcripts more than once and is counted once: requests in several files (forks, side questions), lines repeated in one.
-- And the processes that wrote the events: each begins its numbers (event.sequence) at 0.
SELECT
    (
        SELECT count() FROM (SELECT 1 FROM telemetry.transcript_copies FINAL
            WHERE attempt = 0 AND if({session:String} = '', true, session_id = {session:String}) GROUP BY message_id, request_id HAVING count() > 1)
    ) AS replayed_requests,
    (
        SELECT sum(repeated_lines) FROM telemetry.transcript_copies FINAL
        WHERE attempt = 0 AND if({session:String} = '', true, session_id = {session:String})
    ) AS repeated_lines

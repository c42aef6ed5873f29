-- What a backfill of {machine} since {since} would write: what is not there yet, or says something else (maintenance/backfill.sql).
SELECT
    count() AS requests, uniqExact(session_id) AS sessions, round(sum(usd), 9) AS cost_usd, sum(used) AS tokens,
    countIf(unpriced) AS unpriced_requests, sumIf(used, unpriced) AS unpriced_tokens,
    arraySort(groupUniqArrayIf(toString(model), unpriced)) AS unpriced_models, min(timestamp) AS first_at, max(timestamp) AS last_at
FROM
(
    SELECT session_id, timestamp, model, if(telemetry_taken('cost_usd'), 0, ifNull(computed_usd, 0)) AS usd,
        isNull(computed_usd) AND used > 0 AS unpriced,
        input_tokens + output_tokens + cache_read_tokens + cache_creation_tokens AS used
    FROM telemetry.transcript_costs
    WHERE (message_id, request_id, attempt) IN (SELECT message_id, request_id, attempt FROM telemetry.unreported_requests)
        AND timestamp >= {since:DateTime64(9, 'UTC')}
        AND file_id IN (SELECT file_id FROM telemetry.transcript_files FINAL WHERE machine = {machine:String})
        AND (sipHash64('transcript', if(message_id != '', message_id, request_id), attempt), timestamp, toString(session_id), toString(model),
             usd, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cache_creation_1h_tokens,
             request_id) NOT IN
        (
            SELECT event_id, timestamp, toString(session_id), toString(model), cost_usd, input_tokens, output_tokens, cache_read_tokens,
                cache_creation_tokens, cache_creation_1h_tokens, request_id
            FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request' AND source = 'transcript'
        )
);

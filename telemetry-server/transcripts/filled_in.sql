-- What was filled in from transcripts and still is, of requests since {since}; {run}: by that run of backfill or later, 0: ever.
SELECT
    count() AS requests, uniqExact(session_id) AS sessions, round(sum(usd), 9) AS cost_usd, sum(used) AS tokens,
    countIf(unpriced) AS unpriced_requests, sumIf(used, unpriced) AS unpriced_tokens,
    arraySort(groupUniqArrayIf(toString(model), unpriced)) AS unpriced_models, min(timestamp) AS first_at, max(timestamp) AS last_at
FROM
(
    SELECT session_id, timestamp, model, cost_usd AS usd, attributes['cost_source'] = 'unpriced' AND used > 0 AS unpriced,
        input_tokens + output_tokens + cache_read_tokens + cache_creation_tokens AS used
    FROM telemetry.telemetry_events FINAL
    WHERE event_type = 'api_request' AND source = 'transcript' AND timestamp >= {since:DateTime64(9, 'UTC')}
        AND version > 4000000000000000000 + {run:UInt64}
);

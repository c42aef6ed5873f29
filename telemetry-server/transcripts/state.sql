-- A number that is another one when anything has changed that an audit matches and counts (matched.sql, sessions.sql): transcripts, requests
-- that were reported or filled in, prices. Merges change nothing of it.
--
--   from, to, tz     as in queries/cost.sql
WITH
    telemetry_since({from:String}, {tz:String}) AS since,
    telemetry_until({to:String}, {tz:String}) AS until
SELECT cityHash64(
    (SELECT (count(), sum(cityHash64(file_id, read_at))) FROM telemetry.transcript_files FINAL),
    (SELECT (uniqExact(cityHash64(message_key, copy_key, attempt)), max(read_at)) FROM telemetry.transcript_copies),
    (
        SELECT (count(), sum(cityHash64(event_id, version))) FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND timestamp >= since - INTERVAL 1 HOUR AND timestamp < until + INTERVAL 1 HOUR
    ),
    (SELECT max(loaded_at) FROM telemetry.model_prices)) AS state

-- Reports go back beyond the raw events: cost.sql and tokens.sql take older hours from usage_hourly, for which it lacked these.
ALTER TABLE telemetry.usage_hourly
    ADD COLUMN IF NOT EXISTS unpriced_tokens UInt64 AFTER unpriced_requests,
    ADD COLUMN IF NOT EXISTS cache_creation_5m_tokens UInt64 AFTER cache_creation_tokens,
    ADD COLUMN IF NOT EXISTS cache_creation_1h_tokens UInt64 AFTER cache_creation_5m_tokens,
    ADD COLUMN IF NOT EXISTS sessions Array(UInt64) COMMENT 'cityHash64 of those that had requests; none in hours that were summed up before there was this column' AFTER api_duration_ms;
-- Hours of which every event is still there are made anew, with these. What is older than any event stays as it is.
ALTER TABLE telemetry.usage_hourly DELETE WHERE hour IN
(
    SELECT summed.hour
    FROM (SELECT hour, sum(requests) AS requests, sum(prompts) AS prompts, sum(tool_calls) AS tool_calls FROM telemetry.usage_hourly FINAL GROUP BY hour) AS summed
    INNER JOIN
    (
        SELECT
            toStartOfHour(timestamp) AS hour,
            countIf(event_type = 'api_request') AS requests,
            countIf(event_type = 'user_prompt' OR begins_prompt) AS prompts,
            countIf(event_type = 'tool_result') AS tool_calls
        FROM telemetry.telemetry_events FINAL GROUP BY hour
    ) AS stored ON summed.hour = stored.hour
    WHERE stored.requests >= summed.requests AND stored.prompts >= summed.prompts AND stored.tool_calls >= summed.tool_calls
)
SETTINGS mutations_sync = 1;

-- How long events are kept. One row: of the newest that was written. Under earlier settings those before `lost_before` may have gone.
CREATE TABLE IF NOT EXISTS telemetry.event_retention
(
    one         UInt8,
    days        UInt32 COMMENT '0: for ever',
    lost_before DateTime('UTC'),
    noted_at    DateTime64(9, 'UTC') DEFAULT now64(9)
)
ENGINE = ReplacingMergeTree(noted_at)
ORDER BY one;

-- Reports go back beyond the raw events: cost.sql and tokens.sql take older hours from usage_hourly, for which it lacked these. Hours that are
-- summed up already stay without: to make all of them anew at once takes a gigabyte for each 10 million events.
ALTER TABLE telemetry.usage_hourly
    ADD COLUMN IF NOT EXISTS unpriced_tokens UInt64 AFTER unpriced_requests,
    ADD COLUMN IF NOT EXISTS cache_creation_5m_tokens UInt64 AFTER cache_creation_tokens,
    ADD COLUMN IF NOT EXISTS cache_creation_1h_tokens UInt64 AFTER cache_creation_5m_tokens,
    ADD COLUMN IF NOT EXISTS sessions Array(UInt64) COMMENT 'cityHash64 of those that had requests; none where they were not counted yet' AFTER api_duration_ms;
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

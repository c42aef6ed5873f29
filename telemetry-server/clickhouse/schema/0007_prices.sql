-- What tokens cost, in USD per million, as of a day. Each load holds the whole list and so replaces the one before
-- (store/prices.py): the shipped one from telemetry-server/prices/, with an installation's own rows in place of those of the
-- same model and tier. Read it through the view telemetry.prices, which shows the newest load.
CREATE TABLE IF NOT EXISTS telemetry.model_prices
(
    loaded_at      DateTime64(9, 'UTC'),
    model          String COMMENT 'as telemetry_price_model() names it: without date, provider and [1m]',
    tier           LowCardinality(String) COMMENT 'standard; long: prompts of more than above_tokens; fast: fast mode',
    above_tokens   UInt64 COMMENT 'of tier long: input, cache reads and cache writes together must be more than this',
    valid_from     Date COMMENT 'first day (UTC)',
    valid_to       Date COMMENT 'the day after the last one; 2149-06-06 where there is no end',
    input          Float64,
    output         Float64,
    cache_read     Float64,
    cache_write_5m Float64,
    cache_write_1h Float64,
    batch          Float64 COMMENT 'factor on all tokens of a request of the Batch API',
    us             Float64 COMMENT 'factor on all tokens where inference stays in the US (data residency)',
    web_search     Float64 COMMENT 'USD for one search',
    source         String,
    retrieved      Date,
    origin         LowCardinality(String) COMMENT 'shipped; own: the file of this installation'
)
ENGINE = MergeTree
ORDER BY (loaded_at, model, tier, valid_from);

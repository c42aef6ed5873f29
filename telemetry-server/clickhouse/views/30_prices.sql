-- Cost computed from tokens, by one rule for every report and for what is filled in from transcripts.

-- The name under which a model is priced: claude-opus-4-5 for us.anthropic.claude-opus-4-5-20251101-v1:0, claude-opus-4-5@20251101
-- and claude-opus-4-5[1m]. Names that are not Claude's stay as they are, so that own prices can name them.
CREATE OR REPLACE FUNCTION telemetry_price_model AS (model) ->
    if(extract(lower(model), '(claude-[a-z0-9-]*[a-z0-9])') = '', lower(model),
       replaceRegexpOne(extract(lower(model), '(claude-[a-z0-9-]*[a-z0-9])'), '(-20[0-9]{6})?(-latest)?(-v[0-9]+)?$', ''));

-- Cost in USD at `price`: USD per million tokens of input, output, cache reads, cache writes for 5 minutes and for one hour.
-- cache_write: all writes; those for one hour are also given apart.
CREATE OR REPLACE FUNCTION telemetry_price AS (price, input, output, cache_read, cache_write, cache_write_1h) ->
    (input * tupleElement(price, 1) + output * tupleElement(price, 2) + cache_read * tupleElement(price, 3)
     + (cache_write - least(cache_write_1h, cache_write)) * tupleElement(price, 4)
     + least(cache_write_1h, cache_write) * tupleElement(price, 5)) / 1000000;

CREATE VIEW IF NOT EXISTS telemetry.prices AS
SELECT * FROM telemetry.model_prices WHERE loaded_at = (SELECT max(loaded_at) FROM telemetry.model_prices);

-- Each api_request with both costs: what Claude Code reported, and what its tokens cost at the prices of its day. computed_usd is
-- NULL without a price. Rows that were filled in from a transcript have nothing reported.
CREATE VIEW IF NOT EXISTS telemetry.request_costs AS
WITH
    (SELECT mapFromArrays(groupArray(model), groupArray(above_tokens)) FROM telemetry.prices WHERE tier = 'long') AS long_prompts
SELECT
    e.*,
    if(e.source = 'transcript', NULL, e.cost_usd) AS reported_usd,
    if(p.model != '' AND e.day < p.valid_to,
       telemetry_price((p.input, p.output, p.cache_read, p.cache_write_5m, p.cache_write_1h),
                       e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_creation_tokens, e.cache_creation_1h_tokens),
       NULL) AS computed_usd
FROM
(
    SELECT
        *,
        toDate(timestamp) AS day,
        telemetry_price_model(toString(model)) AS price_model,
        multiIf(speed = 'fast', 'fast',
                input_tokens + cache_read_tokens + cache_creation_tokens > long_prompts[price_model] AND mapContains(long_prompts, price_model), 'long',
                'standard') AS price_tier
    FROM telemetry.telemetry_events FINAL
    WHERE event_type = 'api_request'
) AS e
ASOF LEFT JOIN telemetry.prices AS p
ON e.price_model = p.model AND e.price_tier = p.tier AND e.day >= p.valid_from;

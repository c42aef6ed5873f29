-- Cost computed from tokens, by one rule for every report and for what is filled in from transcripts.

-- The name under which a model is priced: claude-opus-4-5 for us.anthropic.claude-opus-4-5-20251101-v1:0, claude-opus-4-5@20251101,
-- claude-opus-4.5 and claude-opus-4-5[1m]. Names that are not Claude's stay as they are but for capitals and points, so that own prices
-- can name them. Of one argument, so that the engine evaluates it once for each distinct model and not for each request.
CREATE OR REPLACE FUNCTION telemetry_price_model AS (model) ->
    replaceRegexpOne(replaceRegexpAll(lower(model), '([0-9])[._]([0-9])', '\\1-\\2'),
        '(?s)^.*?(claude-[a-z0-9-]*?[a-z0-9])(?:-20[0-9]{6})?(?:-latest)?(?:-v[0-9]+)?-*(?:[^a-z0-9-].*)?$', '\\1');

-- Which prices hold. long_prompts: models, and tokens from which on a prompt is long; prompt_tokens: input, cache reads and cache writes.
-- Numbers until it is printed: half a million texts cost a report 20 ms.
CREATE OR REPLACE FUNCTION telemetry_price_tier AS (long_prompts, model, speed, prompt_tokens) ->
    CAST(multiIf(
        speed = 'fast', 3,
        prompt_tokens > transform(model, tupleElement(long_prompts, 1), tupleElement(long_prompts, 2), 18446744073709551615), 2,
        1), 'Enum8(\'standard\' = 1, \'long\' = 2, \'fast\' = 3)');

-- Cost in USD at `price`: USD per million tokens of input, output, cache reads, cache writes for 5 minutes and for one hour, then the
-- factors for the Batch API and for inference in the US, then USD for a web search. cache_write: all writes; those for one hour are
-- also given apart.
CREATE OR REPLACE FUNCTION telemetry_price AS
    (price, input, output, cache_read, cache_write, cache_write_1h, service_tier, inference_geo, web_searches) ->
    (input * tupleElement(price, 1) + output * tupleElement(price, 2) + cache_read * tupleElement(price, 3)
     + (cache_write - least(cache_write_1h, cache_write)) * tupleElement(price, 4)
     + least(cache_write_1h, cache_write) * tupleElement(price, 5)) / 1000000
    * if(service_tier = 'batch', tupleElement(price, 6), 1) * if(inference_geo = 'us', tupleElement(price, 7), 1)
    + web_searches * tupleElement(price, 8);

CREATE VIEW IF NOT EXISTS telemetry.prices AS
SELECT
    *, (input, output, cache_read, cache_write_5m, cache_write_1h, batch, us, web_search) AS price
FROM telemetry.model_prices
WHERE loaded_at = (SELECT max(loaded_at) FROM telemetry.model_prices);

-- What transcripts say, priced as of the request's day (UTC). computed_usd is NULL where no price is known.
CREATE VIEW IF NOT EXISTS telemetry.transcript_costs AS
WITH
    (SELECT (groupArray(model), groupArray(above_tokens)) FROM telemetry.prices WHERE tier = 'long') AS long_prompts
SELECT
    t.*,
    if(p.model != '' AND t.day < p.valid_to,
       telemetry_price(p.price, t.input_tokens, t.output_tokens, t.cache_read_tokens, t.cache_creation_tokens, t.cache_creation_1h_tokens,
                       t.service_tier, t.inference_geo, t.web_searches),
       NULL) AS computed_usd
FROM
(
    SELECT
        *,
        toDate(timestamp) AS day,
        telemetry_price_model(toLowCardinality(model)) AS price_model,
        telemetry_price_tier(long_prompts, price_model, speed, input_tokens + cache_read_tokens + cache_creation_tokens) AS price_tier
    FROM telemetry.transcript_requests
) AS t
ASOF LEFT JOIN telemetry.prices AS p
ON toString(t.price_model) = p.model AND toString(t.price_tier) = p.tier AND t.day >= p.valid_from;

-- Each api_request with what its price depends on. Events don't tell where inference ran and what was searched, nor those of older
-- versions for how long caches were written; where the transcript does, that counts: of its copies the most complete.
CREATE VIEW IF NOT EXISTS telemetry.billed_requests AS
WITH
    (SELECT (groupArray(model), groupArray(above_tokens)) FROM telemetry.prices WHERE tier = 'long') AS long_prompts
SELECT
    r.*,
    t.service_tier AS service_tier,
    t.inference_geo AS inference_geo,
    t.web_searches AS web_searches,
    least(r.cache_creation_tokens,
          if(r.cache_creation_5m_tokens + r.cache_creation_1h_tokens < r.cache_creation_tokens AND t.cache_creation_tokens = r.cache_creation_tokens,
             t.cache_creation_1h_tokens, r.cache_creation_1h_tokens)) AS written_for_1h,
    toDate(r.timestamp) AS priced_on,
    telemetry_price_model(r.model) AS price_model,
    telemetry_price_tier(long_prompts, price_model, if(t.speed = 'fast', t.speed, r.speed),
                         r.input_tokens + r.cache_read_tokens + r.cache_creation_tokens) AS price_tier
FROM (SELECT * FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request') AS r
LEFT ANY JOIN
(
    SELECT
        request_id,
        argMax(c.service_tier, fullness) AS service_tier,
        argMax(c.inference_geo, fullness) AS inference_geo,
        argMax(c.web_searches, fullness) AS web_searches,
        argMax(c.speed, fullness) AS speed,
        argMax(c.cache_creation_tokens, fullness) AS cache_creation_tokens,
        argMax(c.cache_creation_1h_tokens, fullness) AS cache_creation_1h_tokens
    FROM
    (
        SELECT *, output_tokens + if(stop_reason = '', 0, 9223372036854775808) AS fullness
        FROM telemetry.transcript_copies WHERE attempts = 1 AND request_id != ''
    ) AS c
    GROUP BY request_id
) AS t
ON r.request_id = t.request_id;

-- Each api_request with both costs: what Claude Code reported, and what its tokens cost at the prices of its day (UTC). computed_usd is
-- NULL where no price is known, reported_usd for rows that were filled in from a transcript: these were computed when they were, from all
-- that the transcript says, and are anew when prices change.
CREATE VIEW IF NOT EXISTS telemetry.request_costs AS
SELECT
    e.*,
    p.price AS price,
    if(e.source = 'transcript', NULL, e.cost_usd) AS reported_usd,
    multiIf(
        e.source = 'transcript' AND e.cost_usd != 0, e.cost_usd,
        p.model != '' AND e.priced_on < p.valid_to,
        telemetry_price(p.price, e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_creation_tokens, e.written_for_1h,
                        e.service_tier, e.inference_geo, e.web_searches),
        NULL) AS computed_usd
FROM telemetry.billed_requests AS e
ASOF LEFT JOIN telemetry.prices AS p
ON toString(e.price_model) = p.model AND toString(e.price_tier) = p.tier AND e.priced_on >= p.valid_from;

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

-- Which price holds, as one number: of a model, a tier, and the first of the days on which some price begins or ends, up to the request's.
-- Half a million requests find theirs by it four times as fast as by names and days.
CREATE OR REPLACE FUNCTION telemetry_price_key AS (model, tier, first_day) ->
    bitXor(cityHash64(model), bitOr(bitShiftLeft(toUInt64(toUInt8(tier)), 16), toUInt64(first_day)));
CREATE OR REPLACE FUNCTION telemetry_first_day AS (days, timestamp) -> roundDown(toUInt16(toDate(timestamp, 'UTC')), arrayPushBack(days, toUInt16(0)));

CREATE VIEW IF NOT EXISTS telemetry.prices AS
SELECT
    *, (input, output, cache_read, cache_write_5m, cache_write_1h, batch, us, web_search) AS price
FROM telemetry.model_prices
WHERE loaded_at = (SELECT max(loaded_at) FROM telemetry.model_prices);

-- The list by these numbers: a row for each that a price has.
CREATE VIEW IF NOT EXISTS telemetry.price_keys AS
WITH
    (
        SELECT (loaded_at, groupUniqArrayArray([toUInt16(valid_from), toUInt16(valid_to)]))
        FROM telemetry.model_prices GROUP BY loaded_at ORDER BY loaded_at DESC LIMIT 1
    ) AS list
SELECT
    telemetry_price_key(model, CAST(tier, 'Enum8(\'standard\' = 1, \'long\' = 2, \'fast\' = 3)'), arrayJoin(arrayFilter(
        day -> day >= toUInt16(valid_from) AND day < toUInt16(valid_to), arrayDistinct(arrayPushBack(list.2, toUInt16(0)))))) AS price_key,
    (input, output, cache_read, cache_write_5m, cache_write_1h, batch, us, web_search) AS price
FROM telemetry.model_prices
WHERE loaded_at = list.1;

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

-- What transcripts tell of a request and its event does not: where inference ran, what was searched, and for how long caches were written
-- (events of older versions don't tell). Of its copies the most complete counts: sorted, for argMax takes half as long again with a tuple.
-- Most requests have nothing of this.
CREATE VIEW IF NOT EXISTS telemetry.told_by_transcripts AS
SELECT
    request_id,
    (service_tier, inference_geo, web_searches, speed, cache_creation_tokens, cache_creation_1h_tokens) AS told
FROM telemetry.transcript_copies
WHERE attempts = 1 AND request_id != ''
    AND (service_tier = 'batch' OR inference_geo = 'us' OR web_searches > 0 OR speed = 'fast' OR cache_creation_1h_tokens > 0)
ORDER BY stop_reason != '' DESC, output_tokens DESC
LIMIT 1 BY request_id;

-- Each api_request with what its price depends on. any_told: where transcripts tell nothing more, their part of the plan falls away.
CREATE VIEW IF NOT EXISTS telemetry.billed_requests AS
WITH
    (
        SELECT (groupArrayIf(model, tier = 'long'), groupArrayIf(above_tokens, tier = 'long'), groupUniqArrayArray([toUInt16(valid_from), toUInt16(valid_to)]))
        FROM telemetry.model_prices GROUP BY loaded_at ORDER BY loaded_at DESC LIMIT 1
    ) AS list,
    (
        SELECT count() > 0 FROM telemetry.transcript_copies
        WHERE service_tier = 'batch' OR inference_geo = 'us' OR web_searches > 0 OR speed = 'fast' OR cache_creation_1h_tokens > 0
    ) AS any_told
SELECT
    e.*,
    if(any_told, t.told.1, '') AS service_tier,
    if(any_told, t.told.2, '') AS inference_geo,
    if(any_told, t.told.3, 0) AS web_searches,
    least(cache_creation_tokens,
          if(any_told AND cache_creation_5m_tokens + cache_creation_1h_tokens < cache_creation_tokens AND t.told.5 = cache_creation_tokens,
             t.told.6, cache_creation_1h_tokens)) AS written_for_1h,
    telemetry_price_model(model) AS price_model,
    telemetry_price_tier(list, price_model, if(any_told AND t.told.4 = 'fast', 'fast', speed),
                         input_tokens + cache_read_tokens + cache_creation_tokens) AS price_tier,
    telemetry_price_key(price_model, price_tier, telemetry_first_day(list.3, timestamp)) AS price_key
FROM
(
    SELECT *, if(any_told, request_id, '') AS told_as FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request'
) AS e
LEFT ANY JOIN telemetry.told_by_transcripts AS t
ON e.told_as = t.request_id;

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
        p.price_key != 0,
        telemetry_price(p.price, e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_creation_tokens, e.written_for_1h,
                        e.service_tier, e.inference_geo, e.web_searches),
        NULL) AS computed_usd
FROM telemetry.billed_requests AS e
LEFT ANY JOIN telemetry.price_keys AS p
ON e.price_key = p.price_key;

-- From `lines` (read.sql): a row for each request of each file, as it was billed. What is handed over to telemetry.read_requests.
-- `known` has what the file's name tells: file, file_id, session_id, agent_id.
--
-- A response is written in several lines with the same usage, of which the first ones may hold a placeholder: the line with the most
-- output counts as a whole, of equal ones the last. usage.iterations has the attempts that were billed, where it has several.
WITH
    -- some versions leave the request's id out, some only in some lines: message -> the id that another line has
    (
        SELECT (groupArray(message), groupArray(known_as))
        FROM
        (
            SELECT cityHash64(file, message_id) AS message, max(request_id) AS known_as
            FROM lines
            WHERE kind = 'answer'
              AND message IN (SELECT cityHash64(file, message_id) FROM lines WHERE kind = 'answer' AND message_id != '' AND request_id = '')
            GROUP BY message
            HAVING known_as != ''
        )
    ) AS named,
    requests AS
    (
        SELECT
            l.file AS file, l.message_id AS message_id,
            if(l.request_id = '' AND notEmpty(named.1), transform(cityHash64(l.file, l.message_id), named.1, named.2, ''), l.request_id) AS request_id,
            -- one number, for tuples are slow to compare
            argMax(l.number, bitShiftLeft(toUInt128(l.output_tokens), 64) + toUInt64(toUnixTimestamp64Nano(l.at))) AS best,
            min(l.at) AS first_at,
            count() AS lines,
            groupBitmap(cityHash64(l.uuid)) AS distinct_lines,
            min(l.beside) AS beside,
            argMin(l.agent_id, l.beside) AS agent
        FROM lines AS l
        WHERE l.kind = 'answer'
        GROUP BY file, message_id, request_id
    ),
    files AS
    (
        SELECT k.file AS file, k.file_id AS file_id, k.session_id AS session_id, k.agent_id AS agent_id, queued_at, last_at
        FROM
        (
            -- a queue's line says when the file was begun only where it stands before all else
            SELECT
                file, max(at) AS last_at,
                if(minIf(number, kind = 'queue') < minIf(number, kind IN ('prompt', 'clear', 'answer')), minIf(at, kind = 'queue'), toDateTime64(0, 9, 'UTC'))
                    AS queued_at
            FROM lines
            GROUP BY file
        ) AS l
        INNER JOIN known AS k ON l.file = k.file
    )
SELECT
    f.file_id AS file_id,
    r.message_id AS message_id,
    r.request_id AS request_id,
    toUInt8(least(place - 1, 255)) AS attempt,
    toUInt8(least(length(billed), 255)) AS attempts,
    if(toUnixTimestamp64Nano(r.at) > 0, r.at, f.last_at) AS timestamp,
    if(r.session_id = '', f.session_id, r.session_id) AS session_id,
    prompts.prompt_id AS prompt_id,
    r.uuid AS message_uuid,
    multiIf(r.agent != '', r.agent, f.agent_id != '', f.agent_id, r.all_beside, 'sidechain', '') AS agent_id,
    -- a copied history keeps the times that its lines had, and what was queued is not copied
    f.queued_at > 0 AND r.first_at < f.queued_at AS copied,
    toUInt32(r.lines) AS lines,
    toUInt32(r.lines - r.distinct_lines) AS repeated_lines,
    if(b.1 = '', r.model, b.1) AS model,
    b.2 AS input_tokens,
    b.3 AS output_tokens,
    b.4 AS cache_read_tokens,
    -- some versions have no sum, older ones no split: then it is what costs less
    greatest(b.5, b.6.1 + b.6.2) AS cache_creation_tokens,
    cache_creation_tokens - b.6.2 AS cache_creation_5m_tokens,
    b.6.2 AS cache_creation_1h_tokens,
    if(place = length(billed), r.web_searches, 0) AS web_searches,
    r.speed AS speed,
    r.service_tier AS service_tier,
    r.inference_geo AS inference_geo,
    r.stop_reason AS stop_reason,
    r.version AS service_version,
    r.entrypoint AS entrypoint,
    r.branch AS branch,
    r.directory AS directory
FROM
(
    SELECT
        requests.file AS file, requests.message_id AS message_id, requests.request_id AS request_id, first_at, lines, distinct_lines, agent,
        requests.beside AS all_beside,
        l.at AS at, session_id, uuid, model, web_searches, speed, service_tier, inference_geo, stop_reason, version, entrypoint, branch, directory,
        if(length(iterations) > 1, iterations,
           [CAST(('', tokens.1, tokens.2, tokens.3, tokens.4, tokens.5),
            'Tuple(model String, input_tokens UInt64, output_tokens UInt64, cache_read_input_tokens UInt64, cache_creation_input_tokens UInt64,
             cache_creation Tuple(ephemeral_5m_input_tokens UInt64, ephemeral_1h_input_tokens UInt64))')]) AS billed
    FROM (SELECT * FROM lines WHERE kind = 'answer') AS l
    INNER JOIN requests ON l.number = requests.best -- the narrow side is the one that is held in memory
) AS r
INNER JOIN files AS f ON r.file = f.file
ASOF LEFT JOIN (SELECT file, at, prompt_id FROM lines WHERE kind IN ('prompt', 'clear') AND prompt_id != '') AS prompts
ON r.file = prompts.file AND r.first_at >= prompts.at
ARRAY JOIN billed AS b, arrayEnumerate(billed) AS place
SETTINGS max_threads = 1,
    -- joins as they are written: the engine would hold the wide side in memory, or read the lines once more
    enable_join_runtime_filters = 0, query_plan_join_swap_table = 'false', query_plan_optimize_join_order_limit = 0

-- From `transcripts` (read.sql): a row for each request of each file, as it was billed. What is handed over to telemetry.read_requests.
-- `known` has what the file's name tells: file, file_id, session_id, agent_id.
--
-- A response is written in several lines with the same usage, of which the first ones may hold a placeholder: the line with the most
-- output counts as a whole, of equal ones the last. usage.iterations has the attempts that were billed, where it has several.
WITH
    lines AS
    (
        SELECT
            t.file AS file, k.file_id AS file_id, k.session_id AS of_session, k.agent_id AS of_agent, t.queued_at AS queued_at, t.last_at AS last_at,
            a.1 AS at, a.2 AS j, j.message.id AS message_id,
            if(j.requestId = '' AND message_id != '', max(j.requestId) OVER (PARTITION BY t.file, message_id), j.requestId) AS request_id
        FROM transcripts AS t
        INNER JOIN known AS k ON t.file = k.file
        ARRAY JOIN answers AS a
    ),
    requests AS
    (
        SELECT
            file, file_id, message_id, request_id,
            any(of_agent) AS of_agent, any(of_session) AS of_session,
            argMax((at, j), (j.message.usage.output_tokens, at)) AS best,
            min(at) AS first_at,
            count() AS lines,
            uniqExact(j.uuid) AS distinct_lines,
            min(j.isSidechain) AS beside,
            argMin(j.agentId, j.isSidechain) AS agent,
            any(queued_at) AS queued_at, any(last_at) AS last_at
        FROM lines
        GROUP BY file, file_id, message_id, request_id
    ),
    asked AS (SELECT file, p.1 AS at, p.2 AS prompt_id FROM transcripts ARRAY JOIN prompts AS p)
SELECT
    r.file_id AS file_id,
    r.message_id AS message_id,
    r.request_id AS request_id,
    toUInt8(least(number - 1, 255)) AS attempt,
    toUInt8(least(length(billed), 255)) AS attempts,
    if(toUnixTimestamp64Nano(r.best.1) > 0, r.best.1, last_at) AS timestamp,
    if(j.sessionId = '', of_session, j.sessionId) AS session_id,
    asked.prompt_id AS prompt_id,
    j.uuid AS message_uuid,
    multiIf(r.agent != '', r.agent, of_agent != '', of_agent, r.beside, 'sidechain', '') AS agent_id,
    queued_at > 0 AND first_at < queued_at AS copied,
    toUInt32(r.lines) AS lines,
    toUInt32(r.lines - distinct_lines) AS repeated_lines,
    if(b.model = '', j.message.model, b.model) AS model,
    b.input_tokens AS input_tokens,
    b.output_tokens AS output_tokens,
    b.cache_read_input_tokens AS cache_read_tokens,
    -- some versions have no sum, older ones no split: then it is what costs less
    greatest(b.cache_creation_input_tokens, b.cache_creation.1 + b.cache_creation.2) AS cache_creation_tokens,
    cache_creation_tokens - b.cache_creation.2 AS cache_creation_5m_tokens,
    b.cache_creation.2 AS cache_creation_1h_tokens,
    if(number = length(billed), j.message.usage.server_tool_use.web_search_requests, 0) AS web_searches,
    j.message.usage.speed AS speed,
    j.message.usage.service_tier AS service_tier,
    j.message.usage.inference_geo AS inference_geo,
    j.message.stop_reason AS stop_reason,
    j.version AS service_version,
    j.entrypoint AS entrypoint,
    j.gitBranch AS branch,
    j.cwd AS directory
FROM
(
    SELECT
        *,
        best.2 AS j,
        j.message.usage AS u,
        if(length(u.iterations) > 1, u.iterations,
           [CAST((j.message.model, u.input_tokens, u.output_tokens, u.cache_read_input_tokens, u.cache_creation_input_tokens, u.cache_creation),
            'Tuple(model String, input_tokens UInt64, output_tokens UInt64, cache_read_input_tokens UInt64, cache_creation_input_tokens UInt64,
             cache_creation Tuple(ephemeral_5m_input_tokens UInt64, ephemeral_1h_input_tokens UInt64))')]) AS billed
    FROM requests
) AS r
ARRAY JOIN billed AS b, arrayEnumerate(billed) AS number
ASOF LEFT JOIN asked ON r.file = asked.file AND r.first_at >= asked.at
SETTINGS max_threads = 2

-- What the lines of transcripts say that matter, in memory: identifiers, numbers and names, no content.
--
--   {lines}   the files, one behind the other: a pipe, by its descriptor, so that no path is told
--   {mark}    begins a line that no file has: before the first line of each, with its number
--   {text}    what of a line is parsed: line, or mended where some could not be read as they are
--
-- A line is JSON and can have megabytes, so it is parsed only where a look at its text says that it matters. Claude Code writes what
-- kind a line is near its start; only a request's usage stands behind its content. Texts that quote such words only cost time: what
-- a line is, its own `type` decides.
--
-- Half a surrogate pair, where a text was cut off in an emoji, is JSON for Claude Code and not for the engine, and so are bytes that are no
-- UTF-8: mended, they can be read, for content does not matter. Not at first, because it costs a fifth of the time.
--
-- tupleElement(j, 'x') and not j.x: the engine makes j.x a getSubcolumn, which copies the whole tuple for each of its elements.
-- One thread reads, so that lines keep their order, and with it their file.
CREATE TEMPORARY TABLE lines ENGINE = Memory AS
SELECT max(opened) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS file, * EXCEPT (opened)
FROM
(
WITH
    startsWith(line, '{mark}') AS marked,
    left(line, 400) AS head,
    startsWith(line, '{') AND endsWith(line, '}') AS whole,
    position(line, '"usage"') > 0 AS used,
    replaceRegexpAll(toValidUTF8(line), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\u0020') AS mended,
    JSONExtract({text}, 'Tuple(type String, subtype String, uuid String, timestamp String, sessionId String, isSidechain Bool,
        agentId String, requestId String, promptId String, gitBranch String, cwd String, version String, entrypoint String,
        message Tuple(id String, model String, stop_reason String, usage Tuple(
            input_tokens UInt64, output_tokens UInt64, cache_read_input_tokens UInt64, cache_creation_input_tokens UInt64,
            cache_creation Tuple(ephemeral_5m_input_tokens UInt64, ephemeral_1h_input_tokens UInt64),
            speed String, service_tier String, inference_geo String, server_tool_use Tuple(web_search_requests UInt32),
            iterations Array(Tuple(model String,
                input_tokens UInt64, output_tokens UInt64, cache_read_input_tokens UInt64, cache_creation_input_tokens UInt64,
                cache_creation Tuple(ephemeral_5m_input_tokens UInt64, ephemeral_1h_input_tokens UInt64))))))') AS j,
    tupleElement(j, 'message') AS message,
    tupleElement(message, 'usage') AS u,
    tupleElement(j, 'type') AS type,
    tupleElement(message, 'model') AS said_model,
    greatest(tupleElement(u, 'input_tokens'), tupleElement(u, 'output_tokens'), tupleElement(u, 'cache_read_input_tokens'),
             tupleElement(u, 'cache_creation_input_tokens'),
             arrayMax(arrayMap(each -> greatest(each.2, each.3, each.4, each.5), tupleElement(u, 'iterations')))) AS most_tokens
SELECT
    rowNumberInAllBlocks() AS number,
    if(marked, toUInt32OrZero(substring(line, length('{mark}') + 1, 10)), 0) AS opened,
    parseDateTime64BestEffortOrZero(tupleElement(j, 'timestamp'), 9, 'UTC') AS at,
    CAST(multiIf(
        marked, 'file',
        type = '', if(startsWith(line, '{') AND NOT whole, 'cut', 'unreadable'),
        most_tokens >= 1000000000, 'unreadable', -- no request of any model: sums of such numbers would say anything
        -- one that has no usage, or that no model made, was not billed
        type = 'assistant' AND used AND said_model NOT IN ('', '<synthetic>') AND (message_id != '' OR request_id != '')
            -- looked at once more only where there is nothing to see: null is no usage, and the word may stand in a tool's input
            AND (most_tokens > 0 OR JSONType(if(most_tokens = 0, {text}, ''), 'message', 'usage') = 'Object'), 'answer',
        type = 'user' AND position(head, '<command-name>/clear</command-name>') > 0, 'clear',
        type = 'user', 'prompt',
        type = 'system' AND tupleElement(j, 'subtype') = 'compact_boundary', 'compaction',
        type = 'queue-operation', 'queue',
        -- what a copied history leaves out: it has only messages and what hangs on them
        type NOT IN ('assistant', 'system', 'attachment', 'progress'), 'aside',
        ''), 'Enum8(\'\', \'file\', \'answer\', \'prompt\', \'clear\', \'compaction\', \'queue\', \'aside\', \'cut\', \'unreadable\')') AS kind,
    tupleElement(message, 'id') AS message_id,
    tupleElement(j, 'requestId') AS request_id,
    tupleElement(j, 'uuid') AS uuid,
    tupleElement(j, 'promptId') AS prompt_id,
    toLowCardinality(tupleElement(j, 'sessionId')) AS session_id,
    toLowCardinality(tupleElement(j, 'agentId')) AS agent_id,
    tupleElement(j, 'isSidechain') AS beside,
    toLowCardinality(said_model) AS model,
    toLowCardinality(tupleElement(message, 'stop_reason')) AS stop_reason,
    tupleElement(u, 'output_tokens') AS output_tokens,
    (tupleElement(u, 'input_tokens'), output_tokens, tupleElement(u, 'cache_read_input_tokens'), tupleElement(u, 'cache_creation_input_tokens'),
     tupleElement(u, 'cache_creation')) AS tokens,
    tupleElement(u, 'iterations') AS iterations,
    tupleElement(tupleElement(u, 'server_tool_use'), 'web_search_requests') AS web_searches,
    toLowCardinality(tupleElement(u, 'speed')) AS speed,
    toLowCardinality(tupleElement(u, 'service_tier')) AS service_tier,
    toLowCardinality(tupleElement(u, 'inference_geo')) AS inference_geo,
    toLowCardinality(tupleElement(j, 'version')) AS version,
    toLowCardinality(tupleElement(j, 'entrypoint')) AS entrypoint,
    toLowCardinality(tupleElement(j, 'gitBranch')) AS branch,
    toLowCardinality(tupleElement(j, 'cwd')) AS directory
FROM file('{lines}', 'LineAsString', 'line String')
WHERE NOT whole AND line != '' AND line != '\r' OR used OR startsWith(line, '{"type":"queue-operation"')
    OR startsWith(line, '{"type":"') AND length(line) < 2000
        AND NOT multiSearchAny(left(line, 24), ['"user"', '"assistant"', '"system"', '"attachment"', '"progress"'])
    OR multiSearchAny(head, ['"promptId":"', '"compact_boundary"', '<command-name>/clear</command-name>'])
        AND NOT multiSearchAny(head, ['"tool_result"', '"attachment"'])
)
SETTINGS max_threads = 1, input_format_parallel_parsing = 0, storage_file_read_method = 'read', max_block_size = 4096,
    input_format_max_block_size_bytes = 2000000, optimize_functions_to_subcolumns = 0,
    short_circuit_function_evaluation = 'disable' -- to take out the lines for which a condition is open costs more than to ask it of all

-- What transcripts say, one row a file, in memory: how many lines it has, and of those that matter what is needed and no content.
--
--   {lines}   the files: file('/proc/self/fd/{7,8,9}', 'LineAsString', 'line String'), by their descriptors, so that no path is told
--
-- A line is JSON and can have megabytes, so it is parsed only where a look at its text says that it matters. Claude Code writes what
-- kind a line is near its start; only a request's usage stands behind its content. Texts that quote such words only cost time: what
-- a line is, its own `type` decides.
CREATE OR REPLACE TEMPORARY TABLE transcripts ENGINE = Memory AS
WITH
    left(line, 400) AS head,
    startsWith(line, '{') AND endsWith(line, '}') AS whole,
    position(line, '"usage"') > 0 AS used,
    NOT whole OR used OR startsWith(line, '{"type":"queue-operation"')
        OR multiSearchAny(head, ['"promptId":"', '"compact_boundary"', '<command-name>/clear</command-name>'])
            AND NOT multiSearchAny(head, ['"tool_result"', '"attachment"']) AS matters,
    JSONExtract(if(matters, line, ''), 'Tuple(type String, subtype String, uuid String, timestamp String, sessionId String, isSidechain Bool,
        agentId String, requestId String, promptId String, gitBranch String, cwd String, version String, entrypoint String,
        message Tuple(id String, model String, stop_reason String, usage Tuple(
            input_tokens UInt64, output_tokens UInt64, cache_read_input_tokens UInt64, cache_creation_input_tokens UInt64,
            cache_creation Tuple(ephemeral_5m_input_tokens UInt64, ephemeral_1h_input_tokens UInt64),
            speed String, service_tier String, inference_geo String, server_tool_use Tuple(web_search_requests UInt32),
            iterations Array(Tuple(model String,
                input_tokens UInt64, output_tokens UInt64, cache_read_input_tokens UInt64, cache_creation_input_tokens UInt64,
                cache_creation Tuple(ephemeral_5m_input_tokens UInt64, ephemeral_1h_input_tokens UInt64))))))') AS j,
    parseDateTime64BestEffortOrZero(j.timestamp, 9, 'UTC') AS at
SELECT
    toUInt32(CAST(_file, 'String')) AS file,
    count() AS lines,
    countIf(NOT whole AND startsWith(line, '{') AND j.type = '') AS cut_lines,
    countIf(matters AND j.type = '' AND NOT (NOT whole AND startsWith(line, '{'))) AS unreadable_lines,
    -- one that has no usage, or that no model made, was not billed
    groupArrayIf((at, j), j.type = 'assistant' AND j.message.model NOT IN ('', '<synthetic>')
        AND (j.message.id != '' OR j.requestId != '') AND used) AS answers,
    arraySort(groupUniqArrayIf((at, j.promptId), j.type = 'user' AND j.promptId != '')) AS prompts,
    countIf(j.type = 'system' AND j.subtype = 'compact_boundary') AS compactions,
    minIf(at, j.type = 'user') AS first_prompt_at,
    minIf(at, j.type = 'user' AND position(head, '<command-name>/clear</command-name>') > 0) AS cleared_at,
    -- A copied history keeps the times that its lines had, and what the client queues it does not copy.
    minIf(at, j.type = 'queue-operation') AS queued_at,
    minIf(at, at > 0) AS first_at,
    max(at) AS last_at
FROM {lines}
GROUP BY file
SETTINGS max_threads = 2, input_format_parallel_parsing = 0, storage_file_read_method = 'pread', max_block_size = 4096,
    input_format_max_block_size_bytes = 4000000, optimize_functions_to_subcolumns = 0

-- From `lines` (read.sql) and what the files' metadata tells (`known`): a row for each file, for telemetry.read_files.
SELECT
    k.file_id AS file_id,
    k.machine AS machine,
    k.folder_id AS folder_id,
    toUInt16(k.reader) AS reader,
    k.size AS size,
    k.modified_ns AS modified_ns,
    k.session_id AS session_id,
    k.agent_id AS agent_id,
    uniqExactIf(if(l.message_id = '', l.request_id, l.message_id), l.kind = 'answer') AS requests,
    uniqExactIf(l.prompt_id, l.kind = 'prompt' AND l.prompt_id != '') AS prompts,
    countIf(l.kind = 'compaction') AS compactions,
    countIf(l.kind = 'clear') > 0 AND minIf(l.at, l.kind = 'clear') <= minIf(l.at, l.kind IN ('prompt', 'clear')) + INTERVAL 1 SECOND AS cleared,
    anyIf(l.directory, l.kind = 'answer') AS directory,
    if(countIf(l.kind = 'queue') > 0, minIf(l.at, l.kind = 'queue'), minIf(l.at, toUnixTimestamp64Nano(l.at) > 0)) AS started_at,
    max(l.at) AS ended_at,
    countIf(l.kind = 'cut') AS cut_lines,
    countIf(l.kind = 'unreadable') AS unreadable_lines,
    k.long_lines AS long_lines,
    k.problem AS problem
FROM known AS k
LEFT JOIN lines AS l ON k.file = l.file
GROUP BY k.file, k.file_id, k.machine, k.folder_id, k.reader, k.size, k.modified_ns, k.session_id, k.agent_id, k.long_lines, k.problem

-- From `transcripts` (read.sql) and what the files' metadata tells (`known`): a row for each file, for telemetry.read_files.
SELECT
    k.file_id AS file_id,
    k.machine AS machine,
    k.folder_id AS folder_id,
    toUInt16(k.reader) AS reader,
    k.size AS size,
    k.modified_ns AS modified_ns,
    k.session_id AS session_id,
    k.agent_id AS agent_id,
    t.lines AS lines,
    length(arrayDistinct(arrayMap(a -> if(a.2.message.id = '', a.2.requestId, a.2.message.id), t.answers))) AS requests,
    length(arrayDistinct(arrayMap(p -> p.2, t.prompts))) AS prompts,
    t.compactions AS compactions,
    t.cleared_at > 0 AND t.cleared_at <= t.first_prompt_at + INTERVAL 1 SECOND AS cleared,
    arrayElement(arrayMap(a -> a.2.cwd, t.answers), 1) AS directory,
    if(t.queued_at > 0, t.queued_at, t.first_at) AS started_at,
    t.last_at AS ended_at,
    t.cut_lines AS cut_lines,
    t.unreadable_lines AS unreadable_lines,
    k.long_lines AS long_lines,
    k.problem AS problem
FROM known AS k
LEFT JOIN transcripts AS t ON k.file = t.file

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
    k.root_id AS root_id,
    l.requests AS requests,
    l.prompts AS prompts,
    l.compactions AS compactions,
    l.compaction_ids AS compaction_ids,
    l.cleared AS cleared,
    l.directory AS directory,
    l.started_at AS started_at,
    l.ended_at AS ended_at,
    l.copied_until AS copied_until,
    l.cut_lines AS cut_lines,
    l.unreadable_lines AS unreadable_lines,
    k.long_lines AS long_lines,
    k.problem AS problem
FROM known AS k
LEFT JOIN
(
    SELECT
        file,
        uniqExactIf(cityHash64(if(message_id = '', request_id, message_id)), kind = 'answer') AS requests,
        uniqExactIf(prompt_id, kind = 'prompt' AND prompt_id != '') AS prompts,
        countIf(kind = 'compaction') AS compactions,
        groupUniqArrayIf(cityHash64(uuid), kind = 'compaction') AS compaction_ids,
        countIf(kind = 'clear') > 0 AND minIf(at, kind = 'clear') <= minIf(at, kind IN ('prompt', 'clear')) + INTERVAL 1 SECOND AS cleared,
        toString(anyIf(directory, kind = 'answer')) AS directory,
        if(countIf(kind = 'queue') > 0 AND minIf(number, kind = 'queue') < minIf(number, kind IN ('prompt', 'clear', 'answer')), minIf(at, kind = 'queue'),
           minIf(at, toUnixTimestamp64Nano(at) > 0)) AS started_at,
        max(at) AS ended_at,
        maxIf(at, first_aside = 0 OR number < first_aside) AS copied_until,
        countIf(kind = 'cut') AS cut_lines,
        countIf(kind = 'unreadable') AS unreadable_lines
    FROM lines
    INNER JOIN
    (
        -- A fork copies messages and leaves out what the client notes beside them. So where there is such a note behind an answer, what
        -- follows is the file's own.
        SELECT
            file,
            minIf(number, kind = 'answer') AS first_answer,
            arrayFirst(aside -> aside > first_answer, arraySort(groupArrayIf(number, kind IN ('aside', 'queue')))) AS first_aside
        FROM lines
        GROUP BY file
    ) AS asides USING (file)
    GROUP BY file
) AS l
ON k.file = l.file

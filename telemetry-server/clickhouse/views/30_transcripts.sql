-- What a reader of transcripts hands over -> transcript_copies and transcript_files, under the same policy as events. What is handed over
-- lands in Null tables, so a name or a path that the policy does not allow never reaches the disk.
CREATE TABLE telemetry.read_requests
(
    file_id LowCardinality(String), message_id String, request_id String, attempt UInt8, attempts UInt8, timestamp DateTime64(9, 'UTC'),
    session_id LowCardinality(String), prompt_id LowCardinality(String), message_uuid String, agent_id LowCardinality(String), copied Bool,
    lines UInt32, repeated_lines UInt32, model LowCardinality(String), input_tokens UInt64, output_tokens UInt64, cache_read_tokens UInt64,
    cache_creation_tokens UInt64, cache_creation_5m_tokens UInt64, cache_creation_1h_tokens UInt64, web_searches UInt32,
    speed LowCardinality(String), service_tier LowCardinality(String), inference_geo LowCardinality(String), stop_reason LowCardinality(String),
    service_version LowCardinality(String), entrypoint LowCardinality(String), branch LowCardinality(String), directory LowCardinality(String)
)
ENGINE = Null;

-- The policy is a long expression (a home in a path costs it 0.7 ms), and many requests have the same few names: so it stands here once,
-- and is applied once to each distinct name of a block. What an attribute of events is called decides what becomes of the same thing here.
CREATE MATERIALIZED VIEW telemetry.transcript_copies_mv TO telemetry.transcript_copies AS
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt,
    combinations AS
    (
        SELECT
            cityHash64(model, speed, service_tier, inference_geo, stop_reason, service_version, entrypoint, branch, directory) AS said,
            [toString(any(model)), toString(any(speed)), toString(any(service_tier)), toString(any(inference_geo)),
             toString(any(stop_reason)), toString(any(service_version)), toString(any(entrypoint)), toString(any(branch)),
             toString(any(directory))] AS all_names
        FROM telemetry.read_requests
        GROUP BY said
    ),
    ['model', 'speed', 'service_tier', 'inference_geo', 'stop_reason', 'service.version', 'app.entrypoint', 'vcs.ref.head.name', 'directory'] AS called,
    names AS (SELECT said, name, place FROM combinations ARRAY JOIN all_names AS name, arrayEnumerate(all_names) AS place)
SELECT
    extract(r.file_id, '^[0-9a-f]{32}$') AS file_id,
    telemetry_identifier(salt, r.message_id) AS message_id,
    telemetry_identifier(salt, r.request_id) AS request_id,
    r.attempt AS attempt,
    r.attempts AS attempts,
    now64(9) AS read_at,
    if(toYear(r.timestamp, 'UTC') BETWEEN 2000 AND 2099, r.timestamp, now64(9)) AS timestamp,
    telemetry_identifier(salt, r.session_id) AS session_id,
    telemetry_identifier(salt, r.prompt_id) AS prompt_id,
    telemetry_identifier(salt, r.message_uuid) AS message_uuid,
    if(r.agent_id = 'sidechain', 'sidechain', telemetry_identifier(salt, r.agent_id)) AS agent_id, -- transcripts/requests.sql says so
    r.copied AS copied,
    r.lines AS lines,
    r.repeated_lines AS repeated_lines,
    d.model AS model,
    if(telemetry_taken('input_tokens'), 0, r.input_tokens) AS input_tokens,
    if(telemetry_taken('output_tokens'), 0, r.output_tokens) AS output_tokens,
    if(telemetry_taken('cache_read_tokens'), 0, r.cache_read_tokens) AS cache_read_tokens,
    if(telemetry_taken('cache_creation_tokens'), 0, r.cache_creation_tokens) AS cache_creation_tokens,
    if(telemetry_taken('cache_creation_5m_tokens'), 0, r.cache_creation_5m_tokens) AS cache_creation_5m_tokens,
    if(telemetry_taken('cache_creation_1h_tokens'), 0, r.cache_creation_1h_tokens) AS cache_creation_1h_tokens,
    r.web_searches AS web_searches,
    d.speed AS speed,
    d.service_tier AS service_tier,
    d.inference_geo AS inference_geo,
    d.stop_reason AS stop_reason,
    d.service_version AS service_version,
    d.entrypoint AS entrypoint,
    telemetry_ruled(salt, 'vcs.repository.name', extract(d.directory, '([^/\\\\]*)[/\\\\]*$')) AS project,
    d.branch AS branch,
    d.directory AS directory
FROM
(
    SELECT *, cityHash64(model, speed, service_tier, inference_geo, stop_reason, service_version, entrypoint, branch, directory) AS said
    FROM telemetry.read_requests
) AS r
LEFT JOIN
(
    SELECT
        said,
        toLowCardinality(anyIf(k.kept, n.place = 1)) AS model,
        toLowCardinality(anyIf(k.kept, n.place = 2)) AS speed,
        toLowCardinality(anyIf(k.kept, n.place = 3)) AS service_tier,
        toLowCardinality(anyIf(k.kept, n.place = 4)) AS inference_geo,
        toLowCardinality(anyIf(k.kept, n.place = 5)) AS stop_reason,
        toLowCardinality(anyIf(k.kept, n.place = 6)) AS service_version,
        toLowCardinality(anyIf(k.kept, n.place = 7)) AS entrypoint,
        toLowCardinality(anyIf(k.kept, n.place = 8)) AS branch,
        toLowCardinality(anyIf(k.kept, n.place = 9)) AS directory
    FROM names AS n
    INNER JOIN
    (
        SELECT name, place, telemetry_ruled(salt, called[place], telemetry_redact(name)) AS kept FROM (SELECT DISTINCT name, place FROM names)
    ) AS k ON n.name = k.name AND n.place = k.place
    GROUP BY said
) AS d
ON r.said = d.said;

CREATE TABLE telemetry.read_files
(
    file_id String, machine String, folder_id String, reader UInt16, size UInt64, modified_ns UInt64, session_id String, agent_id String,
    root_id String, requests UInt64, prompts UInt64, compactions UInt64, compaction_ids Array(UInt64), cleared Bool, directory String,
    started_at DateTime64(9, 'UTC'), ended_at DateTime64(9, 'UTC'), copied_until DateTime64(9, 'UTC'), cut_lines UInt64, unreadable_lines UInt64, long_lines UInt64, problem String
)
ENGINE = Null;

CREATE MATERIALIZED VIEW telemetry.transcript_files_mv TO telemetry.transcript_files AS
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt
SELECT
    extract(r.file_id, '^[0-9a-f]{32}$') AS file_id,
    extract(r.machine, '^[0-9a-f]{16}$') AS machine,
    extract(r.folder_id, '^[0-9a-f]{32}$') AS folder_id,
    now64(9) AS read_at,
    r.reader AS reader,
    r.size AS size,
    r.modified_ns AS modified_ns,
    telemetry_identifier(salt, r.session_id) AS session_id,
    telemetry_identifier(salt, r.agent_id) AS agent_id,
    extract(r.root_id, '^[0-9a-f]{32}$') AS root_id,
    r.requests AS requests,
    r.prompts AS prompts,
    r.compactions AS compactions,
    r.compaction_ids AS compaction_ids,
    r.cleared AS cleared,
    d.kept AS directory,
    r.started_at AS started_at,
    r.ended_at AS ended_at,
    r.copied_until AS copied_until,
    r.cut_lines AS cut_lines,
    r.unreadable_lines AS unreadable_lines,
    r.long_lines AS long_lines,
    telemetry_redact(r.problem) AS problem
FROM telemetry.read_files AS r
LEFT JOIN (SELECT directory, telemetry_ruled(salt, 'directory', telemetry_redact(directory)) AS kept FROM (SELECT DISTINCT directory FROM telemetry.read_files)) AS d
ON r.directory = d.directory;

-- Messages that stand in several files, or once with their request's id and once without: few do, and all others need no comparing.
CREATE VIEW telemetry.shared_messages AS
SELECT message_key FROM telemetry.transcript_copies GROUP BY message_key HAVING min(copy_key) != max(copy_key);

-- Of these (and of those without a message's id) each request once. Of the copies of its usage the most complete counts, as a whole; the
-- session is the one that first had it: not one that copied it, rather the session itself than a side question, then the one whose file
-- was the first to hold something that no copy has, and the one that ended first.
CREATE VIEW telemetry.shared_requests AS
WITH
    -- some versions leave the request's id out: a copy without one is a copy of the one with. Which messages these are, and their ids
    (
        SELECT (groupArray(message_key), groupArray(known_as))
        FROM
        (
            SELECT message_key, max(request_id) AS known_as FROM telemetry.transcript_copies
            WHERE message_key IN (SELECT message_key FROM telemetry.transcript_copies WHERE request_id = '' AND message_id != '')
            GROUP BY message_key
            HAVING known_as != ''
        )
    ) AS named
SELECT
    message_id, request_id, attempt,
    argMin(c.session_id, nth_first) AS session_id,
    argMin(c.file_id, nth_first) AS file_id,
    argMin(c.timestamp, nth_first) AS timestamp,
    argMin(c.prompt_id, nth_first) AS prompt_id,
    argMin(c.message_uuid, nth_first) AS message_uuid,
    argMin(c.agent_id, nth_first) AS agent_id,
    argMin(c.service_version, nth_first) AS service_version,
    argMin(c.entrypoint, nth_first) AS entrypoint,
    argMin(c.project, nth_first) AS project,
    argMin(c.branch, nth_first) AS branch,
    argMin(c.directory, nth_first) AS directory,
    argMax(c.attempts, nth_fullest) AS attempts,
    argMax(c.model, nth_fullest) AS model,
    argMax(c.input_tokens, nth_fullest) AS input_tokens,
    argMax(c.output_tokens, nth_fullest) AS output_tokens,
    argMax(c.cache_read_tokens, nth_fullest) AS cache_read_tokens,
    argMax(c.cache_creation_tokens, nth_fullest) AS cache_creation_tokens,
    argMax(c.cache_creation_5m_tokens, nth_fullest) AS cache_creation_5m_tokens,
    argMax(c.cache_creation_1h_tokens, nth_fullest) AS cache_creation_1h_tokens,
    argMax(c.web_searches, nth_fullest) AS web_searches,
    argMax(c.speed, nth_fullest) AS speed,
    argMax(c.service_tier, nth_fullest) AS service_tier,
    argMax(c.inference_geo, nth_fullest) AS inference_geo,
    argMax(c.stop_reason, nth_fullest) AS stop_reason,
    count() AS copies
FROM
(
    -- A rank is one number, for tuples and windows are slow: what counts most in its highest bits. Between equals the file's id decides.
    SELECT
        c.* EXCEPT (request_id),
        if(c.request_id = '' AND notEmpty(named.1), transform(c.message_key, named.1, named.2, ''), c.request_id) AS request_id,
        toUInt128(reinterpretAsUInt64(reverse(unhex(substring(c.file_id, 1, 16))))) AS file,
        bitShiftLeft(toUInt128(c.copied * 2 + (c.agent_id != '')), 125)
            + bitShiftLeft(toUInt128(greatest(toUnixTimestamp64Milli(f.copied_until), 0)), 83)
            + bitShiftLeft(toUInt128(greatest(toUnixTimestamp64Milli(f.ended_at), 0)), 41) + bitShiftRight(file, 23) AS nth_first,
        bitShiftLeft(toUInt128(c.stop_reason != ''), 127) + bitShiftLeft(toUInt128(c.output_tokens), 63) + bitShiftRight(file, 1) AS nth_fullest
    FROM
    (
        SELECT *, message_key FROM telemetry.transcript_copies FINAL
        PREWHERE message_id = '' OR message_key IN (SELECT message_key FROM telemetry.shared_messages)
    ) AS c
    LEFT JOIN
    (
        -- an earlier version did not note copied_until
        SELECT file_id, ended_at, if(t.copied_until = 0, ended_at, t.copied_until) AS copied_until FROM telemetry.transcript_files AS t FINAL
    ) AS f ON c.file_id = f.file_id
) AS c
GROUP BY message_id, request_id, attempt;

-- Each request once.
CREATE VIEW telemetry.transcript_requests AS
SELECT
    message_id, request_id, attempt, session_id, file_id, timestamp, prompt_id, message_uuid, agent_id, service_version, entrypoint, project,
    branch, directory, attempts, model, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cache_creation_5m_tokens,
    cache_creation_1h_tokens, web_searches, speed, service_tier, inference_geo, stop_reason, toUInt64(1) AS copies
FROM telemetry.transcript_copies FINAL
PREWHERE message_id != '' AND message_key NOT IN (SELECT message_key FROM telemetry.shared_messages)
UNION ALL
SELECT
    message_id, request_id, attempt, session_id, file_id, timestamp, prompt_id, message_uuid, agent_id, service_version, entrypoint, project,
    branch, directory, attempts, model, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cache_creation_5m_tokens,
    cache_creation_1h_tokens, web_searches, speed, service_tier, inference_geo, stop_reason, copies
FROM telemetry.shared_requests;

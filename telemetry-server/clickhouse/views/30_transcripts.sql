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
-- and is applied once to each distinct name of a block.
CREATE MATERIALIZED VIEW telemetry.transcript_copies_mv TO telemetry.transcript_copies AS
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt
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
    d.kept[1] AS agent_id,
    r.copied AS copied,
    r.lines AS lines,
    r.repeated_lines AS repeated_lines,
    d.kept[2] AS model,
    r.input_tokens AS input_tokens,
    r.output_tokens AS output_tokens,
    r.cache_read_tokens AS cache_read_tokens,
    r.cache_creation_tokens AS cache_creation_tokens,
    r.cache_creation_5m_tokens AS cache_creation_5m_tokens,
    r.cache_creation_1h_tokens AS cache_creation_1h_tokens,
    r.web_searches AS web_searches,
    d.kept[3] AS speed,
    d.kept[4] AS service_tier,
    d.kept[5] AS inference_geo,
    d.kept[6] AS stop_reason,
    d.kept[7] AS service_version,
    d.kept[8] AS entrypoint,
    extract(d.kept[10], '([^/\\\\]*)[/\\\\]*$') AS project,
    d.kept[9] AS branch,
    d.kept[10] AS directory
FROM
(
    SELECT *, sipHash128(agent_id, model, speed, service_tier, inference_geo, stop_reason, service_version, entrypoint, branch, directory) AS said
    FROM telemetry.read_requests
) AS r
LEFT JOIN
(
    SELECT said, arrayMap(placed -> placed.2, arraySort(groupArray((place, k.kept)))) AS kept
    FROM
    (
        SELECT DISTINCT
            sipHash128(agent_id, model, speed, service_tier, inference_geo, stop_reason, service_version, entrypoint, branch, directory) AS said,
            arrayJoin(arrayZip(range(1, 11),
                [toString(agent_id), toString(model), toString(speed), toString(service_tier), toString(inference_geo), toString(stop_reason),
                 toString(service_version), toString(entrypoint), toString(branch), toString(directory)])) AS named,
            named.1 AS place,
            named.2 AS name
        FROM telemetry.read_requests
    ) AS n
    INNER JOIN
    (
        SELECT name, telemetry_redact(name) AS kept
        FROM
        (
            SELECT DISTINCT
                arrayJoin([toString(agent_id), toString(model), toString(speed), toString(service_tier), toString(inference_geo), toString(stop_reason),
                           toString(service_version), toString(entrypoint), toString(branch), toString(directory)]) AS name
            FROM telemetry.read_requests
        )
    ) AS k
    ON n.name = k.name
    GROUP BY said
) AS d
ON r.said = d.said;

CREATE TABLE telemetry.read_files
(
    file_id String, machine String, folder_id String, reader UInt16, size UInt64, modified_ns UInt64, session_id String, agent_id String,
    requests UInt64, prompts UInt64, compactions UInt64, cleared Bool, directory String, started_at DateTime64(9, 'UTC'),
    ended_at DateTime64(9, 'UTC'), cut_lines UInt64, unreadable_lines UInt64, long_lines UInt64, problem String
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
    telemetry_redact(r.agent_id) AS agent_id,
    r.requests AS requests,
    r.prompts AS prompts,
    r.compactions AS compactions,
    r.cleared AS cleared,
    d.kept AS directory,
    r.started_at AS started_at,
    r.ended_at AS ended_at,
    r.cut_lines AS cut_lines,
    r.unreadable_lines AS unreadable_lines,
    r.long_lines AS long_lines,
    telemetry_redact(r.problem) AS problem
FROM telemetry.read_files AS r
LEFT JOIN (SELECT directory, telemetry_redact(directory) AS kept FROM (SELECT DISTINCT directory FROM telemetry.read_files)) AS d
ON r.directory = d.directory;

-- Messages that stand in several files, or once with their request's id and once without: few do, and all others need no comparing.
CREATE VIEW telemetry.shared_messages AS
SELECT message_id FROM telemetry.transcript_copies
GROUP BY message_id HAVING min(cityHash64(file_id, request_id)) != max(cityHash64(file_id, request_id));

-- Of these (and of those without a message's id) each request once. Of the copies of its usage the most complete counts, as a whole; the
-- session is the one that first had it: not one that copied it, rather the session itself than a side question, of two forks that can't
-- be told apart the older file.
CREATE VIEW telemetry.shared_requests AS
SELECT
    message_id, request_id, attempt,
    anyIf(c.session_id, nth_first = 1) AS session_id,
    anyIf(c.file_id, nth_first = 1) AS file_id,
    anyIf(c.timestamp, nth_first = 1) AS timestamp,
    anyIf(c.prompt_id, nth_first = 1) AS prompt_id,
    anyIf(c.message_uuid, nth_first = 1) AS message_uuid,
    anyIf(c.agent_id, nth_first = 1) AS agent_id,
    anyIf(c.service_version, nth_first = 1) AS service_version,
    anyIf(c.entrypoint, nth_first = 1) AS entrypoint,
    anyIf(c.project, nth_first = 1) AS project,
    anyIf(c.branch, nth_first = 1) AS branch,
    anyIf(c.directory, nth_first = 1) AS directory,
    anyIf(c.attempts, nth_fullest = 1) AS attempts,
    anyIf(c.model, nth_fullest = 1) AS model,
    anyIf(c.input_tokens, nth_fullest = 1) AS input_tokens,
    anyIf(c.output_tokens, nth_fullest = 1) AS output_tokens,
    anyIf(c.cache_read_tokens, nth_fullest = 1) AS cache_read_tokens,
    anyIf(c.cache_creation_tokens, nth_fullest = 1) AS cache_creation_tokens,
    anyIf(c.cache_creation_5m_tokens, nth_fullest = 1) AS cache_creation_5m_tokens,
    anyIf(c.cache_creation_1h_tokens, nth_fullest = 1) AS cache_creation_1h_tokens,
    anyIf(c.web_searches, nth_fullest = 1) AS web_searches,
    anyIf(c.speed, nth_fullest = 1) AS speed,
    anyIf(c.service_tier, nth_fullest = 1) AS service_tier,
    anyIf(c.inference_geo, nth_fullest = 1) AS inference_geo,
    anyIf(c.stop_reason, nth_fullest = 1) AS stop_reason,
    count() AS copies
FROM
(
    SELECT
        *,
        row_number() OVER (PARTITION BY message_id, request_id, attempt ORDER BY copied, agent_id != '', file_started_at, file_id) AS nth_first,
        row_number() OVER (PARTITION BY message_id, request_id, attempt ORDER BY stop_reason != '' DESC, output_tokens DESC, file_id DESC) AS nth_fullest
    FROM
    (
        SELECT c.* EXCEPT (request_id), f.started_at AS file_started_at,
            -- some versions leave the request's id out: a copy without one is a copy of the one with
            if(c.request_id = '' AND c.message_id != '', max(c.request_id) OVER (PARTITION BY c.message_id), c.request_id) AS request_id
        FROM telemetry.transcript_copies AS c FINAL
        LEFT JOIN (SELECT file_id, started_at FROM telemetry.transcript_files FINAL) AS f ON c.file_id = f.file_id
        WHERE c.message_id = '' OR c.message_id IN (SELECT message_id FROM telemetry.shared_messages)
    )
) AS c
GROUP BY message_id, request_id, attempt;

-- Each request once.
CREATE VIEW telemetry.transcript_requests AS
SELECT
    message_id, request_id, attempt, session_id, file_id, timestamp, prompt_id, message_uuid, agent_id, service_version, entrypoint, project,
    branch, directory, attempts, model, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cache_creation_5m_tokens,
    cache_creation_1h_tokens, web_searches, speed, service_tier, inference_geo, stop_reason, toUInt64(1) AS copies
FROM telemetry.transcript_copies FINAL
WHERE message_id != '' AND message_id NOT IN (SELECT message_id FROM telemetry.shared_messages)
UNION ALL
SELECT
    message_id, request_id, attempt, session_id, file_id, timestamp, prompt_id, message_uuid, agent_id, service_version, entrypoint, project,
    branch, directory, attempts, model, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cache_creation_5m_tokens,
    cache_creation_1h_tokens, web_searches, speed, service_tier, inference_geo, stop_reason, copies
FROM telemetry.shared_requests;

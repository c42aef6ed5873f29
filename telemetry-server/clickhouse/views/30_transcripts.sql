-- What a reader of transcripts hands over -> transcript_copies and transcript_files, under the same policy as events. What is handed over
-- lands in Null tables, so a name or a path that the policy does not allow never reaches the disk.
CREATE TABLE telemetry.read_requests
(
    file_id String, message_id String, request_id String, attempt UInt8, attempts UInt8, timestamp DateTime64(9, 'UTC'), session_id String,
    prompt_id String, message_uuid String, agent_id String, copied Bool, lines UInt32, repeated_lines UInt32, model String,
    input_tokens UInt64, output_tokens UInt64, cache_read_tokens UInt64, cache_creation_tokens UInt64, cache_creation_5m_tokens UInt64,
    cache_creation_1h_tokens UInt64, web_searches UInt32, speed String, service_tier String, inference_geo String, stop_reason String, service_version String,
    entrypoint String, branch String, directory String
)
ENGINE = Null;

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
    telemetry_redact(r.agent_id) AS agent_id,
    r.copied AS copied,
    r.lines AS lines,
    r.repeated_lines AS repeated_lines,
    telemetry_redact(r.model) AS model,
    r.input_tokens AS input_tokens,
    r.output_tokens AS output_tokens,
    r.cache_read_tokens AS cache_read_tokens,
    r.cache_creation_tokens AS cache_creation_tokens,
    r.cache_creation_5m_tokens AS cache_creation_5m_tokens,
    r.cache_creation_1h_tokens AS cache_creation_1h_tokens,
    r.web_searches AS web_searches,
    telemetry_redact(r.speed) AS speed,
    telemetry_redact(r.service_tier) AS service_tier,
    telemetry_redact(r.inference_geo) AS inference_geo,
    telemetry_redact(r.stop_reason) AS stop_reason,
    telemetry_redact(r.service_version) AS service_version,
    telemetry_redact(r.entrypoint) AS entrypoint,
    extract(d.kept, '([^/\\\\]*)[/\\\\]*$') AS project,
    telemetry_redact(r.branch) AS branch,
    d.kept AS directory
FROM telemetry.read_requests AS r
-- a home in a path costs the policy 0.7 ms, and few directories have many requests
LEFT JOIN (SELECT directory, telemetry_redact(directory) AS kept FROM (SELECT DISTINCT directory FROM telemetry.read_requests)) AS d
ON r.directory = d.directory;

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

-- Each request once. Of the copies of its usage the most complete counts, as a whole; the session is the one that first had it: not one
-- that copied it, rather the session itself than a side question, of two forks that can't be told apart the older file.
CREATE VIEW telemetry.transcript_requests AS
SELECT
    message_id,
    request_id,
    attempt,
    tupleElement(first, 'session_id') AS session_id,
    tupleElement(first, 'file_id') AS file_id,
    tupleElement(first, 'timestamp') AS timestamp,
    tupleElement(first, 'prompt_id') AS prompt_id,
    tupleElement(first, 'message_uuid') AS message_uuid,
    tupleElement(first, 'agent_id') AS agent_id,
    tupleElement(first, 'service_version') AS service_version,
    tupleElement(first, 'entrypoint') AS entrypoint,
    tupleElement(first, 'project') AS project,
    tupleElement(first, 'branch') AS branch,
    tupleElement(first, 'directory') AS directory,
    tupleElement(fullest, 'attempts') AS attempts,
    tupleElement(fullest, 'model') AS model,
    tupleElement(fullest, 'input_tokens') AS input_tokens,
    tupleElement(fullest, 'output_tokens') AS output_tokens,
    tupleElement(fullest, 'cache_read_tokens') AS cache_read_tokens,
    tupleElement(fullest, 'cache_creation_tokens') AS cache_creation_tokens,
    tupleElement(fullest, 'cache_creation_5m_tokens') AS cache_creation_5m_tokens,
    tupleElement(fullest, 'cache_creation_1h_tokens') AS cache_creation_1h_tokens,
    tupleElement(fullest, 'web_searches') AS web_searches,
    tupleElement(fullest, 'speed') AS speed,
    tupleElement(fullest, 'service_tier') AS service_tier,
    tupleElement(fullest, 'inference_geo') AS inference_geo,
    tupleElement(fullest, 'stop_reason') AS stop_reason,
    copies
FROM
(
    SELECT
        message_id, request_id, attempt,
        argMin(CAST((session_id, file_id, timestamp, prompt_id, message_uuid, agent_id, service_version, entrypoint, project, branch, directory),
            'Tuple(session_id String, file_id String, timestamp DateTime64(9, ''UTC''), prompt_id String, message_uuid String, agent_id String,
             service_version String, entrypoint String, project String, branch String, directory String)'),
            (copied, agent_id != '', file_started_at, file_id)) AS first,
        argMax(CAST((attempts, model, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cache_creation_5m_tokens,
             cache_creation_1h_tokens, web_searches, speed, service_tier, inference_geo, stop_reason),
            'Tuple(attempts UInt8, model String, input_tokens UInt64, output_tokens UInt64, cache_read_tokens UInt64, cache_creation_tokens UInt64,
             cache_creation_5m_tokens UInt64, cache_creation_1h_tokens UInt64, web_searches UInt32, speed String, service_tier String,
             inference_geo String, stop_reason String)'),
            (stop_reason != '', output_tokens, file_id)) AS fullest,
        count() AS copies
    FROM
    (
        SELECT c.* EXCEPT (request_id), f.started_at AS file_started_at,
            -- some versions leave the request's id out: a copy without one is a copy of the one with
            if(c.request_id = '' AND c.message_id != '', max(c.request_id) OVER (PARTITION BY c.message_id), c.request_id) AS request_id
        FROM telemetry.transcript_copies AS c FINAL
        LEFT JOIN (SELECT file_id, started_at FROM telemetry.transcript_files FINAL) AS f ON c.file_id = f.file_id
    )
    GROUP BY message_id, request_id, attempt
);

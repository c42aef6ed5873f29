-- session_links: which session goes on with which, made anew from all transcripts that are known.
--
-- A fork (and in older versions every resumed session) is a new session whose file begins with the history of another, under its own
-- session id: the same requests, so their owner is the session that it follows; of several the one of the last such request.
-- /clear begins a new session, in the same folder, and says not where: it is taken to follow the one that made the last request before.
-- A link that is not found any more becomes one of the session with itself, of no kind.
INSERT INTO telemetry.session_links
WITH RECURSIVE
    forks AS
    (
        SELECT c.session_id AS session_id, 'forked' AS kind, argMax(r.session_id, r.timestamp) AS follows
        FROM telemetry.transcript_copies AS c FINAL
        INNER JOIN telemetry.shared_requests AS r ON c.message_id = r.message_id AND c.request_id = r.request_id AND c.attempt = r.attempt
        WHERE c.agent_id = '' AND c.session_id != r.session_id
        GROUP BY c.session_id
    ),
    sessions AS
    (
        SELECT
            session_id, any(f.machine) AS machine, any(f.folder_id) AS folder_id, max(f.cleared) AS cleared,
            min(f.started_at) AS started_at, max(f.ended_at) AS ended_at
        FROM telemetry.transcript_files AS f FINAL
        WHERE agent_id = '' AND f.started_at > toDateTime64(0, 9, 'UTC')
        GROUP BY session_id
    ),
    asked AS
    (
        SELECT f.machine AS machine, f.folder_id AS folder_id, c.session_id AS session_id, c.timestamp AS timestamp
        FROM telemetry.transcript_copies AS c FINAL
        INNER JOIN (SELECT file_id, machine, folder_id FROM telemetry.transcript_files FINAL WHERE agent_id = '') AS f ON c.file_id = f.file_id
        WHERE c.agent_id = '' AND NOT c.copied AND f.folder_id IN (SELECT folder_id FROM sessions WHERE cleared)
    ),
    cleared AS
    (
        SELECT new.session_id AS session_id, 'cleared' AS kind, old.session_id AS follows
        FROM (SELECT * FROM sessions WHERE cleared) AS new
        ASOF INNER JOIN asked AS old
        ON new.machine = old.machine AND new.folder_id = old.folder_id AND new.started_at >= old.timestamp
        WHERE old.session_id != new.session_id AND old.timestamp > new.started_at - INTERVAL 1 DAY
    ),
    -- of a session that was both, the fork; as a value, or each step of the walk would find them anew
    (
        SELECT groupArray(link)
        FROM
        (
            SELECT session_id, argMax((session_id, kind, follows), kind = 'forked') AS link
            FROM (SELECT * FROM forks UNION ALL SELECT * FROM cleared)
            GROUP BY session_id
        )
    ) AS found,
    links AS (SELECT tupleElement(link, 1) AS session_id, tupleElement(link, 2) AS kind, tupleElement(link, 3) AS follows FROM (SELECT arrayJoin(found) AS link)),
    walks AS
    (
        SELECT session_id, follows AS at, 1 AS steps FROM links
        UNION ALL
        SELECT walks.session_id, links.follows, walks.steps + 1
        FROM walks INNER JOIN links ON walks.at = links.session_id
        WHERE walks.steps < 500
    )
SELECT links.session_id, links.kind, links.follows, first.at, now64(9)
FROM links
INNER JOIN (SELECT session_id, argMax(at, steps) AS at FROM walks GROUP BY session_id) AS first ON links.session_id = first.session_id
UNION ALL
SELECT session_id, '', '', session_id, now64(9)
FROM telemetry.session_links FINAL
WHERE kind != '' AND session_id NOT IN (SELECT session_id FROM links)

-- What the last audit found: a row for each session, model, version, side and reason. `sp-telemetry audit` reads the transcripts and
-- matches each request (transcripts/matched.sql) before it asks this.
--
--   session                 the whole name; empty: all
--   audited_at              which audit; empty: the last
--   grace                   seconds in which an event may still be under way: 60
--   flawed                  versions of Claude Code that are known to lose events, with commas between
--   details                 how many requests to name in each row
--
-- side     both; telemetry: no transcript has it; transcript: no event tells of it
-- reason   why only one side has it; of both: what differs, empty where model and all tokens agree
-- filled   of side transcript: it was filled in from there (source = transcript), and so counts
WITH
    -- what Claude Code asks a model beside the conversation, which no transcript holds: its own words in 2.1.197 to 2.1.332, and in its documentation
    [
        'agent_classifier', 'agent_creation', 'agent_namer', 'agent_summary', 'artifact_comment_analyst', 'artifact_comment_fast_ack',
        'artifact_comment_reply', 'artifact_comment_triage', 'auto_dream', 'auto_mode', 'auto_mode_critique', 'auto_mode_setup_propose', 'auxiliary',
        'away_summary', 'bash_extract_prefix', 'compact', 'comparison_fork', 'context_tip_classifier', 'context_tip_reception', 'extract_memories',
        'extract_memories_first_look', 'feedback', 'first_tasks_read', 'fleet_agent_suggestions', 'generate_session_title', 'hook_agent', 'hook_prompt',
        'insights', 'mcp_datetime_parse', 'model_validation', 'permission_explainer', 'plugin_eval_judge', 'plugin_eval_mock', 'prompt_suggestion',
        'rename_generate_name', 'repl_sampling', 'resume_cache_warm', 'session_memory', 'session_search', 'ship_pr_texts', 'side_question', 'speculation',
        'subagent_config_classifier', 'summary', 'teleport_generate_title', 'title', 'tool_use_summary_generation', 'verification', 'web_fetch_apply',
        'web_search_tool'
    ] AS auxiliary,
    if({audited_at:String} = '', (SELECT max(audited_at) FROM telemetry.audit_findings), parseDateTime64BestEffort({audited_at:String}, 9, 'UTC')) AS last,
    (SELECT min(first_at) FROM telemetry.audit_findings WHERE audited_at = last) AS since,
    found AS
    (
        SELECT * FROM telemetry.audit_findings
        WHERE audited_at = last AND if({session:String} = '', true, session_id = {session:String})
    ),
    -- what may explain a request that no event tells of
    (
        SELECT arraySort(groupArray((started_at,
            if(ended OR started_at < (SELECT max(started_at) FROM telemetry.server_runs), seen_at, toDateTime64('2200-01-01 00:00:00', 3, 'UTC')))))
        FROM telemetry.server_runs FINAL
    ) AS runs,
    told AS
    (
        SELECT
            session_id AS told_session,
            groupUniqArray(prompt_id) AS prompts,
            groupUniqArray(request_id) AS requests_named, -- by tools, say, that ran before the answer was whole
            max(provider = 'foundry') AS on_foundry,
            groupArrayIf((before_at, timestamp), number != before + 1 AND number != 0) AS gaps,
            groupArrayIf((timestamp, after_at), after <= number) AS ends -- of its processes: the last event, the first of the next one
        FROM
        (
            SELECT
                session_id, prompt_id, request_id, timestamp, toInt64(assumeNotNull(event_sequence)) AS number,
                attributes['anthropic.provider'] AS provider,
                lagInFrame(number, 1, toInt64(-1)) OVER w AS before,
                lagInFrame(timestamp, 1, toDateTime64(0, 9, 'UTC')) OVER w AS before_at,
                leadInFrame(number, 1, toInt64(-1)) OVER w AS after,
                leadInFrame(timestamp, 1, toDateTime64('2200-01-01 00:00:00', 9, 'UTC')) OVER w AS after_at
            FROM telemetry.telemetry_events FINAL
            WHERE session_id IN (SELECT session_id FROM found WHERE side = 'transcript') AND event_sequence IS NOT NULL AND source = 'otlp'
              AND timestamp >= since - INTERVAL 7 DAY
            WINDOW w AS (PARTITION BY session_id ORDER BY timestamp, event_sequence ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)
        )
        GROUP BY session_id
    ),
    filled_in AS
    (
        SELECT event_id FROM telemetry.telemetry_events FINAL
        WHERE event_type = 'api_request' AND source = 'transcript' AND timestamp >= since - INTERVAL 1 HOUR
          AND session_id IN (SELECT session_id FROM found WHERE side = 'transcript')
    ),
    -- what may explain an event that no transcript tells of
    kept AS
    (
        SELECT
            session_id AS kept_session,
            groupArray(agent_id) AS agents,
            groupArrayIf((agent_id, until), is_gone) AS gone,
            max(is_damaged) AS damaged
        FROM
        (
            -- one may be gone and there under another name: its folder was renamed
            SELECT
                session_id, agent_id, max(ended_at) AS until, min(gone_at) > toDateTime64(0, 9, 'UTC') AS is_gone,
                sum(cut_lines + unreadable_lines + long_lines) > 0 OR max(problem) != '' AS is_damaged
            FROM telemetry.transcript_files FINAL
            WHERE session_id IN (SELECT session_id FROM found WHERE side = 'telemetry')
            GROUP BY session_id, agent_id
        )
        GROUP BY session_id
    ),
    explained AS
    (
        SELECT
            f.*,
            f.service_version AS version,
            -- clocks differ; but what is from tomorrow is not under way
            f.first_at > now64(9) - toIntervalSecond({grace:UInt32}) AND f.first_at < now64(9) + INTERVAL 1 HOUR AS young,
            query_source = 'subagent' OR startsWith(query_source, 'agent:') AS of_agent, -- older versions don't say of which
            -- what Claude Code reported as a multiple of what the price list says; 1 where both say the same
            if(side = 'both' AND finding != 0 AND f.telemetry_tokens = f.transcript_tokens AND transcript_usd > 0, telemetry_usd / transcript_usd, 1) AS cost_factor,
    multiIf(
                side = 'both', multiIf(
                    mark = 'other model', 'models differ',
                    f.telemetry_tokens = f.transcript_tokens, '',
                    mark = 'several attempts', 'billed for several attempts',
                    mark = 'unfinished' AND young, 'not yet written', -- Claude Code writes transcripts in its own time
                    mark = 'unfinished', 'last line not written',
                    'tokens differ'),
                side = 'transcript', multiIf(
                    young, 'not yet exported',
                    notEmpty(runs) AND f.first_at >= runs[1].1 AND NOT arrayExists(run -> run.1 <= f.first_at AND run.2 >= f.first_at + INTERVAL 10 SECOND, runs), 'server down then',
                    arrayExists(gap -> gap.1 - INTERVAL 1 SECOND <= f.first_at AND f.first_at <= gap.2 + INTERVAL 1 SECOND, told.gaps), 'sequence gap',
                    NOT has(told.prompts, f.prompt_id) OR empty(runs) OR f.first_at < runs[1].1, 'telemetry off then',
                    told.on_foundry, 'on Microsoft Foundry',
                    -- Claude Code tells of a request when its answer is whole, and not if it is broken off before
                    mark = 'unfinished' OR f.request_id != '' AND has(told.requests_named, f.request_id), 'interrupted',
                    has(splitByChar(',', {flawed:String}), version), 'version known to misreport',
                    arrayExists(end -> end.1 <= f.first_at AND f.first_at < end.2, told.ends), 'last events lost',
                    'unknown'),
                multiIf(
                    query_source IN auxiliary, 'auxiliary',
                    NOT (query_source IN ('', 'sdk', 'main', 'subagent') OR startsWith(query_source, 'repl_main_thread') OR startsWith(query_source, 'agent:')), 'of an unknown kind',
                    young, 'not yet written',
                    NOT has(kept.agents, f.agent_id)
                        OR arrayExists(file -> f.first_at > file.2 AND (file.1 = f.agent_id OR f.agent_id = '' AND of_agent), kept.gone),
                        'transcript deleted',
                    kept.damaged, 'transcript unreadable',
                    'unknown')) AS reason,
            side = 'transcript' -- by the key of its row (maintenance/backfill.sql)
                AND sipHash64('transcript', if(f.message_id != '', f.message_id, f.request_id), 0) IN (SELECT event_id FROM filled_in) AS filled
        FROM found AS f
        LEFT JOIN told ON f.session_id = told.told_session
        LEFT JOIN kept ON f.session_id = kept.kept_session
    )
SELECT
    session_id, model, version, side, reason, filled,
    sum(e.requests) AS requests,
    min(e.first_at) AS first_at,
    max(e.last_at) AS last_at,
    sum(e.telemetry_usd) AS telemetry_usd,
    sum(e.transcript_usd) AS transcript_usd, -- of those whose price is known
    sum(e.unpriced) AS unpriced,
    (sum(e.telemetry_tokens.1), sum(e.telemetry_tokens.2), sum(e.telemetry_tokens.3), sum(e.telemetry_tokens.4)) AS telemetry_tokens,
    (sum(e.transcript_tokens.1), sum(e.transcript_tokens.2), sum(e.transcript_tokens.3), sum(e.transcript_tokens.4)) AS transcript_tokens,
    countIf(e.cost_factor != 1) AS other_costs,
    minIf(e.cost_factor, e.cost_factor != 1) AS least_factor,
    maxIf(e.cost_factor, e.cost_factor != 1) AS most_factor,
    sumIf(e.telemetry_usd - e.transcript_usd, side = 'both' AND e.unpriced = 0) AS cost_differs_usd,
    sumIf(abs(e.telemetry_usd - e.transcript_usd), side = 'both' AND e.unpriced = 0) AS cost_apart_usd, -- where more and less do not cancel
    arraySlice(arraySort(groupArrayIf((e.first_at, e.request_id, e.message_id, e.query_source, e.telemetry_tokens, e.transcript_tokens,
        e.telemetry_usd, e.transcript_usd), finding != 0 AND {details:UInt32} != 0)), 1, {details:UInt32}) AS details
FROM explained AS e
GROUP BY session_id, model, version, side, reason, filled
ORDER BY first_at, session_id, model, version, side, reason, filled

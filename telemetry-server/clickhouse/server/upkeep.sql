-- What the embedded server does beside its engine (src/sp_telemetry/serve/upkeep.py), on a server: views that refresh themselves and add
-- what the statements of ../maintenance/ find. Made by `sp-telemetry migrate` on a real server only. {{file | name: value, …}} stands for
-- that file's SELECT with these values in place of its parameters: what was looked at last is told by the tables themselves. Each may run
-- at any time, twice, or after a pause of any length; `system.view_refreshes` tells when each last ran, and why it failed.

-- Late context, soon; what a pause or a slow insert kept from being seen, within the hour.
CREATE MATERIALIZED VIEW telemetry.upkeep_contexts
REFRESH EVERY 10 SECOND APPEND TO telemetry.telemetry_events AS
{{reattribute | since: now64(9) - toIntervalMinute(5)}};

CREATE MATERIALIZED VIEW telemetry.upkeep_contexts_hourly
REFRESH EVERY 1 HOUR APPEND TO telemetry.telemetry_events AS
{{reattribute | since: (SELECT max(received_at) - toIntervalDay(1) FROM telemetry.session_context)}};

-- Requests that were filled in from transcripts and whose events came after all: at once for ids that arrived lately; all of them, and
-- those without an id, within the hour.
CREATE MATERIALIZED VIEW telemetry.upkeep_backfill
REFRESH EVERY 10 SECOND APPEND TO telemetry.telemetry_events AS
WITH
    arrived AS
    (
        SELECT request_id FROM telemetry.telemetry_events
        WHERE received_at >= now64(9) - toIntervalMinute(5) AND event_type = 'api_request' AND source = 'otlp'
            AND request_id IN (SELECT request_id FROM telemetry.backfilled_requests WHERE request_id != '')
    ),
    (SELECT count() FROM arrived) AS any_arrived
SELECT
    * REPLACE
    (
        now64(9) AS received_at,
        greatest(4000000000000000000 + toUInt64(toUnixTimestamp64Nano(now64(9))), version + 1) AS version,
        1 AS is_deleted
    )
FROM telemetry.telemetry_events FINAL
WHERE event_type = 'api_request' AND source = 'transcript' AND request_id IN arrived
    AND (any_arrived = 0 OR (attributes['message.id'], request_id) NOT IN (SELECT message_id, request_id FROM telemetry.surplus_requests))
SETTINGS do_not_merge_across_partitions_select_final = 1, final = 0;

CREATE MATERIALIZED VIEW telemetry.upkeep_backfill_hourly
REFRESH EVERY 1 HOUR APPEND TO telemetry.telemetry_events AS
{{cancel_backfilled | by_id: false}};

CREATE MATERIALIZED VIEW telemetry.upkeep_backfill_alike
REFRESH EVERY 10 MINUTE APPEND TO telemetry.telemetry_events AS
{{cancel_alike}};

CREATE MATERIALIZED VIEW telemetry.upkeep_sessions
REFRESH EVERY 30 SECOND APPEND TO telemetry.session_summaries AS
{{sessions | since: now64(9)}};

CREATE MATERIALIZED VIEW telemetry.upkeep_sessions_emptied
REFRESH EVERY 10 MINUTE APPEND TO telemetry.session_summaries AS
{{forget_emptied}};

CREATE MATERIALIZED VIEW telemetry.upkeep_usage
REFRESH EVERY 30 SECOND APPEND TO telemetry.usage_hourly AS
{{usage | since: now64(9)}};

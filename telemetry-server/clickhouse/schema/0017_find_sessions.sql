-- A session's trace is found by its id. Of a hundred granules without it the filter let one through, and there are a hundred times as many
-- of them as of its own: half of what a trace read was of others. One of ten thousand takes as little disk.
-- What is there follows in the background, also over a start; until then a part without either filter is looked through.
ALTER TABLE telemetry.telemetry_events ADD INDEX IF NOT EXISTS by_session_id session_id TYPE bloom_filter(0.0001) GRANULARITY 1;
ALTER TABLE telemetry.telemetry_events MATERIALIZE INDEX by_session_id SETTINGS mutations_sync = 0;
ALTER TABLE telemetry.telemetry_events DROP INDEX IF EXISTS by_session SETTINGS alter_sync = 0;

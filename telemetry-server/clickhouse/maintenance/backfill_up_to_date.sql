-- Whether the last run of backfill left nothing to do for {machine} since {since}: no transcript was read and no price loaded after
-- it began, nothing was taken back since, no event deleted (by a mutation, whose time has no fractions), and none came of a session with
-- rows that were filled in: it may be the prompt of one, or whose they are.
SELECT count() FROM telemetry.backfill_runs AS r FINAL
WHERE machine = {machine:String} AND r.since <= {since:DateTime64(9, 'UTC')} AND NOT r.removed
    AND r.prices = (SELECT max(loaded_at) FROM telemetry.model_prices)
    AND r.run > (SELECT toUnixTimestamp64Nano(max(read_at)) FROM telemetry.transcript_files WHERE machine = {machine:String})
    AND r.run > (SELECT max(if(removed, run, 0)) FROM telemetry.backfill_runs)
    AND fromUnixTimestamp64Nano(toInt64(r.run)) > (SELECT max(create_time) + INTERVAL 1 SECOND FROM system.mutations
        WHERE database = 'telemetry' AND table = 'telemetry_events')
    AND r.run > (SELECT toUnixTimestamp64Nano(max(received_at)) FROM telemetry.telemetry_events
        WHERE source = 'otlp' AND session_id IN (SELECT session_id FROM telemetry.backfilled_requests));

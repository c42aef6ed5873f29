-- Remembers that a run of backfill came to its end.
INSERT INTO telemetry.backfill_runs
SELECT
    {machine:String}, {run:UInt64}, {since:DateTime64(9, 'UTC')}, (SELECT max(loaded_at) FROM telemetry.model_prices), {removed:Bool};

-- Where a range of time begins and ends that `from` and `to` of a query name: moments, or days in the time zone `tz`, of which the last one
-- counts whole. Where they are empty: 30 days ago at midnight, and no end.
--
-- A day begins at its first moment, which is that of a date: as a text, the engine reads 0:00 of a day whose clocks go forward at midnight
-- (Cairo, Havana, Santiago) as 23:00 of the one before. The same is written twice, for an error within a function that another one calls
-- (an empty text is no moment) makes the engine take its next call for a recursion, also where nobody asks for that branch.
CREATE OR REPLACE FUNCTION telemetry_since AS (text, tz) ->
    multiIf(text = '', toStartOfDay(now(tz)) - INTERVAL 30 DAY,
            match(text, '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'), toDateTime64(toDate32(parseDateTime64BestEffort(text, 9, 'UTC')), 9, tz),
            parseDateTime64BestEffort(text, 9, tz));
CREATE OR REPLACE FUNCTION telemetry_until AS (text, tz) ->
    multiIf(text = '', toDateTime64('2200-01-01 00:00:00', 9, 'UTC'),
            match(text, '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'), toDateTime64(toDate32(parseDateTime64BestEffort(text, 9, 'UTC')) + 1, 9, tz),
            parseDateTime64BestEffort(text, 9, tz));

-- Since when every event that came is there; hours before are in usage_hourly alone. Six hours before events go, so that no hour is summed up,
-- nor shown, of which some have gone already.
CREATE VIEW telemetry.events_kept AS
SELECT greatest(lost_before, if(days = 0, toDateTime(0, 'UTC'), toStartOfHour(now('UTC') - toIntervalHour(24 * days - 6)))) AS since
FROM telemetry.event_retention FINAL;

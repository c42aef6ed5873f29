-- Where a range of time begins and ends that `from` and `to` of a query name: moments, or days in the time zone `tz`, of which the last one
-- counts whole. Where they are empty: 30 days ago at midnight, and no end.

-- A day begins at its first moment. The engine reads 0:00 of a day whose clocks go forward at midnight (Cairo, Havana, Santiago) as 23:00 of
-- the one before.
CREATE OR REPLACE FUNCTION telemetry_day AS (text, days, tz) -> toDateTime64(toDate32(parseDateTime64BestEffort(text, 9, 'UTC')) + days, 9, tz);
CREATE OR REPLACE FUNCTION telemetry_since AS (text, tz) ->
    multiIf(text = '', toStartOfDay(now(tz)) - INTERVAL 30 DAY,
            match(text, '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'), telemetry_day(text, 0, tz),
            parseDateTime64BestEffort(text, 9, tz));
CREATE OR REPLACE FUNCTION telemetry_until AS (text, tz) ->
    multiIf(text = '', toDateTime64('2200-01-01 00:00:00', 9, 'UTC'),
            match(text, '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'), telemetry_day(text, 1, tz),
            parseDateTime64BestEffort(text, 9, tz));

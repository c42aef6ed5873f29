-- What one insert brings stays one file. By default a part of more than 10 MB, uncompressed, has two files for each of its 75 columns, and
-- under load making and fsyncing those is a tenth of the work; merged they come to more than this, and have them then.
ALTER TABLE telemetry.telemetry_events MODIFY SETTING min_bytes_for_wide_part = 67108864;

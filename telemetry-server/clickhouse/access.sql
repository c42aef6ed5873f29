-- What each user must be able to do, and what it must not: `sp-telemetry doctor --server` tries every statement on the server in use.
-- Should one be allowed that must not be, it shows no data and leaves at most an empty table or a function of no use.
-- server: on a ClickHouse server; the embedded one has no such thing, or needs none.

-- telemetry_reader may
SELECT count() FROM telemetry.telemetry_events;
SELECT count() FROM telemetry.session_summaries;
SELECT count() FROM telemetry.prices;
SELECT name FROM system.tables WHERE database = 'telemetry';
SELECT max(version) FROM telemetry.telemetry_events SETTINGS max_execution_time = 10, max_memory_usage = 500000000;

-- telemetry_reader may not
SELECT count() FROM telemetry.installation WHERE 0;
INSERT INTO telemetry.session_context (session_id) SELECT 'x' WHERE 0;
INSERT INTO telemetry.otel_logs (Body) SELECT 'x' WHERE 0;
ALTER TABLE telemetry.session_context DELETE WHERE 0;
DELETE FROM telemetry.session_context WHERE 0;
TRUNCATE TABLE telemetry.otel_logs;
CREATE TABLE telemetry.made_by_reader (a Int8) ENGINE = Memory;
CREATE VIEW telemetry.made_by_reader AS SELECT 1;
OPTIMIZE TABLE telemetry.schema_migrations;
CREATE FUNCTION made_by_reader AS (x) -> x;
SELECT * FROM url('http://127.0.0.1:9/', 'TSV', 'a String') WHERE 0;
SELECT * FROM file('no_such_file', 'TSV', 'a String') WHERE 0;
SELECT * FROM remote('127.0.0.1', 'telemetry.installation') WHERE 0;
SELECT * FROM system.users WHERE 0;
SELECT 1 SETTINGS max_execution_time = 3600;
SELECT 1 SETTINGS max_execution_time = 0;
SELECT 1 SETTINGS max_memory_usage = 0;
SELECT 1 SETTINGS max_memory_usage = 100000000000;
SELECT 1 SETTINGS readonly = 0;

-- telemetry_user may
INSERT INTO telemetry.otel_logs (Body) SELECT 'x' WHERE 0;
ALTER TABLE telemetry.session_context DELETE WHERE 0;
OPTIMIZE TABLE telemetry.schema_migrations;

-- telemetry_user may, server
SELECT count() FROM telemetry.installation WHERE 0;
SELECT count() FROM system.view_refreshes WHERE database = 'telemetry';
CREATE OR REPLACE FUNCTION telemetry_doctor AS (x) -> x;
DROP FUNCTION telemetry_doctor;
CREATE TABLE IF NOT EXISTS telemetry.doctor (a Int8) ENGINE = Null;
DROP TABLE telemetry.doctor;

-- telemetry_user may not
SELECT * FROM url('http://127.0.0.1:9/', 'TSV', 'a String') WHERE 0;
SELECT * FROM file('no_such_file', 'TSV', 'a String') WHERE 0;
SELECT * FROM remote('127.0.0.1', 'telemetry.installation') WHERE 0;
CREATE USER made_by_user IDENTIFIED WITH no_password;
GRANT SELECT ON *.* TO telemetry_reader;
SYSTEM DROP DNS CACHE;

-- telemetry_user may not, server
CREATE DATABASE IF NOT EXISTS made_by_user;

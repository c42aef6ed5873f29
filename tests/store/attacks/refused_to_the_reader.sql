INSERT INTO telemetry.session_context (session_id) VALUES ('x')
INSERT INTO telemetry.session_context (session_id) SELECT 'x'
SELECT * FROM system.mutations
SELECT command FROM system . `mutations`
SELECT 1 SETTINGS max_threads = 1000000
SELECT 1 SETTINGS max_block_size = 1 SETTINGS max_memory_usage = 0
WITH 1 AS x INSERT INTO telemetry.session_context (session_id) SELECT toString(x)
EXPLAIN INSERT INTO telemetry.session_context (session_id) SELECT 'x' SETTINGS readonly = 0
CREATE OR REPLACE VIEW telemetry.telemetry_events AS SELECT 1
DROP TABLE IF EXISTS telemetry.telemetry_events SYNC
ALTER TABLE telemetry.telemetry_events ADD COLUMN x Int8
ALTER TABLE telemetry.telemetry_events DROP PARTITION ID 'all'
EXCHANGE TABLES telemetry.telemetry_events AND telemetry.session_context
CREATE DATABASE IF NOT EXISTS d
CREATE TABLE telemetry.t (a Int8) ENGINE = Memory
CREATE TEMPORARY TABLE t (a Int8)
CREATE VIEW telemetry.t AS SELECT 1
ALTER TABLE telemetry.session_context DELETE WHERE 1
DELETE FROM telemetry.session_context WHERE 1
UPDATE telemetry.session_context SET branch = '' WHERE 1
OPTIMIZE TABLE telemetry.session_context
TRUNCATE TABLE telemetry.session_context
DROP TABLE telemetry.session_context
RENAME TABLE telemetry.session_context TO telemetry.gone
SELECT 1 SETTINGS max_execution_time = 100
SELECT 1 SETTINGS max_execution_time = 0
SELECT 1 SETTINGS max_memory_usage = 0
SELECT 1 SETTINGS max_memory_usage = 1000000000000
SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)
SELECT 1 UNION ALL SELECT 2 SETTINGS max_execution_time = 1e9
SELECT 1 SETTINGS max_threads = 1, max_memory_usage = 0
SELECT 1 FORMAT CSV SETTINGS max_memory_usage = 0
SELECT 1 SETTINGS max_untracked_memory = 1000000000000
SELECT 1 SETTINGS timeout_overflow_mode = 'break'
BACKUP DATABASE telemetry TO Disk('backups', 'x')
RESTORE DATABASE telemetry AS telemetry_restored FROM Disk('backups', 'x')
EXCHANGE TABLES telemetry.installation AND telemetry_restored.installation
DROP DATABASE telemetry_restored

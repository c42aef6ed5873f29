SELECT * FROM file('{file}', 'LineAsString')
SELECT * FROM FILE('{file}', 'LineAsString', 'line String')
SELECT * FROM `file`('{file}', 'LineAsString')
SELECT * FROM/**/file/**/('{file}', 'LineAsString')
SELECT file('{file}')
SELECT `file`('{file}')
WITH file('{file}') AS x SELECT x
SELECT arrayMap(x -> file(x), ['{file}'])
SELECT * APPLY file FROM (SELECT '{file}')
SELECT * APPLY(file) FROM (SELECT '{file}')
SELECT * APPLY(x -> file(x)) FROM (SELECT '{file}')
SELECT COLUMNS('.*') APPLY file FROM (SELECT '{file}')
SELECT 1 WHERE 'x' IN (SELECT line FROM file('{file}', 'LineAsString', 'line String'))
SELECT (SELECT any(line) FROM file('{file}', 'LineAsString', 'line String'))
SELECT * FROM view(SELECT * FROM file('{file}', 'LineAsString'))
SELECT * FROM viewIfPermitted(SELECT * FROM file('{file}', 'LineAsString') ELSE null('line String'))
SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM file('{file}', 'LineAsString')))
SELECT * FROM eval('SELECT file(''{file}'')')
SELECT * FROM loop(file('{file}', 'LineAsString')) LIMIT 1
DESCRIBE TABLE file('{file}')
DESCRIBE (SELECT * FROM file('{file}'))
EXPLAIN SELECT * FROM file('{file}')
EXPLAIN PIPELINE SELECT * FROM file('{file}', 'LineAsString')
EXPLAIN QUERY TREE SELECT file('{file}')
SELECT * FROM '{file}'
SELECT * FROM `{file}`
SELECT * FROM default.`{file}`
SELECT * FROM fileCluster('default', '{file}', 'LineAsString')
SELECT * FROM filesystem('/etc')
SELECT * FROM url('http://127.0.0.1:9/', 'TSV', 'a String')
SELECT * FROM urlCluster('default', 'http://127.0.0.1:9/', 'TSV', 'a String')
SELECT * FROM s3('http://127.0.0.1:9/b/k')
SELECT * FROM gcs('http://127.0.0.1:9/b/k')
SELECT * FROM azureBlobStorage('http://127.0.0.1:9/', 'c', 'b')
SELECT * FROM hdfs('hdfs://127.0.0.1:9/a')
SELECT * FROM remote('127.0.0.1', 'telemetry.installation')
SELECT * FROM remoteSecure('127.0.0.1', 'telemetry.installation')
SELECT * FROM cluster('default', 'telemetry.installation')
SELECT * FROM clusterAllReplicas('default', system.one)
SELECT * FROM mysql('127.0.0.1:9', 'd', 't', 'u', 'p')
SELECT * FROM postgresql('127.0.0.1:9', 'd', 't', 'u', 'p')
SELECT * FROM mongodb('127.0.0.1:9', 'd', 't', 'u', 'p', 'a Int8')
SELECT * FROM redis('127.0.0.1:9', 'k', 'k String')
SELECT * FROM sqlite('{file}', 't')
SELECT * FROM jdbc('x', 'y')
SELECT * FROM odbc('x', 'y')
SELECT * FROM iceberg('http://127.0.0.1:9/')
SELECT * FROM icebergLocal('/etc')
SELECT * FROM deltaLakeLocal('/etc')
SELECT * FROM paimonLocal('/etc')
SELECT * FROM executable('id', 'TSV', 'a String')
SELECT * FROM python(server)
SELECT * FROM Python(server)
SELECT * FROM arrowstream(server)
SELECT * FROM input('a String')
SELECT * FROM merge('telemetry', 'inst.*')
SELECT * FROM merge(REGEXP('.*'), 'inst.*')
SELECT * FROM mergeTreeIndex('telemetry', 'installation')
SELECT * FROM mergeTreeProjection('telemetry', 'installation', 'p')
SELECT * FROM dictionary('telemetry.d')
SELECT dictGet('telemetry.d', 'a', 1)
SELECT joinGet('telemetry.installation', 'salt', 1)
SELECT * FROM telemetry.installation
SELECT * FROM installation
SELECT `salt` FROM `telemetry`.`installation`
SELECT * FROM/* */telemetry . installation
SELECT count() FROM installation
SELECT 1 FROM system.one WHERE 'a' IN telemetry.installation
SELECT * FROM (SELECT * FROM system.one AS a, telemetry.installation AS b)
SHOW CREATE TABLE installation
DESCRIBE TABLE telemetry.installation
EXPLAIN SELECT * FROM installation
CHECK TABLE installation
SELECT * FROM system.users
SELECT * FROM system.server_settings
SELECT * FROM system.named_collections
SELECT * FROM system.query_log
SELECT * FROM system.errors
SELECT * FROM system.stack_trace
SELECT * FROM system.certificates
SELECT * FROM system.disks
SELECT * FROM `system`.`macros`
SELECT * FROM "system"."user_processes"
SELECT getMacro('x')
SELECT getServerSetting('max_connections')
SELECT showCertificate()
SELECT reverseDNSQuery('127.0.0.1')
SELECT sleep(3)
SELECT aiGenerate('x')
SELECT 1 INTO OUTFILE '{new}'
SELECT 1 INTO/**/OUTFILE '{new}' FORMAT CSV
SELECT 1 INTO OUTFILE '{new}' AND STDOUT
EXPLAIN SELECT 1 INTO OUTFILE '{new}'
SHOW TABLES INTO OUTFILE '{new}'
INSERT INTO FUNCTION file('{new}', 'CSV') SELECT 1
INSERT INTO TABLE FUNCTION file('{new}', 'CSV', 'a Int8') VALUES (1)
INSERT INTO FUNCTION url('http://127.0.0.1:9/', 'CSV') SELECT 1
INSERT INTO telemetry.session_context (session_id) FROM INFILE '{file}' FORMAT LineAsString
INSERT INTO telemetry.session_context (session_id) SELECT line FROM file('{file}', 'LineAsString', 'line String')
INSERT INTO telemetry.session_context (session_id) SELECT salt FROM telemetry.installation
INSERT INTO telemetry.installation (salt) VALUES ('mine')
CREATE TABLE telemetry.f (a String) ENGINE = File(TSV, '{file}')
CREATE TABLE telemetry.f (a String) ENGINE = URL('http://127.0.0.1:9/', TSV)
CREATE TABLE telemetry.f (a String) ENGINE = Merge(telemetry, 'inst.*')
CREATE TABLE telemetry.f (a String) ENGINE = Buffer(telemetry, installation, 1, 1, 1, 1, 1, 1, 1)
CREATE TABLE telemetry.f (a String) ENGINE = Executable('x', TSV)
CREATE TABLE telemetry.f (a String) ENGINE = Distributed('default', 'telemetry', 'installation')
CREATE TABLE telemetry.f (a String DEFAULT file('{file}')) ENGINE = Memory
CREATE TABLE telemetry.f (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '/tmp/x/')
CREATE TABLE telemetry.f AS file('{file}', 'LineAsString')
CREATE TABLE telemetry.f AS telemetry.installation
CREATE VIEW telemetry.v AS SELECT * FROM file('{file}', 'LineAsString')
CREATE VIEW telemetry.v AS SELECT * FROM telemetry.installation
CREATE MATERIALIZED VIEW telemetry.v ENGINE = Memory AS SELECT salt FROM telemetry.installation
CREATE DICTIONARY telemetry.d (a UInt64, b String) PRIMARY KEY a SOURCE(FILE(path '{file}' format 'TSV')) LAYOUT(FLAT())
CREATE FUNCTION f AS x -> file(x)
CREATE FUNCTION harmless AS x -> x
CREATE NAMED COLLECTION n AS a = 1
CREATE USER u
CREATE DATABASE d ENGINE = Filesystem('/etc')
CREATE DATABASE IF NOT EXISTS d ENGINE = Filesystem('/etc')
CREATE DATABASE d ENGINE = Overlay
ALTER TABLE telemetry.session_context FETCH PARTITION 1 FROM '/x'
ALTER TABLE telemetry.session_context UPDATE branch = (SELECT any(salt) FROM telemetry.installation) WHERE 1
ALTER TABLE telemetry.session_context UPDATE branch = file('{file}') WHERE 1
ALTER TABLE telemetry.installation DELETE WHERE 1
DELETE FROM telemetry.installation WHERE 1
RENAME TABLE telemetry.installation TO telemetry.seen
EXCHANGE TABLES telemetry.installation AND telemetry.session_context
TRUNCATE TABLE telemetry.installation
DROP TABLE telemetry.installation
DROP DATABASE telemetry
DETACH TABLE telemetry.session_context
ATTACH TABLE telemetry.x FROM '/etc' (a String) ENGINE = Memory
BACKUP TABLE telemetry.session_context TO File('{new}')
RESTORE TABLE telemetry.session_context FROM File('{file}')
SYSTEM SHUTDOWN
SYSTEM KILL
SYSTEM FLUSH LOGS
SYSTEM STOP MERGES
KILL QUERY WHERE 1
SET readonly = 0
SET log_comment = 'engine'
SET ROLE x
USE default
USE system
GRANT ALL ON *.* TO default
EXECUTE AS default SELECT 1
SHOW GRANTS
SHOW ACCESS
SHOW USERS
SELECT 1 SETTINGS readonly = 0
SELECT 1 SETTINGS log_comment = 'engine'
SELECT 1 SETTINGS profile = 'default'
SELECT * FROM (SELECT 1 SETTINGS log_comment = 'engine')
SELECT 1 SETTINGS format_schema = '{file}'
SELECT 1 SETTINGS allow_introspection_functions = 1
SELECT 1 SETTINGS select = 'file(''{file}'')'
SELECT 1 SETTINGS `select` = 'file(''{file}'')'
SELECT 1 SETTINGS max_threads = 1, `select` = 'file(''{file}'')'
SELECT 1 SETTINGS max_threads = {'a': 'b', 'c': 'd'}, select = 'file(''{file}'')'
SELECT 1 SETTINGS filter = 'throwIf(1, file(''{file}''))'
SELECT 1 AS a SETTINGS order = 'file(''{file}'')'
SELECT 1 UNION ALL SELECT 2 SETTINGS final, select = 'file(''{file}'')'
SELECT 1 FORMAT Template SETTINGS format_template_row = '{file}', format_template_resultset = '{file}'
SELECT * FROM format(Template, 'a String', 'x') SETTINGS format_template_row = '{file}'
SELECT * FROM format(Values, 'a String', $$(file('{file}'))$$)
SELECT * FROM format(Values, 'a String', '(file(''{file}''))') SETTINGS input_format_values_interpret_expressions = 1
SELECT * FROM values('a String', (file('{file}')))
SELECT formatRow('Protobuf', 1) SETTINGS format_schema = '{file}:M'
SELECT * FROM format(CapnProto, 'a String', 'x') SETTINGS format_schema = '{file}:M'
SELECT * FROM fuzzQuery('SELECT file(''{file}'')')
SELECT * FROM fuzzJSON(installation, random_seed=1)
SELECT * FROM timeSeriesData('telemetry', 'installation')
SELECT * FROM viewExplain('EXPLAIN AST', '', (SELECT salt FROM telemetry.installation))
SELECT `telemetry`.`installation`.salt FROM `telemetry`.`installation`
SELECT * FROM telemetry.\x69nstallation
SELECT * FROM `telemetry`.`\x69nstallation`
SELECT * FROM "telemetry"."\u0069nstallation"
SELECT * FROM ｔｅｌｅｍｅｔｒｙ.installation
SELECT * FROM\u00a0installation
SELECT * FROM\u2028installation
SELECT * FROM -- \r installation\n installation
SELECT/*! * */ * FROM installation
SELECT * FROM /* /* */ installation -- */
SELECT * FROM installation FINAL
SELECT * FROM telemetry_events ANY LEFT JOIN installation ON 1
SELECT * FROM telemetry_events ASOF JOIN installation USING salt
WITH installation AS (SELECT 1) SELECT * FROM installation
SELECT EXISTS(SELECT 1 FROM installation WHERE startsWith(salt, 'a'))
SELECT arrayExists(x -> x IN (SELECT salt FROM telemetry.installation), ['a'])
SELECT hasColumnInTable('telemetry', 'installation', 'salt') FROM installation
SELECT * FROM system.parts_columns
SELECT * FROM system.projection_parts
SELECT * FROM system.detached_parts
SELECT * FROM system.dropped_tables
SELECT * FROM system.row_policies
SELECT * FROM system.roles
SELECT * FROM system.grants
SELECT * FROM system.privileges
SELECT * FROM system.quotas
SELECT * FROM system.settings_profiles
SELECT * FROM system.settings_profile_elements
SELECT * FROM system.user_directories
SELECT * FROM system.user_query_log
SELECT * FROM system.query_cache
SELECT * FROM system.query_condition_cache
SELECT * FROM system.session_query_ids
SELECT * FROM system.text_log
SELECT * FROM system.crash_log
SELECT * FROM system.trace_log
SELECT * FROM system.metrics
SELECT * FROM system.events
SELECT * FROM system.asynchronous_metrics
SELECT * FROM system.build_options
SELECT * FROM system.clusters
SELECT * FROM system.replicas
SELECT * FROM system.zookeeper WHERE path = '/'
SELECT * FROM system.storage_policies
SELECT * FROM system.remote_data_paths
SELECT * FROM system.filesystem_cache
SELECT * FROM system.schema_inference_cache
SELECT * FROM system.asynchronous_inserts
SELECT * FROM system.backups
SELECT * FROM system.dictionaries
SELECT * FROM system.functions, system.symbols
SELECT * FROM system.jemalloc_profile_text
SELECT * FROM system.fail_points
SELECT * FROM system.masking_policies
SELECT * FROM system.handlers
SELECT * FROM `system`.`us\x65rs`
SELECT * FROM SYSTEM.users
SELECT * FROM INFORMATION_SCHEMA.user_privileges
SELECT * FROM information_schema.key_column_usage
SELECT logTrace('x')
SELECT getOSKernelVersion()
SELECT tid()
SELECT generateSerialID('x')
SELECT editDistance(repeat('a', 60000), materialize(repeat('b', 60000))) FROM numbers(20)
SELECT levenshteinDistance('a', 'b')
SELECT arrayReduce('flameGraph', [1])
SELECT addressToLine(1) SETTINGS allow_introspection_functions = 1
SELECT sleepEachRow(1) FROM numbers(10)
SELECT * FROM clusterAllReplicas('{cluster}', system, one)
SELECT * FROM prometheusQuery('telemetry', 'x', 'up', now())
SELECT * FROM bigquery('x', 'y')
SELECT * FROM ytsaurus('x', 'y', 'z')
SELECT * FROM mergeTreeAnalyzeIndexes('telemetry', 'installation')
SELECT * FROM mergeTreeTextIndex('telemetry', 'installation', 'i')
SELECT * FROM primes() SETTINGS max_threads = 100000, log_comment = 'engine'
INSERT INTO telemetry.session_context (session_id) VALUES (file('{file}'))
INSERT INTO telemetry.session_context (session_id) VALUES (concat(file('{file}'), ''))
INSERT INTO telemetry.session_context (session_id) VALUES ((SELECT salt FROM telemetry.installation))
INSERT INTO telemetry.session_context (session_id) SETTINGS input_format_values_interpret_expressions = 1 VALUES (file('{file}'))
INSERT INTO telemetry.session_context (session_id) FORMAT Template SETTINGS format_template_row = '{file}'
INSERT INTO telemetry.session_context SELECT * FROM input('session_id String') FORMAT CSV
INSERT INTO telemetry.otel_logs (Body) SELECT salt FROM installation
INSERT INTO telemetry.session_context (session_id) WATCH telemetry.installation
CREATE VIEW telemetry.v AS SELECT * FROM {t:Identifier}
CREATE VIEW telemetry.v AS SELECT * FROM telemetry.session_context WHERE session_id IN telemetry.installation
CREATE VIEW telemetry.v DEFINER = default SQL SECURITY DEFINER AS SELECT * FROM telemetry.installation
CREATE MATERIALIZED VIEW telemetry.v REFRESH EVERY 1 SECOND ENGINE = Memory AS SELECT * FROM telemetry.installation
CREATE MATERIALIZED VIEW telemetry.v TO telemetry.session_context AS SELECT salt AS session_id FROM installation
CREATE LIVE VIEW telemetry.v AS SELECT * FROM telemetry.session_context
CREATE WINDOW VIEW telemetry.v ENGINE = Memory AS SELECT 1
CREATE TABLE telemetry.f CLONE AS telemetry.installation
CREATE TABLE telemetry.f ENGINE = Memory AS SELECT 1 SETTINGS max_threads = 1, select = 'file(''{file}'')'
CREATE TABLE telemetry.f (a String TTL now() + INTERVAL length(file('{file}')) DAY) ENGINE = MergeTree ORDER BY tuple()
CREATE TABLE telemetry.f (a String MATERIALIZED dictGet('d', 'a', 1)) ENGINE = Memory
CREATE TABLE telemetry.f (a String, CONSTRAINT c CHECK a != file('{file}')) ENGINE = Memory
CREATE TABLE telemetry.f (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = 'x'
CREATE TABLE telemetry.f (a String) ENGINE = MergeTree ORDER BY a SETTINGS storage_policy = 'x'
CREATE TABLE telemetry.f (a String) ENGINE = MergeTree('/etc', 'a', a, 8192)
CREATE TABLE telemetry.f (a String) ENGINE = Log
CREATE TABLE telemetry.f (a String) ENGINE = Alias(telemetry, installation)
CREATE TABLE telemetry.f (a String) ENGINE = SQLite('{file}', 't')
CREATE TABLE telemetry.f (a String) ENGINE = FileLog('{file}', 'TSV')
CREATE TABLE telemetry.f (a String) ENGINE = ExecutablePool('x', TSV)
CREATE TABLE telemetry.f (a String) ENGINE = EmbeddedRocksDB(0, '/etc') PRIMARY KEY a
CREATE TABLE telemetry.f (a String) ENGINE = MySQL('127.0.0.1:9', 'd', 't', 'u', 'p')
CREATE TABLE telemetry.f (a String) ENGINE = Remote('127.0.0.1:9', 'd', 't')
CREATE TABLE telemetry.f (a String) ENGINE = Kafka('127.0.0.1:9', 't', 'g', 'CSV')
CREATE TABLE telemetry.f (a String) ENGINE = Python(server)
CREATE TABLE telemetry.f UUID '00000000-0000-0000-0000-000000000001' (a String) ENGINE = Set
CREATE DATABASE d ENGINE = SQLite('{file}')
CREATE DATABASE d ENGINE = MySQL('127.0.0.1:9', 'd', 'u', 'p')
CREATE DATABASE d ENGINE = Backup('a', File('{file}'))
CREATE DATABASE IF NOT EXISTS d ENGINE = DataLakeCatalog('http://127.0.0.1:9/')
CREATE WORKLOAD w
CREATE RESOURCE r (READ DISK d)
CREATE ROW POLICY p ON telemetry.installation USING 1
CREATE SETTINGS PROFILE p SETTINGS readonly = 0
CREATE QUOTA q
CREATE ROLE r
ALTER USER default IDENTIFIED WITH plaintext_password BY 'x'
DROP USER default
DROP ROW POLICY p ON telemetry.installation
ALTER TABLE telemetry.session_context FREEZE WITH NAME '../../../tmp/x'
ALTER TABLE telemetry.session_context MOVE PARTITION 1 TO DISK 'x'
ALTER TABLE telemetry.session_context MODIFY SETTING storage_policy = 'x'
ALTER TABLE telemetry.session_context REPLACE PARTITION tuple() FROM telemetry.installation
ALTER TABLE telemetry.session_context ATTACH PARTITION tuple() FROM telemetry.installation
ALTER TABLE telemetry.session_context MODIFY COLUMN branch DEFAULT file('{file}')
ALTER TABLE telemetry.session_context ADD COLUMN x String DEFAULT (SELECT any(salt) FROM installation)
ALTER TABLE telemetry.session_context ADD PROJECTION p (SELECT file('{file}'))
ALTER TABLE telemetry.session_context DELETE WHERE branch IN (SELECT salt FROM installation)
CREATE TABLE telemetry.f AS session_context PARALLEL WITH DROP TABLE telemetry.installation
DROP TABLE IF EXISTS telemetry.nothing PARALLEL WITH SYSTEM SHUTDOWN
SYSTEM RELOAD CONFIG
SYSTEM DROP QUERY CACHE
SYSTEM START LISTEN TCP
SYSTEM ENABLE FAILPOINT x
EXPLAIN SYNTAX SELECT file('{file}')
EXPLAIN ESTIMATE SELECT * FROM installation
EXPLAIN indexes = 1 SELECT * FROM installation
EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:9', 'd', 't', 'u', 'p') PARTITION BY 1
EXISTS TABLE telemetry.installation
EXISTS DICTIONARY telemetry.installation
DESCRIBE s3('http://127.0.0.1:9/b/k')
DESCRIBE TABLE (SELECT * FROM installation)
SHOW CREATE USER default
SHOW CREATE SETTINGS PROFILE default
SHOW CREATE DICTIONARY d
SHOW CREATE TABLE telemetry.installation
SHOW COLUMNS FROM installation
SHOW INDEXES FROM installation
SHOW CLUSTERS
SHOW DICTIONARIES
SHOW FILESYSTEM CACHES
SHOW POLICIES
SHOW PRIVILEGES
SHOW ROLES
SHOW PROFILES
SHOW TABLES FROM system INTO OUTFILE '{new}'
BEGIN TRANSACTION
WATCH telemetry.session_context
KILL MUTATION WHERE 1
MOVE USER u TO x
CHECK GRANT SELECT ON *.*
CHECK ALL TABLES
UNDROP TABLE telemetry.installation
DETACH DATABASE telemetry
TRUNCATE DATABASE telemetry
TRUNCATE ALL TABLES FROM telemetry
RENAME DATABASE telemetry TO x
EXECUTE AS default SELECT * FROM installation
PREPARE TRANSACTION 'x'
SET max_memory_usage = 0
SET param_a = 'x'
FROM installation SELECT *
(SELECT * FROM installation)
SELECT 1 UNION ALL (SELECT * FROM installation)
SELECT 1 EXCEPT SELECT salt FROM installation
SELECT 1; SELECT 2
SELECT 1;;SELECT 2
SELECT 1 ; -- \n SYSTEM SHUTDOWN
SELECT 1\G SYSTEM SHUTDOWN
SELECT 1; SYSTEM SHUTDOWN
SELECT 1 /* ; */; DROP TABLE telemetry.session_context
SELECT * FROM format(CSV, 'a Int8', 'x') SETTINGS input_format_record_errors_file_path = '{new}', input_format_allow_errors_num = 1
SELECT 1 FORMAT Protobuf SETTINGS output_format_schema = '{new}'
INSERT INTO telemetry.session_context (session_id) SETTINGS input_format_record_errors_file_path = '{new}' FORMAT CSV
INSERT INTO telemetry.session_context (session_id) VALUES ('it''s' /* ' */, file('{file}'))
INSERT INTO telemetry.session_context (session_id) VALUES ('\\', (file('{file}')))
INSERT INTO telemetry.session_context (session_id) VALUES ($$'$$), (file('{file}')) -- '
INSERT INTO telemetry.session_context (session_id) VALUES (`x`), (file('{file}'))
INSERT INTO telemetry.session_context (session_id) VALUES ('a') (concat('b', file('{file}')))
INSERT INTO telemetry.session_context (unknown) VALUES (dictGet('d', 'a', 1))
BACKUP DATABASE telemetry TO File('x')
BACKUP DATABASE telemetry TO File('{new}')
BACKUP DATABASE telemetry TO Disk('backups', '../x')
BACKUP DATABASE telemetry TO Disk('backups', '/tmp/x')
BACKUP DATABASE telemetry TO Disk('backups', 'x\\x2f..\\x2f..\\x2fx')
BACKUP DATABASE telemetry TO Disk('backups', 'x') SETTINGS base_backup = File('{file}')
BACKUP DATABASE telemetry TO Disk('backups', 'x') SETTINGS password = 'x'
BACKUP DATABASE telemetry TO Disk('default', 'x')
BACKUP DATABASE telemetry TO S3('http://127.0.0.1:9/x')
BACKUP DATABASE system TO Disk('backups', 'x')
BACKUP ALL TO Disk('backups', 'x')
RESTORE DATABASE telemetry FROM Disk('backups', 'x')
RESTORE DATABASE telemetry AS other FROM Disk('backups', 'x')
RESTORE DATABASE telemetry AS telemetry_restored FROM File('{file}')
RESTORE ALL FROM Disk('backups', 'x')
EXCHANGE TABLES telemetry.telemetry_events AND telemetry_restored.installation
EXCHANGE TABLES telemetry.installation AND telemetry.session_context
SELECT * FROM telemetry_restored.installation
DROP DATABASE telemetry_restored, telemetry
DROP DATABASE system

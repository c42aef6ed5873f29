"""What neither user of the ClickHouse interface may do, tried through the socket; and that the engine's own layers hold without the scan."""  # noqa: E501

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve.clickhouse_statement import examine
from tests.store.clickhouse_server import Server
from tests.store.test_clickhouse_http import ask

SECRET = "the secret in the file"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("attacked"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "file.tsv"
    path.write_text(SECRET + "\n")
    return path


# Refused to both users. {file} is a file that the server's account can read, {new} one that does not exist.
NEVER = """
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
SELECT 1; SELECT 2
SELECT 1; SYSTEM SHUTDOWN
SELECT 1 /* ; */; DROP TABLE telemetry.session_context
""".strip().splitlines()

READER_ONLY = """
INSERT INTO telemetry.session_context (session_id) VALUES ('x')
INSERT INTO telemetry.session_context (session_id) SELECT 'x'
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
""".strip().splitlines()


@pytest.mark.parametrize("user", ["telemetry_reader", "telemetry_user"])
def test_refused_to_everybody(server: Server, file: Path, user: str) -> None:
    salt = server.owner("SELECT salt FROM telemetry.installation").strip()
    new = file.with_name("new")
    let_through = []
    for sql in NEVER:
        answer = ask(server, body=sql.replace("{file}", str(file)).replace("{new}", str(new)).encode(), user=user)
        if answer.status == 200 or salt in answer.text or SECRET in answer.text or "X-ClickHouse-Exception-Code" not in answer.headers:
            let_through.append((sql, answer.status, answer.text[:200]))
        assert not new.exists(), sql
    assert not let_through
    assert server.owner("SELECT salt FROM telemetry.installation").strip() == salt


def test_refused_to_the_reader(server: Server) -> None:
    tables = server.owner("SELECT groupArray(name) FROM system.tables WHERE database = 'telemetry'")
    for sql in READER_ONLY:
        answer = ask(server, body=sql.encode())
        assert answer.status != 200 and answer.headers["X-ClickHouse-Exception-Code"] in ("164", "452", "497", "72"), (sql, answer.text)
    assert server.owner("SELECT groupArray(name) FROM system.tables WHERE database = 'telemetry'") == tables


def test_names_given_as_parameters(server: Server) -> None:
    for params in ({"d": "telemetry", "t": "installation"}, {"d": "system", "t": "users"}, {"d": "default", "t": "/etc/passwd"}):
        for sql in (
            "SELECT * FROM {d:Identifier}.{t:Identifier}",
            f"SELECT * FROM {params['d']}.{{t:Identifier}}",
            "SELECT * FROM {t:Identifier}",
        ):
            answer = ask(server, body=sql.encode(), **{f"param_{name}": value for name, value in params.items()})
            assert answer.status in (403, 404), (sql, params, answer.text)
    assert ask(server, body=b"SELECT count() >= 0 FROM {t:Identifier}", param_t="session_context").text == "1\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"readonly": "0"}, {"log_comment": "engine"}, {"max_execution_time": "0"}, {"max_execution_time": "60"}, {"max_memory_usage": "0"},
        {"max_memory_usage": "1e15"}, {"profile": "default"}, {"format_schema": "/etc/passwd:a"}, {"dialect": "prql"}, {"max_result_rows": "0"},  # noqa: E501
        {"max_untracked_memory": "1e15"}, {"allow_ddl": "1"}, {"format_schema_source": "string"}, {"x = 1, readonly": "0"}, {"final": "1', readonly='0"},  # noqa: E501
    ],
)  # fmt: skip
def test_settings_that_lift_limits(server: Server, settings: dict[str, str]) -> None:
    assert ask(server, "SELECT 1", **settings).status != 200


def test_the_reader_may_lower_limits_and_set_what_is_harmless(server: Server) -> None:
    assert ask(server, "SELECT getSetting('max_execution_time')", max_execution_time="2").text == "2\n"
    sql = "SELECT getSetting('max_threads'), getSetting('final') SETTINGS max_threads = 1, final = 0, session_timezone = 'Europe/Berlin'"
    assert ask(server, sql).text in ("1\t0\n", "1\tfalse\n")
    assert (
        ask(server, "SELECT 9007199254740993 AS a FORMAT JSONEachRow", output_format_json_quote_64bit_integers="1").text
        == '{"a":"9007199254740993"}\n'
    )
    for sql in (
        "SHOW TABLES",
        "DESCRIBE telemetry_events",
        "SHOW CREATE TABLE telemetry.telemetry_events",
        "EXISTS telemetry_events",
        "SHOW DATABASES",
        "SELECT name FROM system.tables WHERE database = 'telemetry'",
        "SELECT * FROM INFORMATION_SCHEMA.TABLES LIMIT 1",
        "EXPLAIN SELECT 1",
        "WITH x AS (SELECT 1 AS installation_id) SELECT * FROM x",
        "SELECT 'FROM file(1)', $$INTO OUTFILE 'x'$$ -- file('/etc/passwd')",
        "SELECT version(), displayName(), revision(), timezone()",
        "SELECT * FROM system.numbers LIMIT 3",
        "SELECT name FROM system.settings LIMIT 1",
    ):
        answer = ask(server, body=sql.encode())
        assert answer.status == 200, (sql, answer.text)  # fmt: skip


def test_limits_hold(server: Server) -> None:
    started = time.monotonic()
    answer = ask(server, "SELECT count() FROM numbers(1e13) WHERE NOT ignore(sipHash64(number))")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (408, "159") and time.monotonic() - started < 10
    answer = ask(server, "SELECT length(groupArray(number)) FROM numbers(1e10)")
    assert answer.headers["X-ClickHouse-Exception-Code"] in ("241", "159")
    assert ask(server, "SELECT repeat('x', 1000000000)").status != 200
    assert ask(server, body=b"SELECT " + b"(" * 100_000 + b"1" + b")" * 100_000).status != 200
    assert ask(server, body=b"SELECT 1 " + b"-" * 300_000).status == 400
    assert ask(server, "SELECT 1").text == "1\n"


def test_the_engine_holds_without_the_scan(server: Server, file: Path) -> None:
    """The layers below: readonly and the row filters, on handles like the reader's."""
    with server.engine.handle(database="telemetry", log_comment="http x") as handle:
        assert handle.query("SELECT count() FROM installation") == b"0\n"
        handle.run("SET readonly = 1")
        assert handle.query("SELECT * FROM installation") == b""
        for sql in (
            f"SELECT * FROM file('{file}', 'LineAsString')",
            "SET readonly = 0",
            "SET log_comment = 'engine'",
            "SYSTEM SHUTDOWN",
            "SELECT * FROM installation SETTINGS log_comment = 'engine'",
            "SELECT * FROM url('http://127.0.0.1:9/', 'TSV', 'a String')",
            "INSERT INTO session_context (session_id) VALUES ('x')",
            "SELECT 1 SETTINGS max_memory_usage = 5",
        ):
            with pytest.raises(QueryFailed) as caught:
                handle.run(sql)
            assert caught.value.code == 164  # fmt: skip
    server.owner("INSERT INTO telemetry.otel_logs (LogAttributes) VALUES (map('event.name', 'user_prompt', 'session.id', 's'))")
    assert server.owner("SELECT count() FROM telemetry.telemetry_events") != "0\n"  # views still read the salt


def test_what_the_scan_reads() -> None:
    known = frozenset({"max_threads", "format_csv_delimiter", "final", "limit"})
    canonical = "SELECT 1 AS FORMAT FROM t SETTINGS max_threads = -1.5, format_csv_delimiter = '\\t,\\'y', final, limit = 2 FORMAT CSV"
    statement = examine(canonical, "telemetry_reader", {}, frozenset(), known)
    wanted = {"max_threads": "-1.5", "format_csv_delimiter": "\t,'y", "final": "1", "limit": "2"}
    assert (statement.format, statement.settings) == ("CSV", wanted)
    canonical = "INSERT INTO telemetry.t (a, `b SETTINGS c`) SETTINGS max_threads = 1 FORMAT CSV"
    statement = examine(canonical, "telemetry_user", {}, frozenset(), known)
    assert (statement.target, statement.into) == ("t", "INSERT INTO telemetry.t (a, `b SETTINGS c`)")

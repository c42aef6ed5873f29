"""What neither user of the ClickHouse interface may do, tried through the socket; and that the engine's own layers hold without the scan."""  # noqa: E501

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve.clickhouse_access import changeable
from sp_telemetry.serve.clickhouse_statement import FUNCTIONS, examine
from sp_telemetry.setup import service
from tests.secrets_search import columns
from tests.server import Server as RealServer
from tests.store.clickhouse_server import Process, Server, ask

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


# One a line. Refused to both users, or to the reader: by the scan, by the engine, or because there is no such thing here. {file} is a
# file that the server's account can read, {new} one that does not exist; \x, \u, \r, \n stand for characters.
ATTACKS = Path(__file__).parent / "attacks"
_ESCAPED = re.compile(r"\\x(..)|\\u(....)|\\([rn])")


def attacks(name: str) -> list[str]:
    def character(found: re.Match) -> str:
        return {"r": "\r", "n": "\n"}[found[3]] if found[3] else chr(int(found[1] or found[2], 16))

    return [_ESCAPED.sub(character, line) for line in (ATTACKS / name).read_text().splitlines()]


def let_through(server: Server | Process, file: Path, user: str, *secrets: str) -> list[tuple[str, int, str]]:
    """Those of the list that were not refused, made a file, or whose answer has a secret."""
    new, found = file.with_name("new"), []
    for sql in attacks("refused.sql"):
        answer = ask(server, body=sql.replace("{file}", str(file)).replace("{new}", str(new)).encode(), user=user)
        told = answer.headers.as_string() + answer.text
        refused = answer.status != 200 and "X-ClickHouse-Exception-Code" in answer.headers
        if not refused or new.exists() or any(secret in told for secret in secrets):
            found.append((sql, answer.status, answer.text[:200]))
    return found


def let_through_to_the_reader(server: Server | Process, *secrets: str) -> list[tuple[str, int, str]]:
    tables = "SELECT groupArray(name) FROM system.tables WHERE database = 'telemetry'"
    before, found = ask(server, tables).text, []
    for sql in attacks("refused_to_the_reader.sql"):
        answer = ask(server, body=sql.encode())
        refused = answer.status != 200 and answer.headers["X-ClickHouse-Exception-Code"] in ("164", "452", "497", "72")
        if not refused or any(secret in answer.text for secret in secrets):
            found.append((sql, answer.status, answer.text[:200]))
    assert ask(server, tables).text == before and "telemetry_events" in before
    return found


@pytest.mark.parametrize("user", [READER, WRITER])
def test_refused_to_everybody(server: Server, file: Path, user: str) -> None:
    salt = server.owner("SELECT salt FROM telemetry.installation").strip()
    assert let_through(server, file, user, salt, SECRET) == []
    assert server.owner("SELECT salt FROM telemetry.installation").strip() == salt


def test_refused_to_the_reader(server: Server) -> None:
    assert let_through_to_the_reader(server) == []


def salt_of(store: Path) -> str:
    """Of a store that nobody holds."""
    [table] = [text for name, text in columns(store) if "installation" in name]
    return re.search(rb"[0-9a-f]{32}", table.partition(b"\n")[2])[0].decode()


def test_the_real_process_refuses_them_too(tmp_path: Path) -> None:
    """Over its own port, to its own users; the file that they ask for holds the password of the one that may write."""
    process = RealServer(tmp_path / "home")
    process.make()
    salt = salt_of(process.home.store)

    def lying_about() -> list[Path]:
        return sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(process.home.store))

    process.up()
    try:
        asked, files = Process(process), lying_about()
        secrets = (salt, *asked.passwords.values())
        [file] = [path for path in files if path.name == WRITER]
        assert file.read_text().strip() == asked.passwords[WRITER] and len(secrets[1]) > 20
        for user in (READER, WRITER):
            assert let_through(asked, file, user, *secrets) == []
        assert let_through_to_the_reader(asked, *secrets) == []
        assert lying_about() == files
        assert Process(process).passwords == asked.passwords and ask(asked, "SELECT 1").text == "1\n"
        assert service.running(process.home).pid == process.running.pid
        log = "".join(path.read_text() for path in process.home.logs.iterdir())
        assert not [secret for secret in secrets if secret in log]
    finally:
        process.down()
    assert salt_of(process.home.store) == salt


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
        {"select": "file('/etc/hostname')"}, {"filter": "0"}, {"order": "1"}, {"sort": "1"}, {"format": "CSV"}, {"output_format": "CSV"},
        {"format_template_row": "/etc/hostname"}, {"compatibility": "20.1"}, {"send_logs_level": "trace"}, {"run_query_in_background": "1"},
        {"polyglot_dialect": "mysql"}, {"enable_json_ast_dialect": "1"}, {"input_format_values_interpret_expressions": "1"},
        {"use_query_cache": "1"}, {"additional_result_filter": "0"}, {"http_allow_table_as_file": "1"}, {"max_threads": "1000000"},
        {"url_base": "http://127.0.0.1:9/"}, {"default_table_engine": "Log"}, {"ast_fuzzer_runs": "1"}, {"priority": "1"},
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


# Each ends by itself, or is ended by the limits of the fixture: 5 s, 400 MiB. Those that make a stack, a plan or a program deep are
# here too: the engine is in this process, so one that overflows ends the test.
BOMBS = {
    "SELECT * FROM generateRandom('a Array(Array(Array(String)))', 1, 1000000, 1000000) LIMIT 10": "241",
    "SELECT sum(length(randomString(1000000000))) FROM numbers(10)": "241",
    "SELECT arrayWithConstant(1000000000, 'xxxxxxxx')": "128",
    "SELECT length(range(1000000000))": "69",
    "SELECT groupArray(x) FROM (SELECT arrayJoin(range(100000000)) AS x)": "241",
    "SELECT number AS k, count() FROM numbers(1e9) GROUP BY k FORMAT Null": "241",
    "SELECT * FROM numbers(1e8) ORDER BY sipHash64(number) LIMIT 100000000, 1": "241 159",
    "SELECT count() FROM numbers_mt(1e13) SETTINGS max_threads = 64": "159",
    "SELECT count() FROM numbers(1e13) WHERE NOT ignore(sipHash64(number))": "159",
    "SELECT match('x', '((a{1,100}){1,100}){1,100}')": "427",
    "SELECT multiMatchAny('x', ['((a{1,1000}){1,1000}'])": "447",
    "SELECT multiFuzzyMatchAny('x', 100, ['aaaaaaaaaaaaaaaaaaaaaaaaa.{1,200}'])": "447",
    "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r) SELECT count() FROM r": "306",
    "SELECT * FROM numbers(50000000) FORMAT JSON": "396 159",
    "SELECT number % 7 = 1 FROM numbers(50000000) FORMAT XML": "396 159",
    "SELECT number FROM numbers(50000000) FORMAT Parquet": "396 159",
    "SELECT prettyPrintJSON(repeat('[', 500000) || repeat(']', 500000))": "241",
    "SELECT (repeat('{\"a\":', 100000) || '1' || repeat('}', 100000))::JSON": "117",
    "SELECT " + "(" * 100_000 + "1" + ")" * 100_000: "306",
    "SELECT " + "[" * 20_000 + "]" * 20_000: "306",
    "SELECT " + "NOT " * 60_000 + "1": "167",
    "SELECT " + "if(1, " * 5000 + "1" + ", 1)" * 5000: "167",
    "SELECT " + "CASE WHEN " * 3000 + "1" + " THEN 1 END" * 3000: "167",
    "SELECT " + "(SELECT " * 3000 + "1" + ")" * 3000: "306",
    "SELECT " + " + ".join(["1"] * 60_000): "167",
    "SELECT " + " UNION ALL SELECT ".join(["1"] * 10_000): "168",
    "SELECT CAST('' AS " + "Array(" * 20_000 + "Int8" + ")" * 20_000 + ")": "306",
    "SELECT JSONExtract('[]', '" + "Array(" * 30_000 + "Int8" + ")" * 30_000 + "')": "306",
    "SELECT formatQuery(repeat('(', 100000))": "306",
    "SELECT 1 " + "-" * 300_000: "62",
    "SELECT length(hex(repeat('x', 200000000)))": "131",
    "SELECT *" + " APPLY(toString)" * 9000 + " FROM system.one": "168",
    "SELECT 1 FROM system.one AS a" + "".join(f", system.one AS a{i}" for i in range(6000)): "168",
    "SELECT 1 FROM system.one AS a" + "".join(f" CROSS JOIN system.one AS a{i}" for i in range(6000)): "168",
    "SELECT JSONExtractRaw(repeat('{\"a\":', 500000), 'a') SETTINGS allow_simdjson = 0": "452",  # the other parser has no bound of depth
    "SELECT length(printf('%2000000000d', 1))": "497",
    "SELECT kolmogorovSmirnovTest('two-sided', 'exact')(number, number % 2) FROM numbers(1000000)": "497",
    "SELECT arrayReduce('KolmogorovSmirnovTest(\\'two-sided\\', \\'exact\\')', range(1000000), range(1000000))": "497",
    "WITH 'uniq' AS f SELECT arrayReduce(f, [1])": "497",
}


@pytest.mark.parametrize("sql", BOMBS, ids=lambda sql: sql[:60])
def test_bombs_are_bounded(server: Server, sql: str) -> None:
    ask(server, "SELECT 1")
    before = resident_mib()
    answer = ask(server, body=sql.encode())
    assert answer.headers.get("X-ClickHouse-Exception-Code") in BOMBS[sql].split(), answer.text[:300]
    assert resident_mib() - before < 600  # the engine keeps what it has freed for a while
    assert ask(server, "SELECT 1").text == "1\n"


def resident_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20 if Path("/proc/self/statm").exists() else 0


def test_readers_questions_are_small_and_take_turns(server: Server) -> None:
    answer = ask(server, body=b"SELECT 1 -- " + b"x" * (5 << 20))
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (413, "298")
    with ThreadPoolExecutor(12) as pool:
        sql = "SELECT count() FROM (SELECT sleepless FROM (SELECT sipHash64(number) AS sleepless FROM numbers(2e7)))"
        answers = list(pool.map(lambda _: ask(server, sql).text, range(12)))
    assert answers == ["20000000\n"] * 12


# Kinds of functions, as the engine sorts them: those that are looked at one by one, and those that only compute.
KINDS = "'', 'Other', 'Introspection', 'Internal', 'Machine Learning', 'Dictionary', 'Files', 'UDF', 'External'"
COMPUTING = """AI,Arithmetic,Arrays,Bit,Bitmap,Comparison,Conditional,Dates and Times,Distance,Embedded Dictionary,Encoding,Encryption,
Financial,Geo,Geo Polygon,Hash,IP Address,JSON,Logical,Map,Mathematical,Null,NumericIndexedVector,QBit,Random Number,Rounding,String,
String Replacement,String Search,String Splitting,Time Series,Time Window,Tuple,Type Conversion,URL,UUID""".replace("\n", "").split(",")
# Functions that are neither refused nor of a kind that only computes. A new engine's are to be looked at before they are added here.
REMAINING = """
_CAST assignCentroid authenticatedUser bar blockNumber blockSerializedSize blockSize buildId byteSize caseWithExpression
colorOKLABToSRGB colorOKLCHToSRGB colorSRGBToOKLAB colorSRGBToOKLCH countDigits currentDatabase currentProfiles currentQueryID
currentRoles currentSchemas currentUser defaultProfiles defaultRoles defaultValueOfArgumentType defaultValueOfTypeName digits
displayName dumpColumnStructure enabledProfiles enabledRoles errorCodeToName finalizeAggregation flipCoordinates formatQuery
formatQueryFromJSON formatQueryOrNull formatQuerySingleLine formatQuerySingleLineOrNull formatReadableDecimalSize formatReadableQuantity
formatReadableSize formatReadableTimeDelta fuzzQuery generateRandomStructure getMaxTableNameLengthForDatabase getMergeTreeSetting
getSetting getSettingOrDefault getSizeOfEnumType getSubcolumn getTypeSerializationStreams globalVariable hasColumnInTable highlightQuery
icebergBucket icebergTruncate identity ignore indexHint initializeAggregation initialQueryID initialQueryStartTime isConstant
isDecimalOverflow isMergeTreePartCoveredBy lowCardinalityIndices lowCardinalityKeys MACNumToString MACStringToNum MACStringToOUI
materialize minSampleSizeContinuous minSampleSizeConversion neighbor nested normalizedQueryHash normalizedQueryHashKeepNames
normalizeQuery normalizeQueryKeepNames obfuscateQuery obfuscateQueryWithSeed parseISO8601Duration parseQueryToJSON parseReadableSize
parseReadableSizeOrNull parseReadableSizeOrZero parseTimeDelta partitionId pgGetUserById pgTableIsVisible queryID revision
rowNumberInAllBlocks rowNumberInBlock runningAccumulate runningConcurrency runningDifference runningDifferenceStartingWithFirstValue
shardCount shardNum throwIf toColumnTypeName tokenizeQuery toTypeName transform uptime validateNestedArraySizes variantElement
variantType version visibleWidth
"""


def test_every_function_was_looked_at(server: Server) -> None:
    functions = "FROM system.functions WHERE NOT is_aggregate AND alias_to = '' AND NOT startsWith(name, 'telemetry_') AND categories"
    names = server.owner(f"SELECT name {functions} IN ({KINDS}) ORDER BY lower(name)").split()
    assert [name for name in names if not FUNCTIONS.fullmatch(name)] == REMAINING.split()
    assert server.owner(f"SELECT DISTINCT categories {functions} NOT IN ({KINDS}) ORDER BY 1").splitlines() == COMPUTING


# Settings that may be set and sound as if they should not.
HARMLESS = """
        deduplicate_insert_select input_format_arrow_skip_columns_with_unsupported_types_in_schema_inference
        input_format_bson_skip_fields_with_unsupported_types_in_schema_inference
        input_format_capn_proto_skip_fields_with_unsupported_types_in_schema_inference input_format_csv_use_best_effort_in_schema_inference
        input_format_json_use_string_type_for_ambiguous_paths_in_named_tuples_inference_from_objects
        input_format_max_bytes_to_read_for_schema_inference input_format_max_rows_to_read_for_schema_inference
        input_format_orc_skip_columns_with_unsupported_types_in_schema_inference input_format_parquet_local_file_min_bytes_for_seek
        input_format_parquet_skip_columns_with_unsupported_types_in_schema_inference
        input_format_protobuf_skip_fields_with_unsupported_types_in_schema_inference input_format_tsv_use_best_effort_in_schema_inference
        join_on_disk_max_files_to_merge max_memory_usage merge_tree_min_bytes_for_concurrent_read_for_remote_filesystem
        merge_tree_min_bytes_per_task_for_remote_reading merge_tree_min_rows_for_concurrent_read_for_remote_filesystem
        merge_tree_use_const_size_tasks_for_remote_reading optimize_count_from_files optimize_trivial_insert_select
        output_format_avro_rows_in_file query_plan_optimize_lazy_materialization_for_file
"""
DANGEROUS = re.compile(
    r".*(path|schema|memory|url|file|disk|comment|dialect|profile|readonly|introspection|remote|cluster|background|sleep|select$|^filter|"
    r"^order|external|fuzz|secret|interpret_expressions|deduce_templates).*"
)


def test_every_setting_that_may_be_set_was_looked_at(server: Server) -> None:
    """Families of names grow with the engine."""
    names = [name for name in server.owner("SELECT name FROM system.settings").split() if changeable(name)]
    assert len(names) == 681
    assert sorted(name for name in names if DANGEROUS.fullmatch(name)) == HARMLESS.split()


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

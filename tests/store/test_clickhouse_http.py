"""The ClickHouse HTTP interface over the real engine: clients, encodings, streaming. Queries under way have a file of their own."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import subprocess
import zlib
from collections.abc import Iterator

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from sp_telemetry.store.engine import Engine
from tests.store.clickhouse_server import READER_PASSWORD, WRITER_PASSWORD, Server, ask, write


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("clickhouse"))
    server.owner("CREATE TABLE telemetry.notes (id UInt64, text String, tags Map(String, String)) ENGINE = ReplacingMergeTree ORDER BY id")
    yield server
    server.close()


def test_ping_and_nothing_asked(server: Server) -> None:
    for path in ("/ping", "/replicas_status", "/", "/?"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", path)
        assert connection.getresponse().read() == b"Ok.\n"


def test_headers_of_an_answer(server: Server) -> None:
    answer = ask(server, "SELECT number FROM numbers(5) FORMAT JSON", query_id="mine")
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine" and answer.headers["X-ClickHouse-Format"] == "JSON"
    assert answer.headers["X-ClickHouse-Timezone"] and answer.headers["X-ClickHouse-Server-Display-Name"]
    summary = json.loads(answer.headers["X-ClickHouse-Summary"])
    assert summary["read_rows"] == "5" and int(summary["elapsed_ns"]) > 0
    assert json.loads(answer.body)["rows"] == 5
    assert ask(server, "SELECT 1").text == "1\n"
    assert ask(server, "SELECT 1", default_format="CSVWithNames").text == '"1"\n1\n'


def test_a_condition_is_looked_at_after_copies_are_taken_out(server: Server) -> None:
    for text in ("first", "second"):
        assert write(server, f"INSERT INTO notes (id, text) VALUES (77, '{text}')", b"").status == 200
    for where, texts in (
        ("text = 'first'", ""), ("id = 77 AND text = 'first'", ""), ("id = 77", "second\n"), ("text = 'second' AND id > 5", "second\n"),
        ("(id, text) IN ((77, 'first'))", ""), ("id + length(text) = 82", ""),
    ):  # fmt: skip
        assert ask(server, f"SELECT text FROM notes WHERE {where}").text == texts, where


def test_an_answer_without_rows_is_computed_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(Engine, "note", lambda _, sql: ran.append(sql))
    for format, answer in (("TabSeparated", ""), ("Null", ""), ("JSONEachRow", "")):
        ran.clear()
        assert ask(server, f"SELECT id FROM notes WHERE id = 404 FORMAT {format}").text == answer
        assert len([sql for sql in ran if "404" in sql and "formatQuery" not in sql]) == 1, ran


@pytest.mark.parametrize("format", ["JSON", "JSONCompact", "TSVWithNames", "CSVWithNames", "Parquet", "JSONEachRow", "Pretty", "XML"])
def test_no_rows_have_their_frame(server: Server, format: str) -> None:
    sql = f"SELECT id, text FROM notes WHERE 0 FORMAT {format}"
    with server.engine.handle(database="telemetry") as handle:
        expected = handle.query(sql)
    got = ask(server, sql).body
    assert got[:120] == expected[:120]  # further on some tell the time taken


def test_errors_as_clickhouse_says_them(server: Server) -> None:
    for sql, status, code, name in (
        ("SELEC 1", 400, 62, "SYNTAX_ERROR"), ("SELECT * FROM nowhere", 404, 60, "UNKNOWN_TABLE"), ("SELECT x", 404, 47, "UNKNOWN_IDENTIFIER"),  # noqa: E501
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"), ("SELECT 1; SELECT 2", 400, 62, "SYNTAX_ERROR"),
        ("SELECT {a:UInt8}", 400, 456, "UNKNOWN_QUERY_PARAMETER"), ("SELECT 1 FORMAT Nothing", 404, 73, "UNKNOWN_FORMAT"),
        ("SELECT " + "x" * 100_000, 404, 47, "UNKNOWN_IDENTIFIER"),
    ):  # fmt: skip
        answer = ask(server, body=sql.encode())
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (status, str(code)), answer.text
        assert answer.text.startswith(f"Code: {code}. DB::Exception: ") and f"({name})" in answer.text
        assert "formatQuery" not in answer.text and len(answer.text) < 2000
    answer = ask(server, "SELECT 1", nosuch="1")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (404, "115")
    assert ask(server, "SELECT 1", database="elsewhere").status == 404


@pytest.mark.parametrize(
    ("kind", "value"),
    [("UInt8", "x"), ("UInt64", ""), ("Array(String)", "x"), ("Array(UInt8)", "['a']"), ("Bool", "x"), ("UUID", "x"),
     ("Enum('a' = 1)", "b"), ("FixedString(2)", "abc"), ("DateTime", "x")],
)  # fmt: skip
def test_a_parameter_that_is_none_of_its_type_is_the_clients_mistake(server: Server, kind: str, value: str) -> None:
    assert ask(server, f"SELECT {{a:{kind}}}", param_a=value).status == 400


@pytest.mark.parametrize("sql", ["plus(1)", "sum('a')", "[1, 'a']", "toDate(map(1, 2))", "1 WHERE 'x'", "intDiv(1, 0)"])
def test_what_types_dont_allow_is_the_clients_mistake(server: Server, sql: str) -> None:
    assert ask(server, f"SELECT {sql}").status == 400


def test_credentials(server: Server) -> None:
    for params in ({}, {"user": "telemetry_reader", "password": "wrong"}, {"user": "default", "password": ""}, {"user": "telemetry_user"}):
        answer = ask(server, "SELECT 1", user="", params=params)
        assert answer.status == (403 if params else 401)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "516" and answer.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert "(AUTHENTICATION_FAILED)" in answer.text
    anonymous = server.ports["anonymous"]
    assert ask(server, "SELECT 1", user="", port=anonymous).text == "1\n"
    assert ask(server, "INSERT INTO notes (id) VALUES (1)", b"", user="", port=anonymous).headers["X-ClickHouse-Exception-Code"] == "164"
    assert ask(server, "SELECT 1", user="", port=anonymous, headers={"X-ClickHouse-User": "telemetry_reader"}).status == 403


def test_get_is_read_only(server: Server) -> None:
    answer = ask(server, "INSERT INTO notes (id) VALUES (1)", user="telemetry_user")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "164"


@pytest.mark.needs("curl")
def test_curl_as_people_write_it(server: Server) -> None:
    def curl(*words: str, data: bytes = b"") -> str:
        return subprocess.run(["curl", "-sS", *words], input=data, capture_output=True, check=True).stdout.decode()

    url, writer, reader = (
        f"http://localhost:{server.port}/",
        ["-u", f"telemetry_user:{WRITER_PASSWORD}"],
        ["-u", f"telemetry_reader:{READER_PASSWORD}"],
    )
    assert curl("-G", url, *reader, "--data-urlencode", "query=SELECT 'a', 1 FORMAT CSV") == '"a",1\n'
    assert curl(url, *reader, "-d", "SELECT {n:UInt8} + {m:UInt8}", "--url-query", "param_n=2", "--url-query", "param_m=3") == "5\n"
    assert curl(f"{url}?param_s=it%27s%5Ctso", *reader, "--data-binary", "SELECT {s:String} FORMAT TSVRaw") == "it's\tso\n"
    assert curl(f"{url}?user=telemetry_reader&password={READER_PASSWORD}&max_threads=1", "-d", "SELECT getSetting('max_threads')") == "1\n"
    assert (
        curl(
            url + "?query=INSERT%20INTO%20notes%20FORMAT%20JSONEachRow",
            *writer,
            "--data-binary",
            "@-",
            data=b'{"id":11,"text":"from curl"}\n',
        )
        == ""
    )
    assert curl(url, *writer, "--data-binary", "@-", data=b'INSERT INTO notes (id, text) FORMAT CSV\n12,"two"\n') == ""
    assert curl(url, *writer, "-d", "INSERT INTO telemetry.notes (id, text) VALUES (13, 'it''s ' || 'it'), (14, '\\n')") == ""
    assert curl(url, *writer, "-d", "INSERT INTO notes (id, text) SELECT 15, 'selected'") == ""
    zipped = gzip.compress(b'{"id":16,"text":"zipped"}\n')
    assert (
        curl(
            url + "?query=INSERT%20INTO%20notes%20FORMAT%20JSONEachRow",
            *writer,
            "-H",
            "Content-Encoding: gzip",
            "--data-binary",
            "@-",
            data=zipped,
        )
        == ""
    )
    got = curl(
        "-G",
        url,
        *reader,
        "--data-urlencode",
        "query=SELECT id, text FROM notes WHERE id BETWEEN 11 AND 16 ORDER BY id",
        "--compressed",
        "-d",
        "enable_http_compression=1",
    )
    assert got == "11\tfrom curl\n12\ttwo\n13\tit\\'s it\n14\t\\n\n15\tselected\n16\tzipped\n"


def test_insert_reaches_views_that_join(server: Server) -> None:
    """As OTLP's road does. The engine's own streaming insert lost such rows without a word."""
    row = {
        "Timestamp": "2026-11-01 10:00:00",
        "LogAttributes": {"event.name": "api_request", "session.id": "s-http", "cost_usd": "0.5", "input_tokens": "7"},
    }
    answer = write(server, "INSERT INTO otel_logs FORMAT JSONEachRow", json.dumps(row).encode() * 3)
    assert answer.status == 200, answer.text
    assert int(json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"]) >= 3
    answer = ask(server, "SELECT count(), sum(cost_usd), any(input_tokens) FROM telemetry_events WHERE event_type = 'api_request'")
    assert answer.text == "1\t0.5\t7\n"  # final is the default, and three times the same is once
    assert ask(server, "SELECT count() FROM telemetry_events WHERE event_type = 'api_request'", final="0").text in ("1\n", "3\n")
    answer = write(server, "INSERT INTO notes FORMAT JSONEachRow", b'{"id": "no number"}')
    assert answer.status == 400 and answer.text.startswith("Code: 2"), answer.text


def test_clickhouse_connect(server: Server) -> None:
    client = clickhouse_connect.get_client(host="127.0.0.1", port=server.port, username="telemetry_user", password=WRITER_PASSWORD)
    rows = [[i, f"row {i}", {"k": str(i)}] for i in range(1000, 3000)]
    assert client.insert("notes", rows, column_names=["id", "text", "tags"], database="telemetry").written_rows == 2000
    result = client.query(
        "SELECT id, text, tags FROM telemetry.notes WHERE id >= {low:UInt64} AND id < 3000 ORDER BY id", parameters={"low": 1000}
    )
    assert [list(row) for row in result.result_rows] == rows
    assert int(result.summary["read_rows"]) >= 2000
    assert client.command("SELECT count() FROM notes WHERE id BETWEEN 1000 AND 2999") == 2000
    client.command("ALTER TABLE notes DELETE WHERE id = 1000 SETTINGS mutations_sync = 1")
    assert client.query("SELECT count() FROM notes WHERE id = 1000", settings={"max_threads": 1}).result_rows == [(0,)]
    types = "SELECT toLowCardinality('a') l, toNullable(1) n, [1,2] a, toDateTime64('2026-01-02 03:04:05.678', 3, 'UTC') t, (1, 'x') p, 0.5::Float32 f"  # noqa: E501
    assert client.query(types).result_rows[0][:3] == ("a", 1, [1, 2])
    assert client.query("SELECT id FROM notes WHERE 0").result_rows == []
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT * FROM nowhere")
    assert caught.value.code == 60 and caught.value.name == "UNKNOWN_TABLE"
    with client.query_rows_stream("SELECT number, toString(number) FROM numbers(300000)") as stream:
        assert sum(row[0] for row in stream) == 300000 * 299999 // 2
    assert client.query("SELECT length({s:String})", parameters={"s": "long" * 50_000}).first_row == (200_000,)
    client.close()


def test_clickhouse_connect_async(server: Server) -> None:
    async def go() -> None:
        async with await clickhouse_connect.get_async_client(
            host="127.0.0.1", port=server.port, username="telemetry_user", password=WRITER_PASSWORD
        ) as client:
            await client.insert("telemetry.notes", [[5000 + i, "x", {}] for i in range(100)], column_names=["id", "text", "tags"])
            results = await asyncio.gather(*(client.query("SELECT count() FROM notes WHERE id BETWEEN 5000 AND 5099") for _ in range(20)))
            assert {result.result_rows[0][0] for result in results} == {100}
            with pytest.raises(DatabaseError) as caught:
                await client.query("SELECT throwIf(1)")
            assert caught.value.code == 395

    asyncio.run(go())


def test_answers_of_many_pieces_are_one(server: Server) -> None:
    """The engine's stream repeats frame and header in each of its pieces."""
    sql = "SELECT number, toString(number) AS text FROM numbers(200000)"
    assert len(json.loads(ask(server, sql, default_format="JSON").body)["data"]) == 200_000
    for format, lines in (("CSVWithNames", 1), ("TSVWithNamesAndTypes", 2), ("JSONEachRow", 0), ("CSV", 0), ("RowBinaryWithNames", None)):
        body = ask(server, sql, default_format=format).body
        assert lines is None or body.count(b"\n") == 200_000 + lines
        with server.engine.handle() as handle:
            assert body == handle.query(sql, format)
    with server.engine.handle() as handle:
        assert ask(server, sql, default_format="Parquet").body[-4:] == handle.query(sql, "Parquet")[-4:] == b"PAR1"


def test_packed_bodies_are_bounded(server: Server) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(bomb.compress(b" " * (1 << 20)) for _ in range(200)) + bomb.flush()
    answer = write(server, "INSERT INTO notes FORMAT CSV", body, headers={"Content-Encoding": "gzip"})
    assert answer.status == 413


def test_guard(server: Server) -> None:
    for headers, status in (
        ({"Host": "evil.example"}, 403), ({"Host": "localhost.evil.example:8123"}, 403), ({"Host": f"LOCALHOST:{server.port}"}, 200),
        ({"Host": "[::1]:8123"}, 200), ({"Host": "127.0.0.1"}, 200), ({"Host": "127.0.0.1@evil.example"}, 403), ({"Origin": "https://evil.example"}, 403),  # noqa: E501
        ({"Origin": "null"}, 403), ({"Origin": f"http://127.0.0.1:{server.port}"}, 200), ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Connection": "Upgrade", "Upgrade": "websocket"}, 403), ({"Host": ""}, 403),
    ):  # fmt: skip
        answer = ask(server, "SELECT 1", headers=headers)
        assert answer.status == status, headers
        assert not any(name.lower().startswith("access-control") for name in answer.headers)

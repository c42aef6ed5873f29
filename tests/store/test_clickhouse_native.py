"""Native at later revisions, as clickhouse-go reads it: what is written is decoded here by another reading of the format."""

from __future__ import annotations

from collections.abc import Iterator

import clickhouse_connect
import pytest
from clickhouse_connect.datatypes import registry
from clickhouse_connect.driver.query import QueryContext

from sp_telemetry.serve.clickhouse_native import at_revision
from tests.store.clickhouse_server import WRITER_PASSWORD, Server, ask, write

GO = "54460"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("native"))
    yield server
    server.close()


END = b"\0THE END"


def reader(data: bytes):
    class Source:
        gen = iter([data])

    from clickhouse_connect.driverc.buffer import ResponseBuffer as Compiled

    return Compiled(Source())


def decoded(data: bytes) -> tuple[list[tuple[str, str]], list[tuple]]:
    if not data:
        return [], []
    source, header, rows = reader(data + END), [], []
    while (start := source.read_bytes(8)) != END:
        assert start == b"\x01\x00\x02\xff\xff\xff\xff\x00"
        columns, count = source.read_leb128(), source.read_leb128()
        names, values, context = [], [], QueryContext()
        for _ in range(columns):
            name, kind = source.read_leb128_str(), source.read_leb128_str()
            assert source.read_byte() == 0
            names.append((name, kind))
            context.start_column(name)
            values.append(registry.get_from_name(kind).read_column(source, count, context) if count else [])
        header = header or names
        rows += zip(*values, strict=True)
    return header, rows


TYPES = """SELECT number AS n, toString(number) AS s, toLowCardinality(toString(number % 3)) AS lc,
toLowCardinality(toNullable('x')) AS lcn,
nullIf(number, 5) AS nu, [number, 1] AS a, map(toLowCardinality('k'), toString(number)) AS m, (number, 'x', [toNullable(1)]) AS t,
toDateTime64(number, 9, 'UTC') AS dt, toDate(number) AS d, toDecimal64(number, 3) AS de,
toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0') AS u,
toIPv4('1.2.3.4') AS ip, toFixedString('ab', 3) AS f, true AS b, [[toLowCardinality('y')]] AS aa, CAST('a', 'Enum8(\\'a\\' = 1)') AS e,
toFloat64(number) AS fl, toInt256(number) AS big, CAST([(1, 'q')], 'Nested(x UInt8, y String)') AS ne FROM numbers(200000)"""


def test_every_type_and_many_blocks(server: Server) -> None:
    answer = ask(server, body=TYPES.encode(), default_format="Native", client_protocol_version=GO)
    assert answer.status == 200, answer.text
    header, rows = decoded(answer.body)
    client = clickhouse_connect.get_client(host="127.0.0.1", port=server.port, username="telemetry_user", password=WRITER_PASSWORD)
    plain = client.query(TYPES)
    assert [name for name, _ in header] == list(plain.column_names) and rows == [tuple(row) for row in plain.result_rows]
    client.close()
    assert len(rows) == 200_000 and rows[7][:3] == (7, "7", "1") and len(header) == 20


def test_what_the_collectors_exporter_asks(server: Server) -> None:
    asked = {"client_protocol_version": GO, "default_format": "Native", "database": "telemetry", "async_insert": "0"}
    header, rows = decoded(write(server, body=b"SELECT displayName(), version(), revision(), timezone()", **asked).body)
    assert [name for name, _ in header] == ["displayName()", "version()", "revision()", "timezone()"] and rows[0][1].startswith("2")
    _, rows = decoded(write(server, body=b'DESC TABLE "telemetry"."otel_logs"', **asked).body)
    assert rows[0][:2] == ("Timestamp", "DateTime64(9)")
    block = ask(server, "SELECT 's-native' AS session_id, toDateTime64(1, 9, 'UTC') AS at FORMAT Native").body
    answer = write(server, body=b"INSERT INTO `telemetry`.`session_context` (session_id, at) FORMAT Native\n" + block, **asked)
    assert answer.status == 200, answer.text
    assert ask(server, "SELECT count() FROM session_context WHERE session_id = 's-native'").text == "1\n"
    assert decoded(write(server, body=b"SELECT * FROM telemetry_events WHERE 0", **asked).body) == ([], [])


def test_revisions() -> None:
    block = b"\x01\x01\x01a\x05UInt8\x07"
    assert b"".join(at_revision([block], 51902)) == block
    assert b"".join(at_revision([block, block], 51903)) == (b"\x01\x00\x02\xff\xff\xff\xff\x00" + block) * 2
    assert b"".join(at_revision([block], 54454)) == b"\x01\x00\x02\xff\xff\xff\xff\x00\x01\x01\x01a\x05UInt8\x00\x07"

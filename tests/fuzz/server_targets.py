"""What a server is sent, and what it answers."""

from __future__ import annotations

import re
import zlib
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from google.protobuf.message import DecodeError

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve import clickhouse_request, clickhouse_statement, guard
from sp_telemetry.store import framing, journal
from sp_telemetry.store.client import Answer, _failure
from tests.fuzz.targets import either, target, text_of
from tests.recordings.clean import empty_message


@target
def clickhouse_http_request(data: bytes) -> None:
    """Address, headers and body, a line feed between them: a request that is read, or ClickHouse's error. Of an INSERT with data the
    statement is a beginning of what came and the data an end of it."""
    address, headers, body = [*data.split(b"\n", 2), b"", b""][:3]
    values = dict(parse_qsl(address.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"))
    named = dict(line.partition(": ")[::2] for line in headers.decode("latin-1").split("\r"))
    for name in ("Authorization", "X-ClickHouse-User"):
        if name in named:
            either(lambda: clickhouse_request.credentials(values, named), QueryFailed)
    asked = either(lambda: clickhouse_request.read(values, named, body), QueryFailed)
    if isinstance(asked, QueryFailed):
        assert asked.code
        return
    assert asked.query_id.isascii() and asked.query_id.isprintable()
    if asked.data is not None:
        query = values.get("query", "").encode("utf-8", "surrogateescape")
        whole = query + (b"\n" if query and body else b"") + body
        assert whole.startswith(asked.sql.encode()) and whole.endswith(asked.data)
        assert re.match(r"(\s|--[^\n]*\n|#[! ][^\n]*\n|/\*.*?\*/)*insert", asked.sql, re.IGNORECASE | re.DOTALL)


@target
def clickhouse_scan(data: bytes) -> None:
    """Any text in place of a canonical one: read or refused with ClickHouse's code; what is hidden is never let through unquoted."""
    text = text_of(data)
    known = frozenset({"max_threads", "select", "final"})
    for user in ("telemetry_reader", "telemetry_user"):
        statement = either(lambda user=user: clickhouse_statement.examine(text, user, {}, frozenset({"url"}), known), QueryFailed)
        if isinstance(statement, QueryFailed):
            assert statement.code
            continue
        assert user == "telemetry_user" or statement.kind in clickhouse_statement.READS
        unquoted = re.sub(r"'(?:\\.|[^'\\])*'|\{[^{}']*\}", "''", text, flags=re.DOTALL)
        assert (
            not re.search(r"\b(installation|url|file)\s*\(|\binstallation\b", unquoted, re.IGNORECASE | re.ASCII) or not unquoted.isascii()
        )


@target
def hosts(data: bytes) -> None:
    """Whatever stands in Host and Origin: only our own names pass."""
    host, origin = [*data.split(b"\n", 1), b""][:2]
    headers = {"Host": host.decode("latin-1").replace("\r", "")}
    if origin:
        headers["Origin"] = origin.decode("latin-1").replace("\r", "").replace("\n", "")
    request: web.Request = make_mocked_request("GET", "/", headers=headers)
    if not guard.reason_to_refuse(request, guard.LOOPBACK):
        assert re.fullmatch(r"(localhost|127\.0\.0\.1|\[::1\])(:\d*)?", headers["Host"], re.IGNORECASE), headers
        assert headers.get("Origin", "http://" + headers["Host"]).lower() == "http://" + headers["Host"].lower()


@target
def journal_records(data: bytes) -> None:
    """What a disk made of a journal's file: each record that is whole is found, whatever stands before and behind it; every other byte is
    damaged, but for what a kill leaves of the last one."""
    good = journal.HEAD.pack(4, zlib.crc32(b"good")) + b"good"
    for whole, place in ((data, None), (good + data, 0), (data + good, -1), (data + good + data, None)):
        blocks, lost = journal._records(whole)
        assert place is None or blocks[place] == b"good"
        said = sum(journal.HEAD.size + len(block) for block in blocks) + lost
        assert said == len(whole) or (said < len(whole) and journal._is_torn(whole[said:])), (blocks, lost)


@target
def otlp_framing(data: bytes) -> None:
    """A body that is put together with others: OpenTelemetry's own reader finds in the whole what it finds in each, and a record where it
    is said that there is one."""
    read = either(lambda: empty_message("logs").FromString(data), DecodeError)
    one = empty_message("logs")
    one.resource_logs.add().scope_logs.add().log_records.add().time_unix_nano = 1
    good = one.SerializeToString()
    joined = either(lambda: list(framing.together([good, data, good], 1 << 16)), QueryFailed)
    if not isinstance(joined, QueryFailed):
        length, at = framing.varint_at(joined[0], 0)
        assert joined[0][at:] == good + data + good and len(joined[0]) - at == length
    if isinstance(read, DecodeError):
        return
    records = sum(len(scope.log_records) for resource in read.resource_logs for scope in resource.scope_logs)
    assert records or not framing.holds_a_record(data)
    if framing.is_whole(data):
        assert len(empty_message("logs").FromString(good + data + good).resource_logs) == len(read.resource_logs) + 2


@target
def store_answer(data: bytes) -> None:
    """Whatever answers at the address of a store, or stands in its header: rows under names, or QueryFailed that says what to do."""
    text = text_of(data)
    assert str(_failure(text, 500, text))
    answer = either(lambda: Answer.read(data), QueryFailed)
    if isinstance(answer, QueryFailed):
        assert str(answer) and len(str(answer)) < 1000
        return
    assert all(len(row) == len(answer.names) == len(answer.types) for row in answer.rows)
    answer.records()

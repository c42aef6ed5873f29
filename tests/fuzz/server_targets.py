"""What a server is sent, and what it answers."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve import clickhouse_request, clickhouse_statement, guard
from tests.fuzz.targets import either, target, text_of


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

"""Parsers of text and bytes, each with what must hold for any input. A target takes bytes and raises where it does not hold."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tomllib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from sp_telemetry.context import configfile, rules
from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve import clickhouse_request, clickhouse_statement, guard
from sp_telemetry.setup import json_text
from tests.conftest import ROOT

sys.path.append(str(ROOT / "hooks" / "lib"))
import places
import quickjson
import wire

TARGETS: dict[str, Callable[[bytes], None]] = {}


def target(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    TARGETS[check.__name__] = check
    return check


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _either(call: Callable[[], Any], *expected: type[BaseException]) -> Any:
    """What `call` gives, or the error that was to be expected."""
    try:
        return call()
    except expected as error:
        return error


def _same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # NaN is itself


@target
def quick_json(data: bytes) -> None:
    """What json reads is read the same; what it writes, json reads. A value may be followed by more, for a line is cut by its reader."""
    text = _text(data)
    quick = _either(lambda: quickjson.loads(text), ValueError, RecursionError)
    full = _either(lambda: json.loads(text, strict=False), ValueError, RecursionError)
    if not isinstance(full, Exception):
        assert _same(quick, full), (quick, full)
    if not isinstance(quick, Exception) and "NaN" not in repr(text) and "Infinity" not in text:
        with contextlib.suppress(RecursionError):
            finite = not re.search(r"\b(inf|nan)\b", repr(quick))
            assert not finite or json.loads(quickjson.dumps(quick)) == json.loads(json.dumps(quick))


@target
def hooks_settings(data: bytes) -> None:
    """Of a file that is TOML, the strings, whole numbers and booleans at its top as tomllib has them, or nothing."""
    text = _text(data)
    values = places.top_level(text)
    assert all(type(value) in (str, int, bool) for value in values.values())


@target
def context_settings(data: bytes) -> None:
    """What is read at all is read as tomllib reads it."""
    text = _text(data)
    ours = _either(lambda: configfile.parse(text), ValueError)
    if not isinstance(ours, ValueError):
        assert tomllib.loads(text.replace("\r\n", "\n")) == ours, (text, ours)


@target
def context_rules(data: bytes) -> None:
    """Any branch, directory, file, prompt and configuration: a decision of clean, short texts."""
    pieces = [*_text(data).split("\x1f"), *[""] * 5][:5]
    branch, directory, file, prompt, written = pieces
    config = _either(lambda: configfile.parse(written), ValueError)
    decision = rules.decide(branch, directory, [file], [directory], prompt, {} if isinstance(config, ValueError) else config)
    for finding in decision:
        for value in finding if isinstance(finding, tuple) else (finding,):
            assert not isinstance(value, str) or (len(value) <= 2000 and value.isprintable()), finding


@target
def settings_json(data: bytes) -> None:
    """A member put into a file that is JSON is there, nothing else changed; removed, it is not there."""
    text = _text(data)
    before = _either(lambda: json_text.parse(text), json_text.NotJson)
    if isinstance(before, json_text.NotJson) or not isinstance(before, dict) or not isinstance(before.get("env", {}), dict):
        _either(lambda: json_text.put(text, ("env", "OURS"), "x"), json_text.NotJson)
        return
    put = json_text.put(text, ("env", "OURS"), "é\n")
    expected = {**before, "env": {**before.get("env", {}), "OURS": "é\n"}}
    assert _same(_sorted(json_text.parse(put)), _sorted(expected)), (text, put)
    removed = json_text.parse(json_text.remove(put, ("env", "OURS")))
    assert "OURS" not in removed["env"]


def _sorted(value: Any) -> Any:
    return {name: _sorted(inner) for name, inner in sorted(value.items())} if isinstance(value, dict) else value


@target
def hooks_http(data: bytes) -> None:
    """Any answer of a server: a status and a body, or an OSError."""
    connection = wire.Connection.__new__(wire.Connection)
    connection._until, connection._answer = float("inf"), b""
    connection._bound = lambda: None
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]

    class Socket:
        recv = staticmethod(lambda _: pieces.pop(0) if pieces else b"")
        close = staticmethod(lambda: None)

    connection._socket = Socket()
    status, body = connection.answer()
    assert isinstance(status, int) and isinstance(body, bytes)


@target
def clickhouse_http_request(data: bytes) -> None:
    """Address, headers and body, a line feed between them: a request that is read, or ClickHouse's error. Of an INSERT with data the
    statement is a beginning of what came and the data an end of it."""
    address, headers, body = [*data.split(b"\n", 2), b"", b""][:3]
    values = dict(parse_qsl(address.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"))
    named = dict(line.partition(": ")[::2] for line in headers.decode("latin-1").split("\r"))
    for name in ("Authorization", "X-ClickHouse-User"):
        if name in named:
            _either(lambda: clickhouse_request.credentials(values, named), QueryFailed)
    asked = _either(lambda: clickhouse_request.read(values, named, body), QueryFailed)
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
    text = _text(data)
    known = frozenset({"max_threads", "select", "final"})
    for user in ("telemetry_reader", "telemetry_user"):
        statement = _either(lambda user=user: clickhouse_statement.examine(text, user, {}, frozenset({"url"}), known), QueryFailed)
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

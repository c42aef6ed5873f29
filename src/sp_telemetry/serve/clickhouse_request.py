"""What an HTTP request to the ClickHouse interface asks for. Pure: no engine, no sockets."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from sp_telemetry.errors import QueryFailed

# Parameters of the interface itself; every other one is a setting.
# fmt: off
RESERVED = frozenset([
    "query", "user", "password", "database", "default_format", "query_id", "session_id", "session_timeout", "session_check",
    "quota_key", "role", "stacktrace", "enable_http_compression", "http_zlib_compression_level", "wait_end_of_query",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "buffer_size", "client_protocol_version", "compress",
    "decompress", "async_insert", "wait_for_async_insert", "http_write_exception_in_output_format", "add_http_cors_header",
    "cancel_http_readonly_queries_on_client_close", "close_session",
])
# fmt: on
_SETTING = re.compile(r"[a-z][a-zA-Z0-9_]*\Z")
# What is not closed goes to the end, and nothing is gone back for: a sender's text may be made to take for ever.
_SKIP = rb"\s++|--[^\n]*+|#[! ][^\n]*+|/\*.*?(?:\*/|\Z)"
_QUOTED = "|".join(rf"{quote}(?:\\(?:.|\Z)|{quote}{quote}|[^{quote}\\])*+(?:{quote}|\Z)" for quote in "'`\"").encode()
_TOKEN = re.compile(_SKIP + b"|" + _QUOTED + rb"|[A-Za-z_][A-Za-z0-9_]*|.", re.DOTALL)
_FORMAT = re.compile(rb"(?:" + _SKIP + rb")*+([A-Za-z][A-Za-z0-9_]*)[ \t\f]*;?[ \t\f]*\r?\n?", re.DOTALL)


def refuse(code: int, name: str, message: str) -> QueryFailed:
    """An error of our own in ClickHouse's words."""
    return QueryFailed(f"Code: {code}. DB::Exception: {message} ({name})", code=code)


@dataclass(frozen=True)
class Asked:
    """One request, read. `data` is what an INSERT brings, None for every other statement."""

    sql: str
    data: bytes | None = None
    insert_format: str = ""
    default_format: str = "TabSeparated"
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str = ""
    query_id: str = ""
    gzip: bool = False
    wait_end_of_query: bool = False
    protocol_version: int = 0


@dataclass(frozen=True)
class Credentials:
    """Who the request says it is from; `given` is False when it says nothing."""

    user: str = ""
    password: str = ""
    given: bool = False


def credentials(values: Mapping[str, str], headers: Mapping[str, str]) -> Credentials:
    """From X-ClickHouse-User/-Key, basic authentication, or user=/password=. Two ways at once are refused, as ClickHouse does."""
    ways = []
    if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
        ways.append(Credentials(headers.get("X-ClickHouse-User", ""), headers.get("X-ClickHouse-Key", ""), True))
    if headers.get("Authorization"):
        ways.append(_basic(headers["Authorization"]))
    if "user" in values or "password" in values:
        ways.append(Credentials(values.get("user", ""), values.get("password", ""), True))
    if len(set(ways)) > 1:
        raise refuse(516, "AUTHENTICATION_FAILED", "Invalid authentication: credentials were given in two ways that differ.")
    return ways[0] if ways else Credentials()


def _basic(header: str) -> Credentials:
    scheme, _, text = header.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        user, _, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        raise refuse(516, "AUTHENTICATION_FAILED", "Invalid authentication: only basic authentication is understood.") from None
    return Credentials(user, password, True)


def read(values: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Asked:
    """The request with its parameters, headers and (decompressed) body. Raises QueryFailed."""
    query = values.get("query", "")
    raw = query.encode("utf-8", "surrogateescape") + (b"\n" if query and body else b"") + body
    head, data, insert_format = split_insert(raw)
    try:
        sql = head.decode()
    except UnicodeDecodeError:
        raise refuse(62, "SYNTAX_ERROR", "The query is not valid UTF-8.") from None
    settings = {}
    for name, value in values.items():
        if name in RESERVED or name.startswith("param_"):
            continue
        if not _SETTING.match(name):
            raise refuse(115, "UNKNOWN_SETTING", f"Unknown setting '{name[:100]}'.")
        settings[name] = value
    if any(values.get(name, "0") == "1" for name in ("compress", "decompress")):
        raise refuse(48, "NOT_IMPLEMENTED", "ClickHouse's own block compression is not offered; use Content-Encoding and Accept-Encoding.")
    version = values.get("client_protocol_version", "0")
    return Asked(
        sql=sql,
        data=data,
        insert_format=insert_format,
        default_format=values.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
        parameters={name[6:]: value for name, value in values.items() if name.startswith("param_")},
        settings=settings,
        database=values.get("database") or headers.get("X-ClickHouse-Database", ""),
        query_id=printable(values.get("query_id") or headers.get("X-ClickHouse-Query-Id") or str(uuid.uuid4())),
        gzip=_true(values.get("enable_http_compression")) and accepts_gzip(headers.get("Accept-Encoding", "")),
        wait_end_of_query=_true(values.get("wait_end_of_query")),
        protocol_version=int(version) if version.isdigit() and len(version) < 10 else 0,
    )


def printable(text: str) -> str:
    """`text` as it may stand in a header."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:200]


def accepts_gzip(header: str) -> bool:
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in ("gzip", "*") and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return True
    return False


def _true(value: str | None) -> bool:
    return value is not None and value.lower() in ("1", "true")


def split_insert(raw: bytes) -> tuple[bytes, bytes | None, str]:
    """(statement, data, format) of an INSERT that brings data, (raw, None, "") of everything else.

    The statement is cut before FORMAT or VALUES, so nothing in it depends on the data. INSERT … SELECT stays whole.
    """
    at, depth, words, first = 0, 0, [], True
    size = len(raw)
    while at < size:
        found = _TOKEN.match(raw, at)
        if found is None:
            break
        token, start, at = found[0], at, found.end()
        if token.isspace() or token.startswith((b"--", b"# ", b"#!", b"/*")):
            continue
        word = token.upper() if token[:1].isalpha() else token
        if first and word != b"INSERT":
            return raw, None, ""
        first = False
        words.append(word)
        if token in b"([{":
            depth += 1
        elif token in b")]}":
            depth -= 1
        elif depth == 0 and len(words) > 2 and word in (b"SELECT", b"WITH", b"FROM", b"WATCH"):
            return raw, None, ""
        elif depth == 0 and len(words) > 2 and word == b"VALUES":
            return raw[:start], raw[at:], "Values"
        elif depth == 0 and len(words) > 2 and word == b"FORMAT" and words[-2] != b".":
            return _after_format(raw, start, at)
    return raw, None, ""


def _after_format(raw: bytes, start: int, at: int) -> tuple[bytes, bytes | None, str]:
    """The format's name, then blanks up to and with one line's end, then data: ClickHouse's own rule."""
    found = _FORMAT.match(raw, at)
    if found is None:
        raise refuse(62, "SYNTAX_ERROR", "Syntax error: expected the name of a format after FORMAT.")
    return raw[:start], raw[found.end() :], found[1].decode()

"""The one seam to the store: the ClickHouse HTTP interface, whoever answers there (the embedded server, a server, a cluster).

A reader asks one or two questions and ends, so what counts is the time to the first of them. clickhouse-connect, the client that
the documents name and that tests hold against the same interface, takes about 0.2 s to be imported and asks three questions
to connect; the standard library takes a tenth of that. docs/decisions.md has the figures.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from sp_telemetry.errors import QueryFailed, ServerUnreachable, UsageError
from sp_telemetry.home import READER, Home
from sp_telemetry.settings import Settings, reached_at

DATABASE = "telemetry"
_PIECE = 1 << 16
_LIMITS = {158: "rows", 159: "time", 160: "time", 241: "memory", 307: "bytes", 396: "result size"}
_CREDENTIALS = (192, 193, 194, 516)
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


@dataclass(frozen=True)
class Answer:
    """A result as a whole: column names, their ClickHouse types, and rows of Python values."""

    names: list[str]
    types: list[str]
    rows: list[list[Any]]
    statistics: Mapping[str, Any]

    @classmethod
    def read(cls, text: bytes) -> Answer:
        """What FORMAT JSONCompact wrote. Raises QueryFailed where it is an error, whole or behind the first rows."""
        try:
            document = json.loads(text)
            if "exception" in document:
                raise _failure(document["exception"], 0)
            types = [column["type"] for column in document["meta"]]
            if {len(row) for row in document["data"]} - {len(types)}:
                raise ValueError
            whole = [index for index, kind in enumerate(types) if _is_integer(kind)]
            for row in document["data"]:
                for index in whole:
                    if row[index].__class__ is str:  # servers before 25.8 quote 64-bit numbers
                        row[index] = int(row[index])
            return cls([column["name"] for column in document["meta"]], types, document["data"], document.get("statistics", {}))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):  # no JSON, or somebody else's
            raise _failure(text.decode(errors="replace"), 0) from None

    def records(self) -> list[dict[str, Any]]:
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]


class Client:
    """Asks the ClickHouse HTTP interface at `url` as one user. Opens a connection for each question."""

    def __init__(
        self, url: str, user: str, password: str, *, timeout_s: float = 35.0, local: bool = True, database: str = DATABASE
    ) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            known = parts.scheme in ("http", "https") and parts.hostname and (parts.port != 0 or local) and len(url.split()) == 1
        except ValueError:  # of a port that is none, of brackets
            known = False
        if not known:
            raise UsageError(f"url is {url!r}; expected an address like http://127.0.0.1:8123.")
        self._secure = parts.scheme == "https"
        self._host, self._path = parts.hostname, parts.path or "/"
        # 0: our own server takes a free port at its start, and none runs that could tell which; so nobody answers
        self._port = parts.port if parts.port is not None else 8443 if self._secure else 8123
        self._user = unquote(parts.username) if parts.username else user
        self._password = unquote(parts.password) if parts.password else password
        self._timeout_s, self._local, self._database = timeout_s, local, database
        self.address = f"{parts.scheme}://{self._host}:{self._port}"

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        """The whole answer to one statement with `{name:Type}` parameters. Raises ServerUnreachable, QueryFailed."""
        return Answer.read(b"".join(self.stream(sql, "JSONCompact", parameters)))

    def insert(self, table: str, format: str, *data: bytes) -> None:
        """Write `data`, rows in `format`, to a table of the database; pieces go one behind the other. Takes a user who may write. Rows of
        one key stay until they are merged, as those of several inserts do: to look for them is more than half of an insert."""
        for _ in self.stream(f"INSERT INTO {table} FORMAT {format}", "Null", data=data, settings={"optimize_on_insert": "0"}):
            pass

    def stream(
        self,
        sql: str,
        format: str,
        parameters: Mapping[str, Any] | None = None,
        data: Sequence[bytes] = (),
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """The answer in `format`, in pieces as they come. A FORMAT in the statement wins over `format`. `data` is what an INSERT brings."""
        asked = {"default_format": format} | ({"database": self._database} if self._database else {}) | dict(settings or {})
        asked |= {f"param_{name}": _as_parameter(value) for name, value in (parameters or {}).items()}
        try:
            path, body = f"{self._path}?{urlencode(asked)}", [sql.encode() + b"\n", *data]
        except UnicodeEncodeError as error:
            what = error.object[max(error.start - 20, 0) : error.start + 20]
            raise UsageError(f"{what!r} is not UTF-8.", "Is it written in another encoding?") from None
        connection = self._connection()
        try:
            try:
                length = {"Content-Length": str(sum(map(len, body)))}
                connection.request("POST", path, body, self._headers() | length)
                answer = connection.getresponse()
            except TimeoutError:
                raise QueryFailed(f"No answer from {self.address} within {self._timeout_s:.0f} s.", _narrow("time"), 159) from None
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from None
            if answer.status != 200:
                raise _failure(answer.read().decode(errors="replace"), answer.status, answer.getheader("X-ClickHouse-Exception-Code"))
            try:
                while piece := answer.read(_PIECE):
                    yield piece
            except (OSError, http.client.HTTPException) as error:
                raise QueryFailed(f"{self.address} broke off in the middle of its answer: {error}.", "Ask again.") from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=self._timeout_s)

    def _headers(self) -> dict[str, str]:
        return {"X-ClickHouse-User": self._user, "X-ClickHouse-Key": self._password, "Content-Type": "text/plain; charset=utf-8"}

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = "`sp-telemetry up` starts the server." if self._local else "Is the setting `url` right, and does that server run?"
        return ServerUnreachable(f"Nobody answers at {self.address} ({reason}).", hint)


class Statements:
    """A client in the shape of an engine's handle, for what runs on either (`schema.Runner`): as there, FINAL is only what says so."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def query(self, sql: str, format: str = "TabSeparated", parameters: Mapping[str, Any] | None = None) -> bytes:
        return b"".join(self._client.stream(sql, format, parameters, settings={"final": "0"}))

    def run(self, sql: str) -> None:
        self.query(sql, "Null")


def connect(home: Home, settings: Settings, user: str = READER, timeout_s: float = 0) -> Client:
    """A client of what this installation reads from: the setting `url`, else its own server. Nothing is asked yet.

    `timeout_s`: how long to wait for an answer; 0: somewhat longer than a reader's query may take.
    """
    running = home.server() or {}
    port = running.get("ports", {}).get("clickhouse") or settings.clickhouse_port
    url = settings.url or f"http://{reached_at(settings.bind)}:{port}"
    return Client(url, user, home.secret(user), timeout_s=timeout_s or settings.query_timeout_s + 5, local=not settings.url)


def _as_parameter(value: Any) -> str:
    """`value` as the interface reads it: a list is an array of texts; of a text, a backslash begins something else, a tab and a line's end
    end it."""
    if isinstance(value, list):
        return "[" + ",".join("'" + each.replace("\\", "\\\\").replace("'", "\\'") + "'" for each in value) + "]"
    return str(value).translate(_ESCAPED)


def _is_integer(kind: str) -> bool:
    return kind.removeprefix("Nullable(").removeprefix("SimpleAggregateFunction(sum, ").startswith(("UInt", "Int"))


def _failure(text: str, status: int, code: str | None = None) -> QueryFailed:
    """ClickHouse's refusal as a sentence and the next thing to do."""
    import re

    found = re.search(r"Code: (\d+)\.\s*(?:(?:Code: \d+\.\s*)?DB::Exception:\s*)*(.*)", text, re.DOTALL)
    told = found[1] if found else code or ""
    number = int(told) if re.fullmatch("[0-9]{1,9}", told) else 0  # a header of somebody else's is no code
    message = found[2] if found else text.strip()[:300] or f"HTTP status {status}"
    message = re.sub(r"(\s*\(([A-Z_]+|version [^)]*)\)\.?)+$", "", message.strip())
    if number in _LIMITS:
        hint = _narrow(_LIMITS[number])
    elif number in _CREDENTIALS:
        hint = "The store does not accept this installation's telemetry_reader. Does another installation's server answer at this address?"
    elif number in (60, 81) or (number == 46 and "`telemetry_" in message):  # a function of ours
        hint = "Is this store one of sp-telemetry's, and of this version? `sp-telemetry up` brings its own to the newest shape."
    elif number == 73:
        hint = "Formats are table, json, csv, markdown, tsv, and ClickHouse's own by their names: TSVWithNames, JSONEachRow, Vertical, …"
    elif number == 164:
        hint = "Reports and `sp-telemetry sql` only read. Writing takes the user telemetry_user and a ClickHouse client."
    elif not found:
        hint = "Is it a ClickHouse HTTP interface that answers there?"
    elif number == 243 or "No space left on device" in text:
        message, hint = "The disk of the store is full.", "Make room, or shorten retention_events_days; then run this again."
    else:
        hint = ""
    message = message if len(message) <= 800 else f"{message[:400]} … {message[-400:]}"
    return QueryFailed(f"The store refused: {message}" if number not in _LIMITS else f"The query went over its limit of {_LIMITS[number]}.",
                       hint, number)


def _narrow(limit: str) -> str:
    setting = {"time": "query_timeout_s", "memory": "query_memory_mib"}.get(limit)
    return "Ask for less (--since 7d, --chapter, --user)" + (f", or raise the setting {setting}." if setting else ".")

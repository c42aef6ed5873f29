"""One statement on one handle: opened with its user's settings, streamed, and ended from outside when need be.

Everything here blocks and runs in threads. A handle costs 0.4 ms with its settings and a busy one delays whoever waits for it by
its whole query, so each request has its own.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import lru_cache

from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import READER
from sp_telemetry.serve import clickhouse_native, clickhouse_statement
from sp_telemetry.serve.clickhouse_access import DATABASE, EXPRESSIONS
from sp_telemetry.serve.clickhouse_reply import BINARY
from sp_telemetry.serve.clickhouse_request import Asked, refuse
from sp_telemetry.serve.clickhouse_statement import Statement
from sp_telemetry.store.engine import OWNER, Engine, Handle, Work

# The engine's stream formats each piece as if it were a whole answer. Of these formats pieces can be put together again: they have
# no frame, or a header of so many lines. Every other format (JSON, Pretty, Parquet, …) is asked for as a whole.
_PLAIN = """TabSeparated TSV TabSeparatedRaw TSVRaw Raw CSV JSONEachRow JSONLines NDJSON JSONCompactEachRow RowBinary LineAsString
    RawBLOB SQLInsert TSKV Native Null"""
_PIECEWISE = dict.fromkeys(_PLAIN.split(), 0)
_PIECEWISE |= dict.fromkeys(["TabSeparatedWithNames", "TSVWithNames", "TSVRawWithNames", "TabSeparatedRawWithNames", "CSVWithNames"], 1)
_PIECEWISE |= dict.fromkeys(["TabSeparatedWithNamesAndTypes", "TSVWithNamesAndTypes", "CSVWithNamesAndTypes"], 2)

# A whole answer is held in memory, which the engine doesn't count, so it is bounded: what is in it, as columns, and for text, which
# takes many times that, the rows too.
_WHOLE_BYTES, _WHOLE_TEXT_BYTES, _WHOLE_TEXT_ROWS = 256 << 20, 64 << 20, 2_000_000
MAX_QUERY = 262_144  # ClickHouse's own limit
_SHORT = 16_384
SYNTAX_ERROR = 62


class Control:
    """Two handles of the engine's own: one reads statements, one ends queries. Each is used by one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reader, self._killer = engine.handle(), engine.handle()
        self._reading, self._killing = threading.Lock(), threading.Lock()
        names = self._reader.query("SELECT lower(name) FROM system.table_functions").decode().split()
        self._forbidden = frozenset(names) - clickhouse_statement.TABLE_FUNCTIONS
        self.known_settings = frozenset(self._reader.query("SELECT name FROM system.settings").decode().split())
        self._canonical = lru_cache(maxsize=1000)(self._read)

    def _read(self, sql: str) -> str:
        escaped = sql.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r").replace("\0", "\\0")
        try:
            with self._reading:
                return self._reader.query("SELECT formatQuerySingleLine({q:String})", "RawBLOB", {"q": escaped}).decode()
        except QueryFailed as error:
            message = re.sub(r": In scope SELECT formatQuerySingleLine\(.*\)(?=\.? ?\()", "", str(error), flags=re.DOTALL)
            raise QueryFailed(message, code=error.code) from None

    def examine(self, asked: Asked, user: str) -> Statement:
        """What the statement is, by the engine's own parser. Raises QueryFailed for what isn't one statement, or isn't allowed."""
        if len(asked.sql) > MAX_QUERY:
            raise refuse(62, "SYNTAX_ERROR", f"Max query size exceeded ({MAX_QUERY} bytes)")
        sql = asked.sql if asked.data is None else f"{asked.sql} FORMAT {asked.insert_format}"
        read = self._canonical if len(sql) < _SHORT else self._read
        statement = clickhouse_statement.examine(read(sql), user, asked.parameters, self._forbidden, self.known_settings)
        if asked.insert_format == "Values" and self._are_expressions(asked.data or b"", user):
            return replace(statement, expressions=True)
        return statement

    def _are_expressions(self, values: bytes, user: str) -> bool:
        """Whether these may be more than literals: a few of them, all of which pass as what a SELECT asks for."""
        try:
            return len(values) < _SHORT and bool(
                clickhouse_statement.examine(
                    self._read("SELECT " + values.decode().rstrip("; \t\r\n")), user, {}, self._forbidden, self.known_settings
                )
            )
        except UnicodeDecodeError:
            return False
        except QueryFailed as error:
            if error.code == SYNTAX_ERROR:
                return False
            raise

    def kill(self, marker: str) -> None:
        """End the query with this marker, if it runs (its thread gets the error 394)."""
        with self._killing:
            self._killer.run(f"KILL QUERY WHERE Settings['log_comment'] = '{marker}' ASYNC")

    def close(self) -> None:
        for lock, handle in ((self._reading, self._reader), (self._killing, self._killer)):
            with lock:
                handle.close()


class Run:
    """A statement under way. `marker` finds it in system.processes; `work` is what it has done so far."""

    def __init__(self, control: Control, asked: Asked, user: str, statement: Statement, settings: Mapping[str, str]) -> None:
        self._engine, self._asked, self._user = control.engine, asked, user
        self._statement, self._settings = statement, dict(settings)
        if statement.expressions:
            self._settings |= dict.fromkeys(EXPRESSIONS, "1")
        self.format = statement.format or asked.default_format
        # Views run with the settings of the handle that inserts, and those of the landing tables need the salt. An INSERT that brings its
        # data can't read anything with it.
        landing = statement.target.startswith(("otel_", "otlp_"))
        self.marker = f"{OWNER if asked.data is not None or landing else 'http'} {uuid.uuid4().hex}"
        self.is_insert = statement.kind == "INSERT INTO"
        self._handle: Handle | None = None

    @property
    def work(self) -> Work:
        return self._handle.last if self._handle else Work()

    def pieces(self) -> Generator[bytes]:
        """The answer, piece by piece, at the revision asked for. Closing the iterator ends the query."""
        with closing(self._pieces()) as pieces:
            if self.format == "Native" and self._asked.protocol_version >= clickhouse_native.CUSTOM_SERIALISATION:
                yield from clickhouse_native.at_revision(pieces, self._asked.protocol_version)
            else:
                yield from pieces

    def _pieces(self) -> Generator[bytes]:
        """The same as the engine writes it."""
        with self._open() as handle:
            self._handle = handle
            asked = self._asked
            if asked.data is not None:
                handle.insert(self._statement.into, asked.insert_format, [asked.data])
                yield b""
            elif not self._statement.streams or self.format not in _PIECEWISE:
                yield handle.query(self._statement.sql, asked.default_format, dict(asked.parameters))
            else:
                first = b""
                for piece in handle.stream(self._statement.sql, asked.default_format, dict(asked.parameters)):
                    yield piece[len(self._head(first, piece)) :] if first else piece
                    first = first or piece
                if not first and (_PIECEWISE[self.format] or self.format == "Native"):  # of no rows the stream has not even the header
                    yield handle.query(self._statement.sql, asked.default_format, dict(asked.parameters))

    def _head(self, first: bytes, piece: bytes) -> bytes:
        """The header of `first` that the engine repeats at the start of each later `piece`."""
        lines = _PIECEWISE[self.format]
        end = 0
        for _ in range(lines):
            end = first.index(b"\n", end) + 1
        return first[:end] if piece.startswith(first[:end]) else b""

    def _at_most(self, setting: str, limit: int) -> None:
        asked = float(self._settings.get(setting, 0))
        if not 0 < asked <= limit:
            self._settings[setting] = str(limit)

    def _open(self) -> Handle:
        # The marker is given at opening: what SET changes does not show in system.processes.
        handle = self._engine.handle(database=DATABASE, log_comment=self.marker)
        try:
            if self._statement.streams and self.format not in _PIECEWISE:
                binary = self.format.startswith(BINARY)
                self._at_most("max_result_bytes", _WHOLE_BYTES if binary else _WHOLE_TEXT_BYTES)
                if not binary:
                    self._at_most("max_result_rows", _WHOLE_TEXT_ROWS)
            if len(self._statement.sql) > MAX_QUERY // 2:  # what is run may be longer than what was sent
                self._settings["max_query_size"] = str(4 * len(self._statement.sql))
            changes = [f"{name} = '{_quoted(value)}'" for name, value in self._settings.items()]
            if self._user == READER:
                changes.append("readonly = 1")
            handle.run("SET " + ", ".join(changes))
        except BaseException:
            handle.close()
            raise
        return handle


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")

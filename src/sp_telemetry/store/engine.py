"""The embedded engine: chDB, in this process, over one directory.

What chDB is particular about, measured (docs/architecture.md, "The engine's traps"):
one process and one literal path at a time; one handle runs one query at a time, so each thread of work has its own; every handle
must be closed before the process ends, or the engine crashes in its own shutdown; never fork after opening.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sp_telemetry.errors import QueryFailed, StoreBusy, UsageError


def clickhouse_error(error: Exception) -> QueryFailed:
    """chDB's exception as ours, with ClickHouse's code in it and the noise around the message gone."""
    text = str(error)
    found = re.search(r"Code: (\d+)\. DB::Exception: (.*)", text, re.DOTALL)
    code, message = (int(found[1]), found[2]) if found else (1002, text)
    message = message.strip()
    if len(message) > MESSAGE_LIMIT:  # the engine quotes whole queries, and a view's is pages long
        message = f"{message[: MESSAGE_LIMIT // 2]} … {message[-MESSAGE_LIMIT // 2 :]}"
    return QueryFailed(f"Code: {code}. DB::Exception: {message}", code=code)


MESSAGE_LIMIT = 1500


class Handle:
    """One connection to the engine. Not to be shared between threads that run at the same time."""

    def __init__(self, connection: Any, forget: Callable[[Handle], None]) -> None:
        self._connection = connection
        self._forget = forget

    def query(self, sql: str, format: str = "TabSeparated", parameters: dict[str, Any] | None = None) -> bytes:
        """The whole answer as bytes in `format`. Raises QueryFailed."""
        try:
            return self._connection.query(sql, format, params=parameters or {}).bytes()
        except Exception as error:
            raise clickhouse_error(error) from None

    def run(self, sql: str) -> None:
        self.query(sql, "Null")

    def stream(self, sql: str, format: str, parameters: dict[str, Any] | None = None) -> Iterator[bytes]:
        """The answer in chunks, as the engine makes them. Closing the iterator cancels the query."""
        try:
            result = self._connection.send_query(sql, format, params=parameters or {})
        except Exception as error:
            raise clickhouse_error(error) from None
        try:
            while True:
                try:
                    chunk = result.fetch()
                except Exception as error:
                    raise clickhouse_error(error) from None
                if chunk is None:
                    return
                yield chunk.bytes()
        finally:
            result.close()

    def insert(self, statement: str, format: str, pieces: Iterator[bytes] | list[bytes]) -> None:
        """`INSERT INTO … [SETTINGS …]` of `pieces` of data in `format`, all or nothing as far as the engine goes. Raises QueryFailed."""
        try:
            stream = self._connection.send_insert(statement, format)
        except Exception as error:
            raise clickhouse_error(error) from None
        try:
            for piece in pieces:
                stream.append(piece)
            stream.finish()
        except Exception as error:
            try:
                stream.cancel()
            except Exception:  # already ended by the very error
                pass
            raise clickhouse_error(error) from None

    def close(self) -> None:
        self._forget(self)
        self._connection.close()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Engine:
    """The engine over `store`. Opening it twice, also from another process, raises StoreBusy."""

    def __init__(self, store: Path) -> None:
        try:
            import chdb
        except ImportError as error:
            raise UsageError(
                f"The embedded engine can't be loaded here: {error}.", "Use a server instead: set `url` to its ClickHouse HTTP interface."
            ) from None
        self._connect = chdb.connect
        self._store = str(store.absolute())
        self._handles: set[Handle] = set()
        self._lock = threading.Lock()
        self._keeper = self.handle()  # while it lives the engine stays open

    def handle(self, **options: Any) -> Handle:
        """A new handle (about 1 ms). `options` are settings that hold for it alone, such as readonly=1."""
        suffix = "?" + urlencode(options) if options else ""
        try:
            connection = self._connect(self._store + suffix)
        except Exception as error:
            if "Cannot lock file" in str(error) or "already initialized" in str(error):
                raise StoreBusy(f"{self._store} is in use by another process.", "`sp-telemetry status` says which.") from None
            raise clickhouse_error(error) from None
        handle = Handle(connection, self._forget)
        with self._lock:
            self._handles.add(handle)
        return handle

    def _forget(self, handle: Handle) -> None:
        with self._lock:
            self._handles.discard(handle)

    def close(self) -> None:
        """Close every handle. Queries still running must have been ended by then."""
        for handle in list(self._handles - {self._keeper}):
            handle.close()
        self._keeper.close()

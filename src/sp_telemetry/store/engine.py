"""The embedded engine: chDB, in this process, over one directory.

What chDB is particular about, measured (docs/architecture.md, "The engine's traps"):
one process and one literal path at a time; one handle runs one query at a time, so each thread of work has its own; every handle
must be closed before the process ends, or the engine crashes in its own shutdown; never fork after opening.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from sp_telemetry.errors import QueryFailed, StoreBusy, UsageError
from sp_telemetry.store import room
from sp_telemetry.store.memory_file import memory_file


def clickhouse_error(error: Exception) -> QueryFailed:
    """chDB's exception as ours, with ClickHouse's code in it and the noise around the message gone."""
    text = str(error)
    cause: BaseException | None = error
    while cause and not isinstance(cause, UnicodeDecodeError):
        cause = cause.__cause__ or cause.__context__
    if cause:  # it quotes what it was working on, cut within a letter, and chDB wants a text
        text = cause.object.decode(errors="replace")
    found = re.search(r"Code: (\d+)\. DB::Exception: (.*)", text, re.DOTALL)
    code, message = (int(found[1]), found[2]) if found else (1002, text)
    message = message.strip()
    if len(message) > MESSAGE_LIMIT:  # the engine quotes whole queries, and a view's is pages long
        message = f"{message[: MESSAGE_LIMIT // 2]} … {message[-MESSAGE_LIMIT // 2 :]}"
    return QueryFailed(f"Code: {code}. DB::Exception: {message}", code=code)


MESSAGE_LIMIT = 1500
_CRASHED = re.compile(r"Code: 236\..*due to a fatal error")
_DEFINES = re.compile(
    r"\s*(?:CREATE(?! (?:OR REPLACE )?TEMPORARY)|ALTER|ATTACH|DETACH|DROP|EXCHANGE|RENAME|REPLACE|RESTORE|UNDROP)\b", re.IGNORECASE
)
# What writes a definition, a mutation or a backup. Where a disk is full the engine cuts such a file short and says that all is well: of a
# table whose definition is empty then the whole store can't be opened any more, and the backup can't be restored.
_TAKES_ROOM = re.compile(
    r"\s*(?:CREATE(?! (?:OR REPLACE )?TEMPORARY)|ALTER(?! TABLE \S+ DROP (?:PARTITION|PART)\b)|ATTACH|BACKUP|DELETE|EXCHANGE|RENAME|REPLACE"
    r"|RESTORE|UNDROP|UPDATE)\b",
    re.IGNORECASE,
)
IN_MEMORY = Path(":memory:")


@dataclass(frozen=True)
class Work:
    """What a query did, as far as the engine tells."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0


class Handle:
    """One connection to the engine. Not to be shared between threads that run at the same time."""

    def __init__(self, connection: Any, engine: Engine) -> None:
        self._connection = connection
        self.engine = engine
        self.before_close: Callable[[], None] | None = None  # ends what still runs through this handle
        self.last = Work()

    def query(self, sql: str, format: str = "TabSeparated", parameters: dict[str, Any] | None = None) -> bytes:
        """The whole answer as bytes in `format`. Raises QueryFailed."""
        self.engine.require_room(sql)
        try:
            answer = self._connection.query(sql, format, params=parameters or {})
            self.last = Work(
                answer.storage_rows_read(), answer.storage_bytes_read(), answer.rows_written(), answer.bytes_written(), answer.rows_read()
            )
            return answer.bytes()
        except Exception as error:
            raise self._failed(error) from None
        finally:
            self.engine.note(sql)

    def run(self, sql: str) -> None:
        self.query(sql, "Null")

    def _failed(self, error: Exception) -> QueryFailed:
        failed = clickhouse_error(error)
        if _CRASHED.search(str(failed)):
            self.engine.crashed()
        return failed

    def stream(self, sql: str, format: str, parameters: dict[str, Any] | None = None) -> Iterator[bytes]:
        """The answer in chunks, as the engine makes them. Closing the iterator cancels the query."""
        self.engine.require_room(sql)
        try:
            result = self._connection.send_query(sql, format, params=parameters or {})
        except Exception as error:
            raise self._failed(error) from None
        read = self.last = Work()
        try:
            while True:
                try:
                    chunk = result.fetch()
                except Exception as error:
                    raise clickhouse_error(error) from None
                if chunk is None:
                    return
                read = self.last = Work(
                    read.read_rows + chunk.storage_rows_read(),
                    read.read_bytes + chunk.storage_bytes_read(),
                    result_rows=read.result_rows + chunk.rows_read(),
                )
                yield chunk.bytes()
        finally:
            result.close()
            self.engine.note(sql)

    def insert(self, statement: str, format: str, pieces: Iterable[bytes]) -> None:
        """`INSERT INTO … [(columns)]` of `pieces` of data in `format`, all or nothing as far as the engine goes.

        The engine reads the data from a file that has no name (a memfd), for its own streaming insert silently loses rows
        when the table feeds views that join or filter, and its query text holds no binary. Raises QueryFailed.
        """
        with memory_file(pieces) as path:
            self.query(f"{statement} FROM INFILE '{path}' COMPRESSION 'none' FORMAT {format}", "Null")

    def close(self) -> None:
        if self.before_close:
            self.before_close()
        self.engine.forget(self)
        self._connection.close()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# The engine has one user, so what a handle may see hangs on a setting that a handle with readonly=1 can't change. It fails closed:
# another text hides the rows. Views run with the settings of the handle that inserts, so inserting handles begin with OWNER too.
# What rewrites events (attribution, policy, backfill) may meet history of more than a hundred weeks, each a partition.
OWNER = "engine"
_FOR_THE_ENGINE = f"<filter>startsWith(getSetting('log_comment'), '{OWNER}')</filter>"
_USERS = f"""<clickhouse>
  <profiles><default>
    <log_comment>{OWNER}</log_comment>
    <max_partitions_per_insert_block>0</max_partitions_per_insert_block>
  </default></profiles>
  <users><default>
    <password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <databases>
      <telemetry><installation>{_FOR_THE_ENGINE}</installation></telemetry>
      <telemetry_restored><installation>{_FOR_THE_ENGINE}</installation></telemetry_restored>
      <system><processes>{_FOR_THE_ENGINE}</processes></system>
    </databases>
  </default></users>
  <quotas><default/></quotas>
</clickhouse>
"""


# What an idle engine does, less often. By default it looks at its own memory twenty times a second, and at each table every second or
# two for something to merge or to stream. An insert starts its merges itself; nothing here streams.
QUIET = """<memory_worker_period_ms>1000</memory_worker_period_ms>
<background_processing_pool_thread_sleep_seconds_if_nothing_to_do>10</background_processing_pool_thread_sleep_seconds_if_nothing_to_do>
<background_streaming_processing_pool_thread_sleep_seconds_if_nothing_to_do>60</background_streaming_processing_pool_thread_sleep_seconds_if_nothing_to_do>
"""

# Parts that are to be rewritten (by a DELETE, say) or merged wait for one of as many threads as there are cores. How many may wait is a
# multiple of that, 2 by default: with four waiting the engine looks again after the pause above, so that forty parts took 100 seconds, of
# which 99 were pauses. The smallest goes first: in turns, each would hold its buffers (1,000 MiB in place of 650 for 10 million events).
MERGES = """<background_merges_mutations_concurrency_ratio>100</background_merges_mutations_concurrency_ratio>
<background_merges_mutations_scheduling_policy>shortest_task_first</background_merges_mutations_scheduling_policy>
"""

# Replaced parts go one after the other. For more than a hundred at once the engine begins 128 threads, which stay; each holds memory and,
# once a query has had it, three open files (/proc/self/task/…).
PARTS = "<merge_tree><concurrent_part_removal_threshold>1000000000</concurrent_part_removal_threshold></merge_tree>"

# The disk has the name that it has on a server (clickhouse/config/config.xml), so that one statement does for both.
_BACKUPS = """<storage_configuration><disks><backups><type>local</type><path>{}/</path></backups></disks></storage_configuration>
<backups><allowed_disk>backups</allowed_disk></backups>"""


def _write_configuration(folder: Path, backups: Path | None) -> str:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    users, config = folder.absolute() / "users.xml", folder.absolute() / "config.xml"
    users.write_text(_USERS, "utf-8")
    told = QUIET + MERGES + PARTS + (_BACKUPS.format(escape(str(backups.absolute()))) if backups else "")
    config.write_text(f"<clickhouse><users_config>{escape(str(users))}</users_config>{told}</clickhouse>\n", "utf-8")
    return str(config)


@contextlib.contextmanager
def _zone_that_it_knows() -> Iterator[None]:
    """For its import: where TZ is a rule (CET-1CEST) or names nothing, the engine does not load, and a second try in a process fails
    too. Then its zone is UTC. Nothing of ours hangs on it: times are stored in UTC, and reports are told theirs."""
    zone = os.environ.get("TZ", "")
    name = zone.removeprefix(":")
    try:
        known = not zone or (os.path.isfile(name) if name.startswith("/") else bool(ZoneInfo(name)))
    except (KeyError, ValueError, OSError):
        known = False
    if not known:
        os.environ["TZ"] = "UTC"
    try:
        yield
    finally:
        if not known:
            os.environ["TZ"] = zone


class Engine:
    """The engine over `store`. Opening it twice, also from another process, raises StoreBusy.

    `configuration`: a directory that gets the engine's own configuration, which hides the salt and other people's queries from
    every handle that does not say that it works for the engine (`OWNER` in its log_comment). Without one, nothing is hidden.
    `backups`: the one directory that BACKUP and RESTORE may use, with a configuration only; without it they are refused.
    """

    def __init__(self, store: Path, configuration: Path | None = None, backups: Path | None = None) -> None:
        try:
            with _zone_that_it_knows():
                import chdb
        except ImportError as error:
            raise UsageError(
                f"The embedded engine can't be loaded here: {error}.", "Use a server instead: set `url` to its ClickHouse HTTP interface."
            ) from None
        self._connect = chdb.connect
        self._store = str(store) if store == IN_MEMORY else str(store.absolute())
        self._handles: set[Handle] = set()
        self._lock = threading.Lock()
        #: Called, from any thread, when the engine says that it has crashed: it answers nothing any more, and can't be closed.
        self.crashed: Callable[[], None] = lambda: None
        #: Grows with each statement that may have changed a definition (a view, a function, a table).
        self.definitions = 0
        options = {"config-file": _write_configuration(configuration, backups)} if configuration else {}
        self._keeper = self.handle(**options)  # while it lives the engine stays open
        self._inode = 0 if store == IN_MEMORY else os.stat(self._store).st_ino

    def handle(self, **options: Any) -> Handle:
        """A new handle (about 1 ms). `options` are settings that hold for it alone, such as readonly=1."""
        suffix = "?" + urlencode(options, quote_via=quote) if options else ""
        try:
            connection = self._connect(self._store + suffix)
        except Exception as error:
            if "Cannot lock file" in str(error) or "already initialized" in str(error):
                raise StoreBusy(f"{self._store} is in use by another process.", "`sp-telemetry status` says which.") from None
            raise clickhouse_error(error) from None
        handle = Handle(connection, self)
        with self._lock:
            self._handles.add(handle)
        return handle

    def require_place(self) -> None:
        """Raises FileNotFoundError when the store's directory is gone or another one: an insert would make it anew, and be lost in it."""
        if self._inode and os.stat(self._store).st_ino != self._inode:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._store)

    def require_room(self, sql: str) -> None:
        """Raises QueryFailed where `sql` writes what the engine would cut short now."""
        if self._inode and _TAKES_ROOM.match(sql) and room.is_full(self._store):
            raise QueryFailed("Code: 243. DB::Exception: Not enough space for what this statement writes.", code=243)

    def note(self, sql: str) -> None:
        """`sql` has run, through whichever handle."""
        if _DEFINES.match(sql):
            with self._lock:
                self.definitions += 1

    def forget(self, handle: Handle) -> None:
        with self._lock:
            self._handles.discard(handle)

    def close(self) -> None:
        """Close every handle. Queries still running must have been ended by then."""
        for handle in list(self._handles - {self._keeper}):
            handle.close()
        self._keeper.close()


@contextlib.contextmanager
def scratch() -> Iterator[Engine]:
    """An engine with no store, in memory, for a process that only wants to compute. A process has one engine: not beside another."""
    engine = Engine(IN_MEMORY)
    try:
        yield engine
    finally:
        engine.close()

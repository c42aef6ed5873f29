"""From OTLP bytes, or the Collector's, to rows: the statements that the embedded engine runs for a batch of requests.

The work is what `telemetry-server/clickhouse/views/` says, and nothing else. On a server those are materialized views on Null
tables. Here the same SELECTs run one after the other over a temporary table in memory that belongs to one handle: a materialized
view is analysed twice at every insert, and for small inserts that analysis is most of the time (docs/decisions.md). Either way raw
content exists in memory only.

Logs as protobuf, which is nearly all that comes, take a shorter way: a standing query decodes, types and sanitises them, and the
only statement is the one that attributes them (`standing_query.py`). Between the two they may wait in a journal for others.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from sp_telemetry.errors import QueryFailed
from sp_telemetry.store import backfill, framing
from sp_telemetry.store.engine import Handle
from sp_telemetry.store.journal import Journal
from sp_telemetry.store.memory_file import memory_file
from sp_telemetry.store.schema import folder, statements
from sp_telemetry.store.standing_query import AVAILABLE, LONGEST, StandingQuery

SIGNALS = ("logs", "metrics", "traces")
MESSAGES = {"logs": "ExportLogsServiceRequest", "metrics": "ExportMetricsServiceRequest", "traces": "ExportTraceServiceRequest"}
CONTEXT_MARK = b"sp_telemetry.context"  # in the bytes of a request that holds a context record
ESCAPED_LETTER = re.compile(rb"\\u00[2567]")  # of that mark: where it is written so the bytes don't hold it
JSON_SETTINGS = "input_format_json_read_objects_as_strings = 1, input_format_json_read_arrays_as_strings = 1"


@dataclass(frozen=True)
class Lane:
    """Requests of one signal in one encoding (protobuf, json; native: rows for `table`): they can share a batch."""

    signal: str
    encoding: str
    table: str = ""

    def may_tell_contexts(self, bodies: Iterable[bytes]) -> bool:
        """Whether there may be context records in them: the mark, or in JSON letters that are written as numbers."""
        escapes = self.encoding == "json"
        return self.signal == "logs" and any(CONTEXT_MARK in body or (escapes and ESCAPED_LETTER.search(body)) for body in bodies)

    def pieces(self, bodies: Iterable[bytes]) -> Iterable[bytes]:
        """`bodies` as one stream: protobuf messages behind their lengths, JSON objects a line each, blocks one after the other."""
        if self.encoding == "protobuf":
            yield from framing.behind_lengths(bodies)
            return
        if self.encoding == "native":
            yield from bodies
            return
        for body in bodies:
            yield body
            yield b"\n"


# The tables that the Collector's ClickHouse exporter fills, FORMAT Native (views/10, 12 and 16).
NATIVE = {"otel_logs": "logs", "otel_traces": "traces"} | dict.fromkeys(
    (f"otel_metrics_{kind}" for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary")), "metrics"
)
LANES = (
    *(Lane(signal, encoding) for signal in SIGNALS for encoding in ("protobuf", "json")),
    *(Lane(signal, "native", table) for table, signal in NATIVE.items()),
)


STANDING = Lane("logs", "protobuf")
ATTRIBUTING = " SETTINGS max_threads = 1, join_algorithm = 'hash'"  # threads and a parallel join cost a small insert a fifth
SHAPES = {"logs": "otel_logs", "metrics": "otel_metric_points", "traces": "otel_traces"}  # what each signal is decoded to
STAGES = {shape: f"stage_{signal}" for signal, shape in SHAPES.items()} | {"typed_events": "stage_events"}


@dataclass(frozen=True)
class View:
    """A materialized view of the schema: SELECT of `source` into `target`."""

    name: str
    target: str
    source: str
    select: str


@cache
def views() -> dict[str, View]:
    """Every materialized view of what OTLP brings, by name."""
    head = re.compile(r"CREATE MATERIALIZED VIEW(?: IF NOT EXISTS)? telemetry\.(\w+) TO telemetry\.(\w+) AS\s+(.*)", re.DOTALL)
    found = {}
    for file in sorted((folder() / "views").glob("*.sql")):
        for statement in statements(file.read_text("utf-8")):
            if match := head.match(statement):
                name, target, select = match.groups()
                if source := re.search(r"\bFROM telemetry\.((?:otel|otlp|typed)_\w+)", select):
                    found[name] = View(name, target, source[1], select)
    return found


class Pipeline:
    """Stores batches through one handle. Not to be shared between threads that run at the same time.

    `like`: another one over the same store, whose statements serve here too. `memory`: what one of its statements may take, in bytes;
    0 is all that there is.
    """

    def __init__(self, handle: Handle, like: Pipeline | None = None, memory: int = 0) -> None:
        self._handle, self._memory, self.engine = handle, memory, handle.engine
        handle.run(f"SET max_memory_usage = {memory}")
        self._decode: dict[Lane, str] = like._decode if like else {}
        self._derive: dict[str, list[tuple[View, str]]] = like._derive if like else {}
        self._standing: StandingQuery | None = None
        self._may_wait = False
        handle.run("SET max_partitions_per_insert_block = 0")  # history brought along spans more than a hundred weeks
        # Not to merge the block before it is written, row by row, for copies in it: readers count with FINAL, merges remove them (a fifth
        # of the events statement's time). Reading map keys as subcolumns of a table in memory costs more than reading the map once.
        handle.run("SET optimize_on_insert = 0, optimize_functions_to_subcolumns = 0")
        for table, stage in STAGES.items():
            handle.run(f"CREATE OR REPLACE TEMPORARY TABLE {stage} AS telemetry.{table} ENGINE = Memory")
        if like:
            self._typing, self._attributing, self._stage_typed = like._typing, like._attributing, like._stage_typed
            return
        for lane in LANES:
            self._decode[lane] = self._decoding(lane, STAGES[SHAPES[lane.signal]])
        for signal, shape in SHAPES.items():
            self._derive[signal] = list(self._deriving(shape))
        self._typing = self._standing_select()
        typed = {"telemetry.typed_events": self._typed_rows()}
        self._attributing = self._statement(views()["telemetry_events_mv"], "telemetry.telemetry_events", typed) + ATTRIBUTING
        self._stage_typed = f"INSERT INTO stage_events SELECT * FROM {typed['telemetry.typed_events']}"

    def store(self, lane: Lane, bodies: list[bytes], by_statements: bool = False, journal: Journal | None = None) -> int:
        """Commit `bodies` and return how many events, points or spans they held, context records not counted.

        `by_statements`: without the standing query, for what it has failed at. `journal`: where rows may wait that can (`settle`).
        Raises QueryFailed; then some of their rows may be stored. Raises OSError where the store has been taken away, or the journal
        can't be written.
        """
        self._handle.engine.require_place()
        if lane.encoding == "protobuf" and not any(bodies):
            return 0  # a message without fields
        told = lane.may_tell_contexts(bodies)
        if lane == STANDING and AVAILABLE and not told and not by_statements:
            with contextlib.suppress(QueryFailed):  # whatever is wrong, the statements say it, and of which request
                blocks = self.typed(bodies)
                if journal is None or not self._may_wait:
                    return self._attribute(blocks)
                journal.append(blocks)
                return sum(map(framing.rows_of, blocks))
        stages = [STAGES[SHAPES[lane.signal]], *(["stage_events"] if lane.signal == "logs" else [])]
        try:
            records = self.decode(lane, bodies)
            if not records:
                return 0  # what would be stored of nothing takes the engine four times as long to find out
            for view, statement in self._derive[lane.signal]:
                if view.target != "session_context" or told:
                    self._handle.run(statement)
            if lane.signal == "logs" and backfill.is_any_listed(self._handle):
                backfill.cancel_arrived(self._handle)
            if told:
                return int(self._handle.query("SELECT count() FROM stage_events"))
            return records
        finally:
            for stage in stages:
                self._handle.run(f"TRUNCATE TABLE {stage}")

    def close(self) -> None:
        """End what runs. The handle stays its owner's."""
        if self._standing:
            self._standing.close()
            self._standing = None

    def settle(self, journal: Journal) -> None:
        """Bring what waits in `journal` into the store. Raises QueryFailed and OSError; then it waits on."""
        self._handle.engine.require_place()
        for segment in journal.take():
            if segment.blocks:
                self._attribute(segment.blocks)
            journal.drop(segment)

    def typed(self, bodies: list[bytes]) -> list[bytes]:
        """The rows of typed_events that `bodies` hold, in blocks. Raises QueryFailed."""
        messages = list(framing.together(bodies, LONGEST))  # what can't be one is no reason to end the query
        try:
            return [self._current_query().rows(message) for message in messages]
        except QueryFailed:
            self.close()
            raise

    def _attribute(self, blocks: list[bytes]) -> int:
        """Store typed rows; how many there were."""
        with memory_file(blocks) as path:
            self._handle.run(self._attributing.replace("{path}", path))
            stored = self._handle.last.written_rows
            if backfill.is_any_listed(self._handle):
                try:
                    self._handle.run(self._stage_typed.replace("{path}", path))
                    backfill.cancel_arrived(self._handle)
                finally:
                    self._handle.run("TRUNCATE TABLE stage_events")
        return stored

    def _current_query(self) -> StandingQuery:
        if self._standing is None or not self._standing.is_current:
            self.close()
            self._standing = StandingQuery(self._handle, self._typing, self._memory)
            # Names of files are cut to what the level keeps when a row is attributed; before that they are nothing for a disk.
            self._may_wait = self._handle.query("SELECT telemetry_path(map('file_path', '/a/file')) = ''") == b"1\n"
        return self._standing

    def undecodable(self, lane: Lane, body: bytes) -> QueryFailed | None:
        """What the engine says is wrong with `body` where that can't be read as a request, or can't be read now."""
        try:
            self.decode(lane, [body])
        except QueryFailed as error:
            return error
        finally:
            self._handle.run(f"TRUNCATE TABLE {STAGES[SHAPES[lane.signal]]}")
        return None

    def decode(self, lane: Lane, bodies: list[bytes]) -> int:
        """Put the records of `bodies` on the lane's stage and return how many there are."""
        if lane.encoding == "json":
            self._check_whole(bodies)
        with memory_file(lane.pieces(bodies)) as path:
            self._handle.run(self._decode[lane].replace("{path}", path))
        return self._handle.last.written_rows

    def _check_whole(self, bodies: list[bytes]) -> None:
        """Raises QueryFailed unless each of `bodies` is JSON by itself: put together, pieces of JSON can be one object that
        swallows those between them."""
        with memory_file(framing.behind_lengths(bodies)) as path:
            broken = int(self._handle.query(f"SELECT countIf(NOT isValidJSON(body)) FROM file('{path}', 'RowBinary', 'body String')"))
        if broken:
            raise QueryFailed("The request is not JSON.")

    def _deriving(self, shape: str) -> Iterable[tuple[View, str]]:
        """The statements that bring what is on the stage of `shape` into the store, in the order in which they have to run."""
        fed = [view for view in views().values() if view.source == shape]
        fed.sort(key=lambda view: view.target != "session_context")  # first the contexts, that the events are joined to
        for view in fed:
            onward = STAGES.get(view.target)
            yield view, self._statement(view, onward or f"telemetry.{view.target}", {f"telemetry.{shape}": STAGES[shape]})
            if onward:
                yield from self._deriving(view.target)

    def _standing_select(self) -> str:
        """From protobuf at `{path}` to the rows of typed_events, of its columns' types."""
        decoded, settings = self._decode[STANDING].split(") ", 1)[1].rsplit(" SETTINGS ", 1)
        view = views()["typed_events_mv"]
        select = re.sub(r"\btelemetry\.otel_logs\b", lambda _: f"({decoded})", view.select)
        types = dict(self._columns("typed_events"))
        columns = ", ".join(f"CAST(`{name}`, '{types[name]}') AS `{name}`" for name, _ in self._columns(view.name))
        return f"SELECT {columns} FROM ({select}) SETTINGS {settings}"

    def _typed_rows(self) -> str:
        """What a standing query answered, as a table; columns that it does not name have their defaults."""
        return f"file('{{path}}', 'Native', '{self._structure('typed_events')}')"

    def _decoding(self, lane: Lane, stage: str) -> str:
        if lane.encoding == "native":
            return self._reading_rows(lane, stage)
        view = views()[f"otlp_{lane.signal}_{lane.encoding}_mv"]
        format, settings = "JSONEachRow", JSON_SETTINGS
        if lane.encoding == "protobuf":
            format, settings = "Protobuf", f"format_schema = '{folder()}/otlp.proto:{MESSAGES[lane.signal]}'"
        reader = f"file('{{path}}', '{format}', '{self._structure(view.source)}')"
        return self._statement(view, stage, {f"telemetry.{view.source}": reader}) + f" SETTINGS {settings}"

    def _reading_rows(self, lane: Lane, stage: str) -> str:
        """Puts rows on the stage as they are, or as the view of their table brings them to its shape."""
        shape = SHAPES[lane.signal]
        reader = f"file('{{path}}', 'Native', '{self._structure(lane.table)}')"
        for view in views().values():
            if view.source == lane.table and view.target == shape:
                return self._statement(view, stage, {f"telemetry.{lane.table}": reader})
        return f"INSERT INTO {stage} SELECT * FROM {reader}"

    def _structure(self, table: str) -> str:
        """The columns of a table of ours as file() wants them, fit for a text in quotes."""
        return ", ".join(f"`{name}` {type}" for name, type in self._columns(table))

    def _columns(self, table: str) -> list[tuple[str, str]]:
        """Name and type, quotes escaped, of the columns that can be inserted into a table or come out of a view of ours."""
        rows = self._handle.query(
            "SELECT name, type FROM system.columns WHERE database = 'telemetry'"
            f" AND table = '{table}' AND default_kind != 'ALIAS' ORDER BY position"
        ).decode()
        return [(name, type) for name, type in (row.split("\t") for row in rows.splitlines())]

    def _statement(self, view: View, into: str, sources: dict[str, str]) -> str:
        """INSERT … SELECT of the view with its source replaced; columns by name, as the view in the store has them: to let the engine
        analyse the SELECT anew takes ten times as long."""
        columns = ", ".join(f"`{name}`" for name, _ in self._columns(view.name))
        select = view.select
        for name, replacement in sources.items():
            select = re.sub(rf"{re.escape(name)}\b", lambda _, text=replacement: text, select)
        return f"INSERT INTO {into} ({columns}) {select}"

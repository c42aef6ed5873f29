"""From OTLP bytes, or the Collector's, to rows: the statements that the embedded engine runs for a batch of requests.

The work is what `telemetry-server/clickhouse/views/` says, and nothing else. On a server those are materialized views on Null
tables. Here the same SELECTs run one after the other over a temporary table in memory that belongs to one handle: a materialized
view is analysed twice at every insert, and for small inserts that analysis is most of the time (docs/decisions.md). Either way raw
content exists in memory only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from sp_telemetry.errors import QueryFailed
from sp_telemetry.store import backfill
from sp_telemetry.store.engine import Handle
from sp_telemetry.store.memory_file import memory_file
from sp_telemetry.store.schema import folder, statements

SIGNALS = ("logs", "metrics", "traces")
MESSAGES = {"logs": "ExportLogsServiceRequest", "metrics": "ExportMetricsServiceRequest", "traces": "ExportTraceServiceRequest"}
CONTEXT_MARK = b"sp_telemetry.context"  # in the bytes of every request that holds a context record
JSON_SETTINGS = "input_format_json_read_objects_as_strings = 1, input_format_json_read_arrays_as_strings = 1"


@dataclass(frozen=True)
class Lane:
    """Requests of one signal in one encoding (protobuf, json; native: rows for `table`): they can share a batch."""

    signal: str
    encoding: str
    table: str = ""

    def pieces(self, bodies: Iterable[bytes]) -> Iterable[bytes]:
        """`bodies` as one stream: protobuf messages behind their lengths, JSON objects a line each, blocks one after the other."""
        if self.encoding == "protobuf":
            yield from _behind_lengths(bodies)
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
        for statement in statements(file.read_text()):
            if match := head.match(statement):
                name, target, select = match.groups()
                if source := re.search(r"\bFROM telemetry\.((?:otel|otlp)_\w+)", select):
                    found[name] = View(name, target, source[1], select)
    return found


class Pipeline:
    """Stores batches through one handle. Not to be shared between threads that run at the same time.

    `like`: another one over the same store, whose statements serve here too.
    """

    def __init__(self, handle: Handle, like: Pipeline | None = None) -> None:
        self._handle = handle
        self._decode: dict[Lane, str] = like._decode if like else {}
        self._derive: dict[str, list[tuple[View, str]]] = like._derive if like else {}
        handle.run("SET max_partitions_per_insert_block = 0")  # history brought along spans more than a hundred weeks
        # Not to merge the block before it is written, row by row, for copies in it: readers count with FINAL, merges remove them (a fifth
        # of the events statement's time). Reading map keys as subcolumns of a table in memory costs more than reading the map once.
        handle.run("SET optimize_on_insert = 0, optimize_functions_to_subcolumns = 0")
        for signal in SIGNALS:
            shape = views()[f"otlp_{signal}_protobuf_mv"].target
            stage = f"stage_{signal}"
            handle.run(f"CREATE TEMPORARY TABLE {stage} AS telemetry.{shape} ENGINE = Memory")
            if like:
                continue
            for lane in LANES:
                if lane.signal == signal:
                    self._decode[lane] = self._decoding(lane, stage)
            fed = [view for view in views().values() if view.source == shape]
            fed.sort(key=lambda view: view.target != "session_context")  # first the contexts, that the events are joined to
            source = {f"telemetry.{shape}": stage}
            self._derive[signal] = [(view, self._statement(view, f"telemetry.{view.target}", source)) for view in fed]

    def store(self, lane: Lane, bodies: list[bytes]) -> int:
        """Commit `bodies` and return how many events, points or spans they held, context records not counted.

        Raises QueryFailed; then some of their rows may be stored.
        """
        stage = f"stage_{lane.signal}"
        told = lane.signal == "logs" and any(CONTEXT_MARK in body for body in bodies)
        try:
            records = self.decode(lane, bodies)
            for view, statement in self._derive[lane.signal]:
                if view.target != "session_context" or told:
                    self._handle.run(statement)
            if lane.signal == "logs":
                backfill.cancel_arrived(self._handle)
            if told:
                events = f"LogAttributes['event.name'] != '{CONTEXT_MARK.decode()}'"
                return int(self._handle.query(f"SELECT count() FROM {stage} WHERE {events}"))
            return records
        finally:
            self._handle.run(f"TRUNCATE TABLE {stage}")

    def decodable(self, lane: Lane, body: bytes) -> str:
        """'' when `body` is an OTLP request, else what the engine says is wrong with it."""
        try:
            self.decode(lane, [body])
        except QueryFailed as error:
            return str(error)
        finally:
            self._handle.run(f"TRUNCATE TABLE stage_{lane.signal}")
        return ""

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
        with memory_file(_behind_lengths(bodies)) as path:
            broken = int(self._handle.query(f"SELECT countIf(NOT isValidJSON(body)) FROM file('{path}', 'RowBinary', 'body String')"))
        if broken:
            raise QueryFailed("The request is not JSON.")

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
        shape = views()[f"otlp_{lane.signal}_protobuf_mv"].target
        reader = f"file('{{path}}', 'Native', '{self._structure(lane.table)}')"
        for view in views().values():
            if view.source == lane.table and view.target == shape:
                return self._statement(view, stage, {f"telemetry.{lane.table}": reader})
        return f"INSERT INTO {stage} SELECT * FROM {reader}"

    def _structure(self, table: str) -> str:
        """The columns of a table of ours as file() wants them, fit for a text in quotes."""
        columns = self._handle.query(
            "SELECT arrayStringConcat(groupArray(concat('`', name, '` ', type)), ', ') FROM system.columns"
            f" WHERE database = 'telemetry' AND table = '{table}'",
            "LineAsString",
        ).decode()
        return columns.strip().replace("'", "\\'")

    def _statement(self, view: View, into: str, sources: dict[str, str]) -> str:
        """INSERT … SELECT of the view with its source replaced; columns by name, as the view in the store has them: to let the engine
        analyse the SELECT anew takes ten times as long."""
        named = f"database = 'telemetry' AND table = '{view.name}'"
        rows = self._handle.query(f"SELECT name FROM system.columns WHERE {named} ORDER BY position").decode().split()
        columns = ", ".join(f"`{name}`" for name in rows)
        select = view.select
        for name, replacement in sources.items():
            select = re.sub(rf"{re.escape(name)}\b", lambda _, text=replacement: text, select)
        return f"INSERT INTO {into} ({columns}) {select}"


def _behind_lengths(bodies: Iterable[bytes]) -> Iterable[bytes]:
    for body in bodies:
        yield _varint(len(body))
        yield body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)

"""What the Collector's exporter inserts, FORMAT Native: the embedded server's own road, a server's materialized views, and OTLP itself
make the same rows of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve.commit import Rejected
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.intake import Intake
from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.journal import Journal
from sp_telemetry.store.pipeline import LANES, NATIVE, Lane, Pipeline
from tests.recordings.reading import recordings
from tests.server import as_protobuf, context, log_request, pairs, server

TARGETS = {"logs": ("telemetry_events", "session_context"), "traces": ("telemetry_spans",), "metrics": ("telemetry_metrics",)}
MOMENTS = ("received_at", "version")
START = 1_790_000_000 * 10**9
SESSION = "00000000-0000-4000-8000-0000000000ee"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = Engine(tmp_path_factory.mktemp("exporter"))
    with opened.handle() as handle:
        schema.migrate(handle)
        maintenance.apply_retention(handle, {"retention_events_days": 0, "retention_sessions_days": 0})
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def handle(engine: Engine) -> Iterator[Handle]:
    with engine.handle() as opened:
        yield opened


@pytest.fixture(scope="module")
def pipeline(handle: Handle) -> Pipeline:
    return Pipeline(handle)


def taken(handle: Handle, signal: str) -> dict[str, list[Any]]:
    """What is stored of a signal, all but the moment of storing; the tables are empty afterwards."""
    found = {}
    for table in TARGETS[signal]:
        maps = handle.query(f"SELECT name FROM system.columns WHERE database = 'telemetry' AND table = '{table}' AND type LIKE 'Map%'")
        replaced = ", ".join(f"mapSort({name}) AS {name}" for name in maps.decode().split())
        moments = ", ".join(name for name in MOMENTS if table == "telemetry_events" or name != "version")
        columns = f"* EXCEPT ({moments})" + (f" REPLACE ({replaced})" if replaced else "")
        text = handle.query(f"SELECT {columns} FROM telemetry.{table} FINAL ORDER BY ALL", "JSONEachRow").decode()
        found[table] = [json.loads(line) for line in text.splitlines()]
        handle.run(f"TRUNCATE TABLE telemetry.{table}")
    return found


def exported(handle: Handle, pipeline: Pipeline, signal: str, bodies: dict[str, list[bytes]]) -> bytes:
    """Rows as the exporter writes them, of OTLP requests by encoding."""
    blocks = b""
    for encoding, requests in bodies.items():
        pipeline.decode(Lane(signal, encoding), requests)
        columns = "*"
        if signal == "metrics":
            columns = (
                "MetricName, MetricUnit, ResourceAttributes, Attributes, StartTimeUnix, TimeUnix, Value, IsMonotonic,"
                " toInt32(indexOf(['delta', 'cumulative'], AggregationTemporality)) AS AggregationTemporality"
            )
        blocks += handle.query(f"SELECT {columns} FROM stage_{signal}", "Native")
        handle.run(f"TRUNCATE TABLE stage_{signal}")
    return blocks


@pytest.mark.parametrize("signal", TARGETS)
def test_recordings_by_either_road_and_by_a_servers_views(handle: Handle, pipeline: Pipeline, signal: str) -> None:
    table = {"logs": "otel_logs", "traces": "otel_traces", "metrics": "otel_metrics_sum"}[signal]
    bodies: dict[str, list[bytes]] = {"protobuf": [], "json": []}
    contexts: list[bytes] = []
    for recording in recordings():
        contexts.append((recording.directory / "context.logs.json").read_bytes())
        for about, body in recording.requests(signal):
            bodies["json" if about["file"].endswith(".json") else "protobuf"].append(body)
    first = {"json": contexts} if signal == "logs" else {}

    for encoding, requests in [*first.items(), *bodies.items()]:
        pipeline.store(Lane(signal, encoding), requests)
    wanted = taken(handle, signal)
    assert min(map(len, wanted.values())) > 50

    rows = [exported(handle, pipeline, signal, kind) for kind in (first, bodies) if kind]
    for piece in rows:
        pipeline.store(Lane(signal, "native", table), [piece])
    assert taken(handle, signal) == wanted

    for piece in rows:  # nothing of ours: the landing table's views do all of it, as on a server
        handle.insert(f"INSERT INTO telemetry.{table}", "Native", [piece])
    assert taken(handle, signal) == wanted


def points(kind: str) -> tuple[dict[str, Any], str, str]:
    """A metric of this kind as OTLP has it, and the exporter's row of it: table, columns."""
    when = {
        "startTimeUnixNano": str(START),
        "timeUnixNano": str(START + 123_456_789),
        "attributes": pairs({"model": "m", "session.id": SESSION}),
    }
    row = (
        f"'claude_code.{kind}' AS MetricName, 's' AS MetricUnit, map('service.name', 'claude-code') AS ResourceAttributes,"
        f" map('model', 'm', 'session.id', '{SESSION}') AS Attributes, fromUnixTimestamp64Nano({START}) AS StartTimeUnix,"
        f" fromUnixTimestamp64Nano({START + 123_456_789}) AS TimeUnix, "
    )
    spread = {"count": "3", "sum": 6.5, "min": 1.0, "max": 4.0}
    if kind == "gauge":
        metric, row = {"gauge": {"dataPoints": [when | {"asDouble": 2.5}]}}, row + "2.5 AS Value"
    elif kind == "sum":
        metric = {"sum": {"dataPoints": [when | {"asInt": "7"}], "aggregationTemporality": 2, "isMonotonic": True}}
        row += "7. AS Value, toInt32(2) AS AggregationTemporality, true AS IsMonotonic"
    elif kind == "summary":
        metric, row = {"summary": {"dataPoints": [when | {"count": "3", "sum": 6.5}]}}, row + "toUInt64(3) AS Count, 6.5 AS Sum"
    else:
        buckets = {"bucketCounts": ["1", "2"], "explicitBounds": [2.0]} if kind == "histogram" else {}
        name = "histogram" if kind == "histogram" else "exponentialHistogram"
        metric = {name: {"dataPoints": [when | spread | buckets], "aggregationTemporality": 1}}
        row += "toUInt64(3) AS Count, 6.5 AS Sum, 1. AS Min, 4. AS Max, toInt32(1) AS AggregationTemporality"
        row += ", [toUInt64(1), toUInt64(2)] AS BucketCounts, [2.] AS ExplicitBounds" if buckets else ""
    resource = {"attributes": pairs({"service.name": "claude-code"})}
    request = {
        "resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [{"name": f"claude_code.{kind}", "unit": "s"} | metric]}]}]
    }
    return request, f"otel_metrics_{kind}", row


@pytest.mark.parametrize("kind", ["gauge", "sum", "histogram", "exponential_histogram", "summary"])
def test_every_kind_of_metric(handle: Handle, pipeline: Pipeline, kind: str) -> None:
    request, table, row = points(kind)
    pipeline.store(Lane("metrics", "protobuf"), [as_protobuf(request, "metrics")])
    wanted = taken(handle, "metrics")
    [stored] = wanted["telemetry_metrics"]
    assert (stored["metric_type"], stored["value"] > 0, stored["count"] in ("1", "3", 1, 3)) == (kind, True, True)
    block = handle.query(f"SELECT {row}", "Native")
    pipeline.store(Lane("metrics", "native", table), [block])
    assert taken(handle, "metrics") == wanted
    handle.insert(f"INSERT INTO telemetry.{table}", "Native", [block])
    assert taken(handle, "metrics") == wanted


def test_words_of_otlp_are_no_place_for_others(handle: Handle) -> None:
    """Who inserts into these tables need not be the exporter; what is no word of OTLP is not stored."""
    for words in ("'Client' AS SpanKind, 'Error' AS StatusCode", "'a secret' AS SpanKind, 'another' AS StatusCode"):
        handle.run(f"INSERT INTO telemetry.otel_traces (Timestamp, SpanKind, StatusCode) SELECT now64(9), {words}")
    for words in ("'sum' AS MetricType, 'delta' AS AggregationTemporality", "'secret' AS MetricType, 'other' AS AggregationTemporality"):
        handle.run(f"INSERT INTO telemetry.otel_metric_points (TimeUnix, MetricType, AggregationTemporality) SELECT now64(9), {words}")
    spans, points = taken(handle, "traces")["telemetry_spans"], taken(handle, "metrics")["telemetry_metrics"]
    assert sorted((row["kind"], row["status_code"]) for row in spans) == [("", ""), ("Client", "Error")]
    assert sorted((row["metric_type"], row["temporality"]) for row in points) == [("", ""), ("sum", "delta")]


def test_the_tables_are_those_that_the_exporter_fills(handle: Handle) -> None:
    tables = (
        handle.query("SELECT name FROM system.tables WHERE database = 'telemetry' AND engine = 'Null' AND name LIKE 'otel%'")
        .decode()
        .split()
    )
    assert set(tables) - {"otel_metric_points"} == set(NATIVE)
    assert [lane.table for lane in LANES if lane.encoding == "native"] == list(NATIVE)


def test_inserts_are_coalesced_told_to_upkeep_and_refused_alone(
    tmp_path: Path, engine: Engine, handle: Handle, pipeline: Pipeline
) -> None:
    """One that can't be read costs its companions nothing; a context that comes last is announced."""
    event = {"name": "api_request", "time_ns": START, "session.id": SESSION, "cost_usd": 0.5}
    good = [
        exported(handle, pipeline, "logs", {"protobuf": [as_protobuf(log_request([event | {"event.sequence": number}]))]})
        for number in range(8)
    ]
    told = exported(handle, pipeline, "logs", {"protobuf": [as_protobuf(log_request([context(SESSION, START, feature="001-a")]))]})

    async def run() -> tuple[list[Any], Counters, bool]:
        counters = Counters()
        intake = Intake(engine, counters, 64 << 20, Journal(tmp_path / "journal"))
        try:
            bodies = [*good[:4], b"\x01\x01\x09Timestamp\x06String\x05", *good[4:], b"", told]
            answers = await asyncio.gather(*(intake.store_rows("otel_logs", body) for body in bodies), return_exceptions=True)
            return answers, counters, intake.context_arrived.is_set()
        finally:
            await intake.close()

    answers, counters, context_arrived = asyncio.run(run())
    assert [type(answer) for answer in answers] == [type(None)] * 4 + [Rejected] + [type(None)] * 6
    assert (counters.records["logs"], counters.rejected, counters.requests["logs"], context_arrived) == (8, 1, 11, True)
    stored = taken(handle, "logs")
    assert sorted(int(event["event_sequence"]) for event in stored["telemetry_events"]) == list(range(8))
    assert [record["feature"] for record in stored["session_context"]] == ["001-a"]


def test_what_the_interface_answers_to_an_insert(tmp_path: Path, handle: Handle, pipeline: Pipeline) -> None:
    """Taken only from who may write; whatever is wrong is ClickHouse's own kind of error, the sender's mistakes told from ours."""
    event = {"name": "api_request", "time_ns": START, "session.id": SESSION, "cost_usd": 0.5, "event.sequence": 1}
    block = exported(handle, pipeline, "logs", {"protobuf": [as_protobuf(log_request([event]))]})
    insert = b'INSERT INTO "telemetry"."otel_logs" (Timestamp, LogAttributes, Body) FORMAT Native\n'

    with server(tmp_path / "home", SP_TELEMETRY_MAX_QUEUED_MIB="1") as store:

        def ask(body: bytes, user: str = WRITER) -> tuple[int, str | None]:
            connection = store.http("clickhouse")
            credentials = {"X-ClickHouse-User": user, "X-ClickHouse-Key": store.home.secret(user)}
            connection.request("POST", "/?async_insert=0&client_protocol_version=54460&database=telemetry", body, credentials)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status, answer.getheader("X-ClickHouse-Exception-Code")

        assert ask(insert + block, READER) == (500, "164")
        assert ask(insert + b"\x01\x01\x09Timestamp\x06String\x05") == (400, "117")
        broken = [block.replace(b"DateTime64(9)", kind) for kind in (b"DateTime64)9)", b"DateTimeX4(9)", b"Dat\xffTime64(9)")]
        for kind in ("[1]", "tuple(1, 'x')", "map(1, 2)", "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')"):
            broken.append(handle.query(f"SELECT {kind} AS SeverityNumber", "Native"))
        for body in broken:  # never to be stored, so nothing is wrong with the store
            assert ask(insert + body) == (400, "117"), body
        assert store.get("health", "/")[0] == 200
        assert ask(insert + block + b"\0" * (2 << 20)) == (500, "202")
        assert store.query("SELECT count() FROM telemetry.telemetry_events FINAL") == [[0]]
        assert ask(insert + block) == ask(insert + block) == (200, None)
        assert store.query("SELECT count(), sum(cost_usd) FROM telemetry.telemetry_events FINAL") == [[1, 0.5]]
        figures = store.metrics()
        assert figures['sp_telemetry_records_committed_total{signal="logs"}'] == 2
        assert (figures["sp_telemetry_requests_rejected_total"], figures["sp_telemetry_requests_refused_total"]) == (8, 1)

"""What speaks OTLP to the server: OpenTelemetry's own exporters, and requests by hand, good, strange and hostile."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import grpc
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression, _log_exporter, metric_exporter, trace_exporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from sp_telemetry.setup.replay import GRPC_METHODS
from tests.server import JSON, PROTOBUF, Server, as_json, as_protobuf, log_request, pairs, server

RESOURCE = Resource({"service.name": "claude-code", "service.version": "9.9.9", "enduser.id": "ada"})
LARGEST_MIB = 2


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("clients"), SP_TELEMETRY_MAX_REQUEST_MIB=str(LARGEST_MIB)) as started:
        yield started


def session() -> str:
    return str(uuid4())


def request(of: str, number: int = 1, **attributes: Any) -> dict[str, Any]:
    told = {"session.id": of, "event.sequence": number, "cost_usd": 0.25} | attributes
    return log_request([{"name": "api_request", "time_ns": time.time_ns(), **told}])


def events(running: Server, of: str, columns: str = "cost_usd") -> list[list[Any]]:
    return running.query(f"SELECT {columns} FROM telemetry.telemetry_events FINAL WHERE session_id = '{of}' ORDER BY event_sequence")


# ---- OpenTelemetry's exporters


def exporters(running: Server, way: str) -> tuple[Any, Any, Any]:
    if way == "grpc":
        told = {"endpoint": f"127.0.0.1:{running.ports['otlp_grpc']}", "insecure": True}
        return grpc_logs.OTLPLogExporter(**told), grpc_metrics.OTLPMetricExporter(**told), grpc_traces.OTLPSpanExporter(**told)
    url = f"http://127.0.0.1:{running.ports['otlp_http']}/v1/"
    told = {"compression": Compression.Gzip if way == "http, gzip" else Compression.NoCompression}
    return (
        _log_exporter.OTLPLogExporter(url + "logs", **told),
        metric_exporter.OTLPMetricExporter(url + "metrics", **told),
        trace_exporter.OTLPSpanExporter(url + "traces", **told),
    )


@pytest.mark.parametrize("way", ["http", "http, gzip", "grpc"])
def test_opentelemetrys_own_exporters(running, way):
    of = session()
    to_logs, to_metrics, to_traces = exporters(running, way)

    logs = LoggerProvider(RESOURCE)
    logs.add_log_record_processor(SimpleLogRecordProcessor(to_logs))
    told = {"event.name": "api_request", "session.id": of, "event.sequence": 3, "cost_usd": 0.125, "input_tokens": 7, "success": True}
    record = LogRecord(timestamp=time.time_ns(), body="claude_code.api_request", severity_number=SeverityNumber.INFO, attributes=told)
    logs.get_logger("com.anthropic.claude_code").emit(record)
    logs.shutdown()
    columns = "event_type, event_sequence, cost_usd, input_tokens, success, user_id, service_version"
    assert events(running, of, columns) == [["api_request", 3, 0.125, 7, True, "ada", "9.9.9"]]

    reader = PeriodicExportingMetricReader(to_metrics, export_interval_millis=60_000)
    metrics = MeterProvider([reader], RESOURCE)
    metrics.get_meter("m").create_counter("claude_code.cost.usage", "USD").add(0.5, {"session.id": of, "model": "m"})
    metrics.get_meter("m").create_histogram("request.duration").record(3, {"session.id": of})
    metrics.shutdown()
    columns = "metric_name, metric_type, temporality, is_monotonic, value, count"
    rows = running.query(f"SELECT {columns} FROM telemetry.telemetry_metrics FINAL WHERE session_id = '{of}' ORDER BY 1")
    assert rows == [
        ["claude_code.cost.usage", "sum", "cumulative", True, 0.5, 1],
        ["request.duration", "histogram", "cumulative", False, 3, 1],
    ]

    traces = TracerProvider(resource=RESOURCE)
    traces.add_span_processor(SimpleSpanProcessor(to_traces))
    tracer = traces.get_tracer("t")
    with (
        tracer.start_as_current_span("interaction", attributes={"session.id": of}) as outer,
        tracer.start_as_current_span("llm_request", attributes={"session.id": of, "model": "m", "success": False}) as inner,
    ):
        inner.add_event("retry")
    traces.shutdown()
    columns = "span_name, trace_id, span_id, parent_span_id, model, success, events.name"
    rows = running.query(f"SELECT {columns} FROM telemetry.telemetry_spans FINAL WHERE session_id = '{of}' ORDER BY 1")
    trace, parent = f"{outer.get_span_context().trace_id:032x}", f"{outer.get_span_context().span_id:016x}"
    assert rows == [
        ["interaction", trace, parent, "", "", None, []],
        ["llm_request", trace, f"{inner.get_span_context().span_id:016x}", parent, "m", False, ["retry"]],
    ]


# ---- by hand


def test_gzip_deflate_chunked_and_pretty_json(running):
    of = session()
    body = as_protobuf(request(of, 1))
    assert running.post("logs", gzip.compress(body), PROTOBUF, Content_Encoding="gzip")[0] == 200
    assert running.post("logs", zlib.compress(as_protobuf(request(of, 2))), PROTOBUF, Content_Encoding="deflate")[0] == 200
    chunked = as_protobuf(request(of, 3))
    assert running.post("logs", iter([chunked[:5], chunked[5:]]), PROTOBUF, Transfer_Encoding="chunked")[0] == 200
    compressed = gzip.compress(as_json(request(of, 4)))
    told = {"Transfer_Encoding": "chunked", "Content_Encoding": "gzip"}
    assert running.post("logs", iter([compressed[:9], compressed[9:]]), JSON, **told)[0] == 200
    pretty = json.dumps(request(of, 5), indent=2).encode()
    assert running.post("logs", pretty, "application/json; charset=utf-8")[0] == 200
    assert len(events(running, of)) == 5


def test_the_answer_is_an_export_response_in_the_requests_encoding(running):
    for body, kind, wanted in ((as_protobuf(request(session())), PROTOBUF, b""), (as_json(request(session())), JSON, b"{}")):
        status, headers, answer = running.post("logs", body, kind)
        assert (status, headers["content-type"].partition(";")[0], answer) == (200, kind, wanted)


@pytest.mark.parametrize("signal", ["logs", "metrics", "traces"])
def test_what_can_never_be_stored_is_400_with_a_status(running, signal):
    from google.rpc.status_pb2 import Status

    status, headers, answer = running.post(signal, b"this is no protobuf, by no means")
    decoded = Status.FromString(answer)
    assert (status, headers["content-type"], decoded.code) == (400, PROTOBUF, grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert decoded.message
    for body in (b"{", b'{"resourceLogs": 5, "resourceMetrics": 5, "resourceSpans": 5}', b"", b"   ", b"[[["):
        status, headers, answer = running.post(signal, body, JSON)
        assert status == 400 and json.loads(answer)["code"] == 3 and json.loads(answer)["message"], body
    for encoding in ("gzip", "deflate"):
        assert running.post(signal, b"not compressed at all", PROTOBUF, Content_Encoding=encoding)[0] == 400


@pytest.mark.parametrize("signal", ["logs", "metrics", "traces"])
def test_an_empty_protobuf_request_is_good(running, signal):
    assert running.post(signal, b"")[0] == 200
    assert call(running, GRPC_METHODS[signal], b"") == b""


def without_records(signal: str) -> list[dict[str, Any]]:
    """Requests with all that may stand around a record and none of it."""
    resources, scopes = {
        "logs": ("resourceLogs", "scopeLogs"), "metrics": ("resourceMetrics", "scopeMetrics"), "traces": ("resourceSpans", "scopeSpans")
    }[signal]  # fmt: skip
    named = {"resource": {"attributes": pairs({"service.name": "claude-code", "session.id": "nobody"})}}
    scope = {"scope": {"name": "com.anthropic.claude_code"}}
    points = [{"metrics": [{"name": "claude_code.cost.usage", "sum": {"dataPoints": []}}]}] if signal == "metrics" else []
    held = [[{}], [named], [named | {scopes: []}], [named | {scopes: [{}]}], [named, named | {scopes: [scope, scope, *points]}]]
    return [{}, {resources: []}, *({resources: each} for each in held)]


@pytest.mark.parametrize("signal", ["logs", "metrics", "traces"])
def test_a_request_without_records_is_good_and_answered_at_once(running, signal):
    """Of logs as protobuf it was a second, for the standing query answers what it reads with rows."""
    of = session()
    assert running.post("logs", as_protobuf(request(of)))[0] == 200  # which begins the standing query
    before, took = running.metrics(), []
    for each in without_records(signal):
        for send in (
            lambda: running.post(signal, as_protobuf(each, signal))[::2] == (200, b""),  # noqa: B023
            lambda: running.post(signal, as_json(each), JSON)[::2] == (200, b"{}"),  # noqa: B023
            lambda: call(running, GRPC_METHODS[signal], as_protobuf(each, signal)) == b"",  # noqa: B023
        ):
            begun = time.monotonic()
            assert send(), each
            took.append(time.monotonic() - begun)
    assert sorted(took)[len(took) // 2] < 0.3 and max(took) < 1, took
    after = running.metrics()
    assert after["sp_telemetry_requests_stored_total"] - before["sp_telemetry_requests_stored_total"] == len(took)
    of_records = [name for name in after if name.startswith("sp_telemetry_records_committed_total")]
    assert {name: after[name] for name in of_records} == {name: before[name] for name in of_records}
    assert events(running, of) == [[0.25]]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/grpc", "multipart/form-data"])
def test_another_content_type_is_415(running, kind):
    assert running.post("logs", as_json(request(session())), kind)[0] == 415


def test_paths_and_methods(running):
    assert running.post("nothing", b"{}", JSON)[0] == 404
    assert running.get("otlp_http", "/v1/logs")[0] == 405
    assert running.get("otlp_http", "/")[0] == 404


def test_too_large_is_413_however_it_is_packed_and_takes_no_memory(running):
    status = f"/proc/{running.running.pid}/status"

    def peak_mib() -> int:
        with open(status) as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) >> 10

    before = peak_mib()
    large = b" " * ((LARGEST_MIB << 20) + 1)
    assert running.post("logs", large, JSON)[0] == 413
    assert running.post("logs", iter([large]), JSON, Transfer_Encoding="chunked")[0] == 413
    bomb = gzip.compress(b"\0" * (256 << 20), 9)
    for _ in range(2):
        assert running.post("logs", bomb, PROTOBUF, Content_Encoding="gzip")[0] == 413
    assert peak_mib() - before < 100
    assert running.post("logs", as_protobuf(request(session())))[0] == 200


def test_good_requests_beside_bad_ones_are_all_stored(running):
    """Sent at once, so that they share inserts."""
    of = session()
    before = running.metrics()

    def send(number: int) -> int:
        if number % 5 == 0:
            return running.post("logs", b"\x0a\xff\xff\xff\x0f garbage")[0]
        if number % 7 == 0:
            return running.post("logs", [b'{"x":', b"}", b'{"x":"'][number % 3], JSON)[0]
        if number % 2:
            return running.post("logs", as_json(request(of, number)), JSON)[0]
        return running.post("logs", as_protobuf(request(of, number)))[0]

    numbers = range(1, 71)
    with ThreadPoolExecutor(16) as pool:
        answers = dict(zip(numbers, pool.map(send, numbers), strict=True))
    good = [number for number in numbers if number % 5 and number % 7]
    assert answers == {number: 200 if number in good else 400 for number in numbers}
    assert [row[0] for row in events(running, of, "event_sequence")] == good
    after = running.metrics()
    assert after["sp_telemetry_requests_rejected_total"] - before["sp_telemetry_requests_rejected_total"] == len(numbers) - len(good)
    assert after["sp_telemetry_requests_stored_total"] - before["sp_telemetry_requests_stored_total"] == len(good)


def test_unknown_attributes_are_counted_by_name(running):
    of = session()
    running.stored("logs", as_protobuf(request(of, **{"brand.new": "x", "another_one": [1, 2]})))
    assert events(running, of, "arraySort(unknown_attributes)") == [[["another_one", "brand.new"]]]


# ---- gRPC


def call(running: Server, method: str, body: bytes, **options: Any) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{running.ports['otlp_grpc']}") as channel:
        return channel.unary_unary(method)(body, timeout=20, **options)


def test_grpc_status_codes(running):
    of = session()
    assert call(running, GRPC_METHODS["logs"], as_protobuf(request(of)), compression=grpc.Compression.Gzip) == b""
    assert events(running, of) == [[0.25]]
    for method, body, code in (
        (GRPC_METHODS["logs"], b"garbage, not protobuf", grpc.StatusCode.INVALID_ARGUMENT),
        (GRPC_METHODS["traces"], b"garbage, not protobuf", grpc.StatusCode.INVALID_ARGUMENT),
        (GRPC_METHODS["logs"].replace("Export", "Import"), b"", grpc.StatusCode.UNIMPLEMENTED),
        ("/some.other.Service/Export", b"", grpc.StatusCode.UNIMPLEMENTED),
        (GRPC_METHODS["logs"], b" " * ((LARGEST_MIB << 20) + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(running, method, body)
        assert refused.value.code() == code


# ---- more than it can take


def test_a_full_queue_is_429_with_retry_after_and_unavailable(tmp_path):
    """Room for nothing: max_queued_mib is 1, and each request is larger."""
    with server(tmp_path, SP_TELEMETRY_MAX_QUEUED_MIB="1") as full:
        body = as_protobuf(request(session(), prompt="x" * (2 << 20)))
        status, headers, answer = full.post("logs", body)
        assert (status, headers["retry-after"]) == (429, "1")
        assert b"too many requests" in answer
        with pytest.raises(grpc.RpcError) as refused:
            call(full, GRPC_METHODS["logs"], body)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert full.metrics()["sp_telemetry_requests_refused_total"] == 2
        assert full.post("logs", as_protobuf(request(session())))[0] == 200


def test_figures_after_copies_are_of_events_not_of_requests(tmp_path):
    with server(tmp_path) as fresh:
        bodies = [as_protobuf(request(session(), number)) for number in range(5)]
        for body in bodies * 3:
            fresh.stored("logs", body)
        samples = fresh.metrics()
        assert samples["sp_telemetry_events_stored"] == 5
        assert samples["sp_telemetry_events_duplicate"] == 10
        assert samples['sp_telemetry_records_committed_total{signal="logs"}'] == 15
        assert samples['sp_telemetry_requests_received_total{signal="logs"}'] == samples["sp_telemetry_requests_stored_total"] == 15
        assert samples["sp_telemetry_bytes_on_disk"] > 0
        assert samples["sp_telemetry_queued_bytes"] == samples["sp_telemetry_requests_queued"] == 0

"""Metrics and spans that come twice are there once, also those without a time of their own; and others beside them stay."""

from __future__ import annotations

import itertools
import json
import re
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, as_protobuf, pairs

START = 1_790_000_000 * 10**9
#: a time, and what stands where there is none or none that can be
TIMES = (START, 0, 5 * 10**9, 2**62, 2**64 - 1)
ENCODINGS = ("protobuf", "json")
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    engine = Engine(tmp_path_factory.mktemp("points"))
    with engine.handle() as opened:
        schema.migrate(opened)
        yield opened
    engine.close()


@pytest.fixture(scope="module")
def pipeline(handle: Handle) -> Pipeline:
    return Pipeline(handle)


@pytest.fixture
def session() -> str:
    """And time enough for a test within one hour."""
    if time.time() % 3600 > 3580:
        time.sleep(21)
    return str(UUID(int=next(numbers)))


def metric(session: str, time_ns: int, value: int = 1, **attributes: str) -> tuple[str, dict[str, Any]]:
    point = {"timeUnixNano": str(time_ns), "asDouble": value, "attributes": pairs({"session.id": session, **attributes})}
    told = {"name": "claude_code.cost.usage", "sum": {"aggregationTemporality": 1, "dataPoints": [point]}}
    return "metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [told]}]}]}


def span(session: str, time_ns: int, span_id: str = "a" * 16, duration: int = 5) -> tuple[str, dict[str, Any]]:
    told = {"name": "tool", "traceId": "c" * 32, "spanId": span_id, "attributes": pairs({"session.id": session})}
    told |= {"startTimeUnixNano": str(time_ns), "endTimeUnixNano": str(min(time_ns + duration, 2**64 - 1))}
    return "traces", {"resourceSpans": [{"scopeSpans": [{"spans": [told]}]}]}


def store(pipeline: Pipeline, encoding: str, signal: str, request: dict[str, Any]) -> None:
    if encoding == "protobuf":  # there, ids are bytes
        request = json.loads(re.sub('(?<=Id": ")[0-9a-f]*', lambda hex: b64encode(bytes.fromhex(hex[0])).decode(), json.dumps(request)))
    body = as_protobuf(request, signal) if encoding == "protobuf" else as_json(request)
    pipeline.store(Lane(signal, encoding), [body])


def kept(handle: Handle, session: str, table: str) -> int:
    """How many of the session a reader sees, before and after a merge."""
    asked = f"SELECT count() FROM telemetry.{table} FINAL WHERE session_id = '{session}'"
    before = int(handle.query(asked))
    handle.run(f"OPTIMIZE TABLE telemetry.{table} FINAL")
    assert int(handle.query(asked)) == before
    return before


@pytest.mark.parametrize("time_ns", TIMES)
@pytest.mark.parametrize(("made", "table"), [(metric, "telemetry_metrics"), (span, "telemetry_spans")])
def test_a_copy_is_a_copy(handle, pipeline, session, made, table, time_ns):
    for encoding in ("protobuf", "protobuf", "json", "json"):
        store(pipeline, encoding, *made(session, time_ns))
        time.sleep(0.01)
    assert kept(handle, session, table) == 1


def test_what_stands_between_may_add_to_the_surroundings_of_a_point(handle, pipeline, session):
    """A collector's resource detection: the machine, whose point it is, what the point says itself, the session that the resource tells."""
    additions = ({}, {"host.arch": "arm64"}, {"os.type": "linux", "enduser.id": "Ada"}, {"model": "m"}, {"model": "other"})
    for encoding, added in itertools.product(ENCODINGS, additions):
        signal, request = metric(session, START, model="m")
        request["resourceMetrics"][0]["resource"] = {"attributes": pairs({"service.name": "claude-code", **added})}
        store(pipeline, encoding, signal, request)
    attributes = request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["sum"]["dataPoints"][0]["attributes"]
    request["resourceMetrics"][0]["resource"]["attributes"].append(attributes.pop(0))
    store(pipeline, "json", signal, request)
    assert kept(handle, session, "telemetry_metrics") == 1


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_points_of_one_moment_and_two_senders_are_two(handle, pipeline, session, encoding):
    for sender in ({"service.name": "claude-code"}, {"service.name": "other"}, {"service.name": "claude-code", "user.id": "b" * 64}):
        signal, request = metric(session, START)
        request["resourceMetrics"][0]["resource"] = {"attributes": pairs(sender)}
        store(pipeline, encoding, signal, request)
    assert kept(handle, session, "telemetry_metrics") == 3


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_points_that_differ_are_each_one(handle, pipeline, session, encoding):
    """In what their time was, when that can't be; in their attributes; and at a moment of their own."""
    points = [
        *(metric(session, time_ns) for time_ns in (*TIMES, START + 1)),
        metric(session, 0, model="m"),
        metric(session, START, model="m"),
    ]
    for _ in range(2):
        for point in points:
            store(pipeline, encoding, *point)
    assert kept(handle, session, "telemetry_metrics") == len(points)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_spans_that_differ_are_each_one(handle, pipeline, session, encoding):
    """Those without an id too, by what else there is of them."""
    spans = [span(session, time_ns, span_id) for time_ns in (0, 5 * 10**9, START) for span_id in ("", "a" * 16, "b" * 16)]
    spans.append(span(session, 0, "", duration=6))
    for _ in range(2):
        for one in spans:
            store(pipeline, encoding, *one)
    assert kept(handle, session, "telemetry_spans") == len(spans)

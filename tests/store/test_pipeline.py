"""OTLP bytes to rows on the real engine: both encodings of every value, what is strange, what is broken, and its neighbours."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve.commit import Busy, Rejected, commit
from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.recordings.clean import empty_message
from tests.server import as_json, as_protobuf, log_request, pairs

START = 1_790_000_000 * 10**9
LANES = {"protobuf": Lane("logs", "protobuf"), "json": Lane("logs", "json")}
ENCODE = {"protobuf": as_protobuf, "json": as_json}
both = pytest.mark.parametrize("encoding", ["protobuf", "json"])
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    engine = Engine(tmp_path_factory.mktemp("pipeline"))
    with engine.handle() as opened:
        schema.migrate(opened)
        maintenance.apply_retention(opened, {"retention_events_days": 0, "retention_sessions_days": 0})
        yield opened
    engine.close()


@pytest.fixture(scope="module")
def pipeline(handle: Handle) -> Pipeline:
    return Pipeline(handle)


def session() -> str:
    return str(UUID(int=next(numbers)))


def rows(handle: Handle, sql: str) -> list[list[Any]]:
    return [json.loads(line) for line in handle.query(sql, "JSONCompactEachRow").decode().splitlines()]


def stored(handle: Handle, of: str, columns: str) -> list[list[Any]]:
    chosen = f"session_id = '{of}' ORDER BY timestamp, event_sequence"
    return rows(handle, f"SELECT {columns} FROM telemetry.telemetry_events FINAL WHERE {chosen}")


@both
@pytest.mark.parametrize("as_text", [False, True], ids=["typed", "text"])
def test_numbers_and_booleans_in_each_type_on_the_wire(handle, pipeline, encoding, as_text):
    of = session()
    told = {"event.sequence": 7, "cost_usd": 0.0123, "input_tokens": 5, "output_tokens": 7, "duration_ms": 1234.0, "success": True}
    if as_text:
        told = {name: json.dumps(value) for name, value in told.items()}
    event = {"name": "tool_result", "time_ns": START, "session.id": of, **told}
    pipeline.store(LANES[encoding], [ENCODE[encoding](log_request([event]))])
    columns = "event_sequence, cost_usd, input_tokens, output_tokens, token_count, duration_ms, success"
    assert stored(handle, of, columns) == [[7, 0.0123, 5, 7, 12, 1234, True]]


@both
@pytest.mark.parametrize(
    ("value", "tokens", "cost"),
    [(-1, 0, -1), ("-5", 0, -5), ("nan", 0, 0), ("inf", 0, 0), ("1e400", 0, 0), ("x", 0, 0), ("", 0, 0), (2**63 - 1, 2**63, 2**63),
     (True, 0, 0), ([1], 0, 0), ({"a": 1}, 0, 0)],
)  # fmt: skip
def test_a_number_that_is_none_breaks_nothing(handle, pipeline, encoding, value, tokens, cost):
    of = session()
    event = {"name": "api_request", "time_ns": START, "session.id": of, "event.sequence": 1, "input_tokens": value, "cost_usd": value}
    pipeline.store(LANES[encoding], [ENCODE[encoding](log_request([event]))])
    assert stored(handle, of, "input_tokens, cost_usd") == [[tokens, pytest.approx(cost)]]


@both
def test_arrays_and_nested_values_are_not_stored_and_cost_their_neighbours_nothing(handle, pipeline, encoding):
    of = session()
    nested = {"model": ["a", "b"], "speed": {"in": {"side": [1, {"x": "y"}]}}}
    request = log_request([{"name": "api_request", "time_ns": START, "session.id": of, **nested, "effort": "high"}])
    request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["body"] = {"kvlistValue": {"values": pairs({"a": [1]})}}
    pipeline.store(LANES[encoding], [ENCODE[encoding](request)])
    assert stored(handle, of, "event_type, model, speed, effort") == [["api_request", "", "", "high"]]


@both
def test_unknown_events_and_attributes_keep_their_name_and_nothing_else(handle, pipeline, encoding):
    of = session()
    event = {"name": "brand_new_event", "time_ns": START, "session.id": of, "new.attribute": "what it says", "new_number": 5, "model": "m"}
    pipeline.store(LANES[encoding], [ENCODE[encoding](log_request([event]))])
    [[kind, unknown, attributes, model]] = stored(handle, of, "event_type, unknown_attributes, attributes, model")
    assert (kind, unknown, attributes, model) == ("brand_new_event", ["new.attribute", "new_number"], {}, "m")


@both
def test_an_event_is_named_by_its_attribute_or_event_name_or_body(handle, pipeline, encoding):
    of = session()
    request = log_request([{"name": "x", "time_ns": START + number, "session.id": of} for number in range(3)])
    by_attribute, by_event_name, by_body = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    by_attribute["attributes"][0]["value"]["stringValue"] = "api_request"
    for record in (by_event_name, by_body):
        del record["attributes"][0]
    by_event_name["eventName"] = "claude_code.api_error"
    by_body["body"]["stringValue"] = "claude_code.user_prompt"
    pipeline.store(LANES[encoding], [ENCODE[encoding](request)])
    assert stored(handle, of, "event_type") == [["api_request"], ["api_error"], ["user_prompt"]]


@both
def test_a_log_of_another_program_with_nothing_that_we_know_is_kept_under_a_checked_name(handle, pipeline, encoding):
    [before] = rows(handle, "SELECT count() FROM telemetry.telemetry_events WHERE event_type = 'unnamed'")
    text = f"Server started on port 8080 for {encoding}!"
    request = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": str(START), "body": {"stringValue": text}}]}]}]}
    pipeline.store(LANES[encoding], [ENCODE[encoding](request)])
    assert rows(handle, "SELECT count() FROM telemetry.telemetry_events WHERE event_type = 'unnamed'") == [[before[0] + 1]]


def test_events_without_a_number_are_told_apart_by_what_they_say_in_any_order_of_attributes(handle, pipeline):
    """A collector may keep attributes in another order than the client had them."""
    of = session()
    told = {"name": "tool_result", "time_ns": START, "session.id": of, "tool_name": "Bash", "success": "true", "duration_ms": 5}
    pipeline.store(LANES["json"], [as_json(log_request([told]))])
    pipeline.store(LANES["protobuf"], [as_protobuf(log_request([dict(reversed(told.items()))]))])
    pipeline.store(LANES["json"], [as_json(log_request([told | {"tool_name": "Read"}]))])
    assert sorted(stored(handle, of, "tool_name")) == [["Bash"], ["Read"]]


def test_identical_events_of_different_moments_all_stay(handle, pipeline):
    of = session()
    events = [{"name": "user_prompt", "time_ns": START + number, "session.id": of} for number in range(3)]
    pipeline.store(LANES["json"], [as_json(log_request(events))])
    assert len(stored(handle, of, "timestamp")) == 3


@both
def test_years_of_history_in_one_request(handle, pipeline, encoding):
    """Partitions are weeks, and the engine's own limit is a hundred of them an insert."""
    of = session()
    week = 7 * 86400 * 10**9
    event = {"name": "api_request", "session.id": of}
    events = [event | {"time_ns": START - number * week, "event.sequence": number} for number in range(160)]
    pipeline.store(LANES[encoding], [ENCODE[encoding](log_request(events))])
    assert len(stored(handle, of, "timestamp")) == 160


@pytest.mark.parametrize("time_ns", [0, 1, 2**63 - 1, 2**64 - 1])
@both
def test_a_time_that_can_not_be_is_the_hour_of_arrival(handle, pipeline, encoding, time_ns):
    of = session()
    pipeline.store(LANES[encoding], [ENCODE[encoding](log_request([{"name": "api_request", "time_ns": time_ns, "session.id": of}]))])
    assert stored(handle, of, "timestamp = toStartOfHour(received_at)") == [[1]]


# ---- metrics and spans

ATTRIBUTES = {"session.id": str(UUID(int=10**6)), "model": "m", "type": "input", "user.id": "u"}


def metrics_request() -> dict[str, Any]:
    point = {"startTimeUnixNano": str(START), "timeUnixNano": str(START + 5), "attributes": pairs(ATTRIBUTES)}
    spread = {"count": "3", "sum": 4.5, "min": 0.5, "max": 3.0}
    return {
        "resourceMetrics": [{"resource": {"attributes": pairs({"service.version": "9"})}, "scopeMetrics": [{"metrics": [
            {"name": "of.sum", "unit": "USD", "sum": {
                "aggregationTemporality": 1, "isMonotonic": True, "dataPoints": [point | {"asDouble": 1.25}]}},
            {"name": "of.whole", "sum": {"aggregationTemporality": 2, "dataPoints": [point | {"asInt": "-7"}]}},
            {"name": "of.gauge", "gauge": {"dataPoints": [point | {"asInt": "9"}]}},
            {"name": "of.histogram", "histogram": {"aggregationTemporality": 2, "dataPoints": [
                point | spread | {"bucketCounts": ["1", "2"], "explicitBounds": [1.0]}]}},
            {"name": "of.exponential", "exponentialHistogram": {"aggregationTemporality": 1, "dataPoints": [point | spread]}},
            {"name": "of.summary", "summary": {"dataPoints": [point | {"count": "3", "sum": 4.5}]}},
        ]}]}]
    }  # fmt: skip


@both
def test_pitfall_10_every_kind_of_metric_keeps_its_type_and_temporality(handle, pipeline, encoding):
    handle.run("TRUNCATE TABLE telemetry.telemetry_metrics")
    body = as_json(metrics_request()) if encoding == "json" else as_protobuf(metrics_request(), "metrics")
    for _ in range(2):  # the second time changes nothing
        assert pipeline.store(Lane("metrics", encoding), [body]) == 6
    columns = "metric_name, metric_type, temporality, is_monotonic, value, count, min, max, bucket_counts, explicit_bounds"
    assert rows(handle, f"SELECT {columns} FROM telemetry.telemetry_metrics FINAL ORDER BY metric_name") == [
        ["of.exponential", "exponential_histogram", "delta", False, 4.5, 3, 0.5, 3, [], []],
        ["of.gauge", "gauge", "", False, 9, 1, None, None, [], []],
        ["of.histogram", "histogram", "cumulative", False, 4.5, 3, 0.5, 3, [1, 2], [1]],
        ["of.sum", "sum", "delta", True, 1.25, 1, None, None, [], []],
        ["of.summary", "summary", "", False, 4.5, 3, None, None, [], []],
        ["of.whole", "sum", "cumulative", False, -7, 1, None, None, [], []],
    ]
    named = "DISTINCT session_id, user_id, service_version, attributes"
    wanted = [ATTRIBUTES["session.id"], "u", "9", {"model": "m", "type": "input"}]
    assert rows(handle, f"SELECT {named} FROM telemetry.telemetry_metrics") == [wanted]
    times = "DISTINCT toUnixTimestamp64Nano(start_timestamp), toUnixTimestamp64Nano(timestamp)"
    assert rows(handle, f"SELECT {times} FROM telemetry.telemetry_metrics") == [[START, START + 5]]


def test_two_series_with_the_same_values_under_swapped_names_are_two(handle, pipeline):
    handle.run("TRUNCATE TABLE telemetry.telemetry_metrics")
    request = metrics_request()
    request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"] = [
        {"name": "m", "gauge": {"dataPoints": [{"timeUnixNano": str(START), "asInt": "1", "attributes": pairs(told)}]}}
        for told in ({"type": "a", "language": "b"}, {"type": "b", "language": "a"}, {"language": "b", "type": "a"})
    ]
    pipeline.store(Lane("metrics", "json"), [as_json(request)])
    assert len(rows(handle, "SELECT 1 FROM telemetry.telemetry_metrics FINAL")) == 2


def test_numbers_out_of_range_in_enums_break_nothing(handle, pipeline):
    for kind in (-1, 0, 5, 6, 1000):
        span = {"startTimeUnixNano": str(START), "endTimeUnixNano": str(START - 5), "name": "s", "kind": kind, "status": {"code": kind}}
        assert pipeline.store(Lane("traces", "json"), [as_json({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})]) == 1
        points = {"aggregationTemporality": kind, "dataPoints": [{"timeUnixNano": str(START), "asInt": "1"}]}
        metric = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "sum": points}]}]}]}
        assert pipeline.store(Lane("metrics", "json"), [as_json(metric)]) == 1


# ---- broken requests and their neighbours


def good(of: str) -> dict[str, Any]:
    return log_request([{"name": "api_request", "time_ns": START, "session.id": of, "event.sequence": 1, "cost_usd": 1.5}])


def is_protobuf(body: bytes) -> bool:
    try:
        empty_message("logs").ParseFromString(body)
    except DecodeError:
        return False
    return True


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_broken_protobuf_request_is_rejected_and_its_neighbours_are_stored(handle, pipeline, data):
    whole = as_protobuf(good(session()))
    cut = data.draw(st.integers(1, len(whole) - 1))
    broken = data.draw(st.sampled_from([whole[:cut], whole[cut:], b"\xff" * 9, whole + b"\x0a\xff\xff\xff\x0f", b"\x00"]))
    before, after = session(), session()
    answers = commit(pipeline, LANES["protobuf"], [as_protobuf(good(before)), broken, as_protobuf(good(after))])
    assert stored(handle, before, "cost_usd") == stored(handle, after, "cost_usd") == [[1.5]]
    assert not isinstance(answers[0], Exception) and not isinstance(answers[2], Exception)
    if not is_protobuf(broken):  # the engine skips some unknown groups that Python's parser refuses: then nothing is in it
        assert isinstance(answers[1], Rejected) or answers[1] == 0
    if broken.endswith((b"\xff" * 9, b"\x0a\xff\xff\xff\x0f")):
        assert isinstance(answers[1], Rejected)
    assert not isinstance(answers[1], Busy)


CUT = as_json(good(str(UUID(int=10**7))))[:-9]
OPENINGS = [b'{"x":', b'{"resourceLogs":[', b'{"x":"', b"[", b"{", b"}", b"x", b'{"resourceLogs":5}', b"null", b"{}}", b"{}{}", CUT]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(opening=st.sampled_from(OPENINGS), closing=st.sampled_from([b"}", b"]}", b'"}', b"]", b"", b"x"]))
@example(opening=b'{"x":', closing=b"}")
@example(opening=b'{"x":"', closing=b'"}')
def test_a_broken_json_request_is_rejected_and_can_not_swallow_its_neighbours(handle, pipeline, opening, closing):
    before, between, after = session(), session(), session()
    bodies = [as_json(good(before)), opening, as_json(good(between)), closing, as_json(good(after))]
    answers = commit(pipeline, LANES["json"], [body for body in bodies if body])
    kept = [answer for answer, body in zip(answers, filter(None, bodies), strict=True) if body in (bodies[0], bodies[2], bodies[4])]
    assert not any(isinstance(answer, Exception) for answer in kept)
    assert stored(handle, before, "cost_usd") == stored(handle, between, "cost_usd") == stored(handle, after, "cost_usd") == [[1.5]]
    assert isinstance(answers[1], Rejected)


@pytest.mark.parametrize(("code", "found"), [(241, Busy), (117, Rejected)])
def test_a_fault_of_ours_is_not_the_requests_because_memory_runs_out_where_it_is_looked_at_again(pipeline, monkeypatch, code, found):
    def failing(code):
        def fail(*_):
            raise QueryFailed(f"Code: {code}.", code=code)

        return fail

    monkeypatch.setattr(pipeline, "store", failing(43))
    monkeypatch.setattr(pipeline, "decode", failing(code))
    [answer] = commit(pipeline, LANES["json"], [as_json(good(session()))])
    assert isinstance(answer, found)


@pytest.mark.parametrize("body", [b"", b"\x0a\x00"])
def test_an_empty_protobuf_request_is_one_with_nothing_in_it(pipeline, body):
    assert commit(pipeline, LANES["protobuf"], [body]) == [0]


@pytest.mark.parametrize("before", range(4))
def test_a_broken_json_request_in_any_language_is_rejected(pipeline, before):
    """The engine quotes it up to a byte that may lie within a letter. chDB failed at that, which was taken for the machine's fault."""
    text = "x" * before + "é" * 3000
    record = {"timeUnixNano": 1.5, "body": {"stringValue": text}}
    request = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    [answer] = commit(pipeline, LANES["json"], [json.dumps(request, ensure_ascii=False).encode()])
    assert isinstance(answer, Rejected) and "Cannot parse input" in str(answer)


def test_a_context_record_whose_name_is_written_in_escapes_is_stored(handle, pipeline):
    """It is none of the events, so where it was not looked for it was acknowledged and nowhere."""
    of = session()
    record = log_request([{"name": "sp_telemetry.context", "time_ns": START, "session.id": of, "context.chapter": "33-some"}])
    pipeline.store(LANES["json"], [as_json(record).replace(b"telemetry.context", b"telemetry\\u002econtext")])
    assert rows(handle, f"SELECT chapter FROM telemetry.session_context WHERE session_id = '{of}'") == [["33-some"]]


def test_json_as_people_write_it(handle, pipeline):
    of = session()
    request = good(of) | {"unknown": [{"deep": [1, None]}]}
    record = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    record |= {"timeUnixNano": START, "severityText": None, "droppedAttributesCount": 0, "flags": 1}
    record["attributes"].append({"key": "input_tokens", "value": {"intValue": 12}})
    tabs = json.dumps(request, indent="\t")
    for text in (json.dumps(request, indent=4), tabs.replace("\n", "\r\n"), "\n  " + json.dumps(request) + "\n\n"):
        pipeline.store(LANES["json"], [text.encode()])
    assert stored(handle, of, "cost_usd, input_tokens") == [[1.5, 12]]

"""What makes an event one: the same event in whatever dress is one row, and another event is another row (docs/architecture.md)."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from sp_telemetry.serve.commit import Rejected, Unavailable, commit
from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, as_protobuf, log_request, pairs

MS = 10**6
START = 1_790_000_000 * 10**9
PROTOBUF, JSON = Lane("logs", "protobuf"), Lane("logs", "json")
numbers = itertools.count(1)
Event = dict[str, Any]


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    engine = Engine(tmp_path_factory.mktemp("once"))
    with engine.handle() as opened:
        schema.migrate(opened)
        maintenance.apply_retention(opened, {"retention_events_days": 0, "retention_sessions_days": 0})
        yield opened
    engine.close()


@pytest.fixture(scope="module")
def pipeline(handle: Handle) -> Pipeline:
    return Pipeline(handle)


@pytest.fixture
def session() -> str:
    return str(UUID(int=next(numbers)))


def kept(handle: Handle, session: str) -> int:
    """How many events of the session a reader sees, before and after a merge."""
    asked = f"SELECT count() FROM telemetry.telemetry_events FINAL WHERE session_id = '{session}'"
    before = int(handle.query(asked))
    handle.run("OPTIMIZE TABLE telemetry.telemetry_events FINAL")
    assert int(handle.query(asked)) == before
    return before


# ---- the dresses in which one event may come

Dress = Callable[[Pipeline, Handle, dict[str, Any]], None]


def over_protobuf(pipeline: Pipeline, handle: Handle, request: dict[str, Any]) -> None:
    pipeline.store(PROTOBUF, [as_protobuf(request)])


def over_json(pipeline: Pipeline, handle: Handle, request: dict[str, Any]) -> None:
    pipeline.store(JSON, [as_json(request)])


def as_text(value: dict[str, Any]) -> str:
    """An AnyValue as the Collector's exporter writes it."""
    [(kind, inner)] = value.items()
    if kind == "boolValue":
        return "true" if inner else "false"
    return re.sub(r"e([+-])0", r"e\1", repr(inner).removesuffix(".0")) if kind == "doubleValue" else inner


def through_the_collector(pipeline: Pipeline, handle: Handle, request: dict[str, Any]) -> None:
    """The Collector's ClickHouse exporter: a row of otel_logs a record, all attributes as text, in an order of its own."""
    rows = []
    for resource in request["resourceLogs"]:
        of_resource = {pair["key"]: as_text(pair["value"]) for pair in resource["resource"]["attributes"]}
        for record in resource["scopeLogs"][0]["logRecords"]:
            at = int(record.get("timeUnixNano") or 0) or int(record.get("observedTimeUnixNano") or 0)
            row = {
                "Timestamp": f"{at // 10**9}.{at % 10**9:09}",
                "Body": record.get("body", {}).get("stringValue", ""),
                "ResourceAttributes": of_resource,
                "LogAttributes": dict(sorted((pair["key"], as_text(pair["value"])) for pair in record["attributes"])),
                "EventName": record.get("eventName", ""),
                "SeverityText": record.get("severityText", ""),
            }
            rows.append(json.dumps(row).encode() + b"\n")
    handle.insert("INSERT INTO telemetry.otel_logs", "JSONEachRow", rows)


PATHS: tuple[Dress, ...] = (over_protobuf, over_json, through_the_collector)
NUMBERED: Event = {
    "name": "api_request", "time_ns": START, "event.timestamp": "2026-09-21T13:33:20.000Z", "event.sequence": 7,
    "prompt.id": "00000000-0000-4000-8000-0000000000aa", "request_id": "req_0123456789ab", "client_request_id": "c-1",
    "cost_usd": 0.1, "input_tokens": 5, "ok": True, "duration_ms": 1e-7,
}  # fmt: skip
UNNUMBERED = {
    key: value for key, value in NUMBERED.items() if key not in ("event.sequence", "request_id", "prompt.id", "client_request_id")
}


@pytest.mark.parametrize("event", [NUMBERED, UNNUMBERED], ids=["numbered", "with no number"])
def test_pitfall_a10_one_event_by_every_path_is_one_row(handle, pipeline, session, event):
    request = log_request([{**event, "session.id": session}], {"service.name": "claude-code"})
    for path in itertools.chain(PATHS, reversed(PATHS)):
        path(pipeline, handle, request)
    assert kept(handle, session) == 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("event", [NUMBERED, UNNUMBERED], ids=["numbered", "with no number"])
def test_the_same_values_in_other_types_and_another_order_are_the_same_event(handle, pipeline, session, event, path):
    event = {**event, "session.id": session}
    words = {key: json.dumps(value) if isinstance(value, bool | int) and key != "time_ns" else value for key, value in event.items()}
    floats = {key: float(value) if type(value) is int and key != "time_ns" else value for key, value in event.items()}
    for dressed in (event, dict(reversed(event.items())), words, floats):
        path(pipeline, handle, log_request([dressed]))
    assert kept(handle, session) == 1


def observed_later(request: dict[str, Any]) -> None:
    record(request)["observedTimeUnixNano"] = str(START + 5 * MS)


def named_by_event_name(request: dict[str, Any]) -> None:
    record(request)["eventName"] = record(request)["body"].pop("stringValue")


def named_by_body_alone(request: dict[str, Any]) -> None:
    record(request)["attributes"] = [pair for pair in record(request)["attributes"] if pair["key"] != "event.name"]


def with_a_trace(request: dict[str, Any]) -> None:
    record(request)["severityText"] = "INFO"


def with_more_of_the_machine(request: dict[str, Any]) -> None:
    """A collector's resource detection."""
    request["resourceLogs"][0]["resource"]["attributes"] += pairs({"host.arch": "arm64", "cloud.region": "x"})


def session_told_by_the_resource(request: dict[str, Any]) -> None:
    attributes = record(request)["attributes"]
    moved = [pair for pair in attributes if pair["key"] == "session.id"]
    record(request)["attributes"] = [pair for pair in attributes if pair["key"] != "session.id"]
    request["resourceLogs"][0]["resource"]["attributes"] += moved


def with_attributes_removed(request: dict[str, Any]) -> None:
    """A collector that applies the policy before us."""
    record(request)["attributes"] = [pair for pair in record(request)["attributes"] if pair["key"] not in ("cost_usd", "ok")]


def record(request: dict[str, Any]) -> dict[str, Any]:
    return request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]


CHANGES = (observed_later, named_by_event_name, named_by_body_alone, with_a_trace, with_more_of_the_machine,
           session_told_by_the_resource, with_attributes_removed)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("change", CHANGES)
def test_what_stands_between_may_change_a_numbered_event_and_it_is_still_the_same(handle, pipeline, session, change, path):
    over_protobuf(pipeline, handle, log_request([{**NUMBERED, "session.id": session}]))
    changed = log_request([{**NUMBERED, "session.id": session}])
    change(changed)
    path(pipeline, handle, changed)
    assert kept(handle, session) == 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("change", [observed_later, with_more_of_the_machine])
def test_what_stands_between_may_add_to_the_surroundings_of_an_event_with_no_number(handle, pipeline, session, change, path):
    over_protobuf(pipeline, handle, log_request([{**UNNUMBERED, "session.id": session}]))
    changed = log_request([{**UNNUMBERED, "session.id": session}])
    change(changed)
    path(pipeline, handle, changed)
    assert kept(handle, session) == 1


# ---- two events are two, though they have almost everything in common


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "link",
    [{"event.sequence": 8}, {"request_id": "req_0123456789ac"}, {"request_id": ""}, {"tool_use_id": "toolu_0123456789ab"},
     {"message.uuid": "00000000-0000-4000-8000-0000000000ac"}, {"prompt.id": "00000000-0000-4000-8000-0000000000ab"},
     {"client_request_id": "c-2"}, {"time_ns": START + 1}, {"time_ns": START + MS}, {"name": "api_error"}],
    ids=lambda link: next(iter(link)),
)  # fmt: skip
def test_each_link_of_the_chain_tells_two_numbered_events_apart(handle, pipeline, session, link, path):
    for event in (NUMBERED, NUMBERED | link):
        path(pipeline, handle, log_request([{**event, "session.id": session}]))
    assert kept(handle, session) == 2


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "told",
    [{"cost_usd": 0.2}, {"tool_name": "Bash"}, {"success": False}, {"prompt": "x"}, {"time_ns": START + 1}],
    ids=lambda told: next(iter(told)),
)
def test_what_it_says_tells_events_with_no_number_apart(handle, pipeline, session, told, path):
    for event in (UNNUMBERED, UNNUMBERED | told):
        path(pipeline, handle, log_request([{**event, "session.id": session}]))
    assert kept(handle, session) == 2


@pytest.mark.parametrize("path", [over_protobuf, over_json])
@pytest.mark.parametrize("part", ["traceId", "spanId", "severityNumber"])
def test_records_of_another_program_are_told_apart_by_each_of_their_parts_that_is_kept(handle, pipeline, session, part, path):
    for value in (9, 17) if part == "severityNumber" else ("AAAAAAAAAAAAAAAAAAAAAA==", "BBBBBBBBBBBBBBBBBBBBBA=="):
        request = log_request([{"name": "x", "time_ns": START, "session.id": session}])
        record(request)[part] = value
        path(pipeline, handle, request)
    assert kept(handle, session) == 2


# ---- the clients' known flaws


@pytest.mark.parametrize("path", PATHS)
def test_pitfall_15_many_events_of_one_moment_all_stay(handle, pipeline, session, path):
    events = [NUMBERED | {"session.id": session, "event.sequence": number} for number in range(50)]
    for _ in range(2):
        path(pipeline, handle, log_request(events))
    assert kept(handle, session) == 50


def test_pitfall_16_time_outs_have_no_request_id_and_are_told_apart_by_their_numbers(handle, pipeline, session):
    bare = {key: value for key, value in NUMBERED.items() if key not in ("request_id", "client_request_id")}
    events = [
        bare | {"name": "api_error", "session.id": session, "event.sequence": number, "error": "Request timed out."} for number in (3, 4)
    ]
    for _ in range(2):
        over_json(pipeline, handle, log_request(events))
    assert kept(handle, session) == 2


def test_a_resumed_session_counts_from_0_again_and_both_processes_stay(handle, pipeline, session):
    bare = {"name": "hook_registered", "session.id": session, "hook_event": "Stop"}
    processes = [[bare | {"event.sequence": n, "time_ns": START + (n + later) * MS} for n in range(5)] for later in (0, 3)]
    for process in (*processes, *processes):
        over_protobuf(pipeline, handle, log_request(process))
    assert kept(handle, session) == 10


def test_two_processes_of_one_session_at_the_same_millisecond_with_the_same_numbers(handle, pipeline, session):
    """Resumed in two terminals: what a prompt caused carries the prompt's own id, with or without a request's."""
    for prompt in ("00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"):
        events = [{"name": name, "session.id": session, "prompt.id": prompt, "event.sequence": 9, "time_ns": START}
                  for name in ("user_prompt", "api_error", "hook_execution_start")]  # fmt: skip
        for _ in range(2):
            over_protobuf(pipeline, handle, log_request(events))
    assert kept(handle, session) == 6


# ---- events with no time of their own


def without_time(session: str, **more: Any) -> dict[str, Any]:
    event = {"name": "api_request", "session.id": session, **more}
    request = log_request([event | {"time_ns": 0}])
    del record(request)["timeUnixNano"]
    return request


@pytest.mark.parametrize("path", PATHS)
def test_without_a_time_the_observed_one_counts(handle, pipeline, session, path):
    request = without_time(session, **{"event.sequence": 1})
    record(request)["observedTimeUnixNano"] = str(START)
    path(pipeline, handle, request)
    over_json(pipeline, handle, request)
    assert kept(handle, session) == 1


@pytest.mark.parametrize("time_ns", [0, 1, 5 * 10**9, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("path", [over_protobuf, over_json])
def test_without_a_time_that_can_be_the_clients_own_words_count(handle, pipeline, session, path, time_ns):
    """Claude Code says its time twice: event.timestamp is the same moment."""
    event = {"name": "api_request", "session.id": session, "event.sequence": 1, "event.timestamp": "2026-09-21T13:33:20.123Z"}
    for _ in range(2):
        path(pipeline, handle, log_request([event | {"time_ns": time_ns}]))
        time.sleep(0.01)
    assert kept(handle, session) == 1
    found = handle.query(f"SELECT timestamp FROM telemetry.telemetry_events WHERE session_id = '{session}' LIMIT 1").decode().strip()
    assert found == "2026-09-21 13:33:20.123000000"


@pytest.mark.parametrize("time_ns", [0, 5 * 10**9])
@pytest.mark.parametrize("path", [over_protobuf, over_json])
def test_with_no_time_at_all_a_copy_within_the_hour_is_a_copy(handle, pipeline, session, path, time_ns):
    """Nothing else can be known of such an event; senders repeat within minutes."""
    if time.time() % 3600 > 3590:
        time.sleep(11)
    for number in (1, 2):
        for _ in range(2):
            path(
                pipeline,
                handle,
                log_request([{"name": "api_request", "session.id": session, "event.sequence": number, "time_ns": time_ns}]),
            )
            time.sleep(0.01)
    assert kept(handle, session) == 2


# ---- deduplication reads what a report reads, and nothing more


def test_a_report_of_a_day_reads_that_day_only_with_all_copies_left_out(handle, pipeline):
    """Twelve weeks of events, each twice and in parts of their own."""
    day_ns = 86400 * 10**9
    for _ in range(2):
        for week in range(12):
            event = NUMBERED | {"session.id": str(UUID(int=10**9 + week))}
            at = START - week * 7 * day_ns
            over_protobuf(pipeline, handle, log_request([event | {"time_ns": at + n * MS, "event.sequence": n} for n in range(20)]))
    since, until = START - 35 * day_ns, START - 34 * day_ns
    asked = (
        "SELECT count() FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request'"
        f" AND timestamp >= fromUnixTimestamp64Nano({since}) AND timestamp < fromUnixTimestamp64Nano({until})"
    )
    assert int(handle.query(asked)) == 20
    plan = json.loads(handle.query(f"EXPLAIN indexes = 1, json = 1 {asked}", "LineAsString"))
    [indexes] = [node["Indexes"] for node in nodes(plan[0]["Plan"]) if "Indexes" in node]
    of = {index["Type"]: index for index in indexes}
    assert indexes[0]["Initial Parts"] >= 12 and of["PrimaryKey"]["Selected Parts"] <= 2
    assert of["PrimaryKey"]["Keys"][0] == "event_type"


def test_storing_looks_nothing_up_among_what_is_stored(handle, pipeline, session):
    """A copy costs what a new event costs: no statement of an insert reads telemetry_events."""
    for statements in pipeline._derive.values():
        for _, statement in statements:
            assert "FROM telemetry.telemetry_events" not in statement and "JOIN telemetry.telemetry_events" not in statement


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


# ---- what can never be stored, and what only can't be now


def test_a_length_that_no_memory_could_hold_is_the_requests_own_fault(pipeline):
    huge = b"\x0a\x0b\x0a\x09\x0a\x07\x0a" + b"\xff\xff\xff\xff\x7f" + b"x"
    [answer] = commit(pipeline, PROTOBUF, [huge])
    assert isinstance(answer, Rejected)


@pytest.mark.parametrize("code", [241, 173, 243, 74, 75, 107, 252, 439, 573, 999, 1001, 1002])
def test_the_machines_errors_never_reject_a_request(code):
    from sp_telemetry.errors import QueryFailed

    class Failing:
        def store(self, lane: Lane, bodies: list[bytes], by_statements: bool = False, journal: object = None) -> int:
            raise QueryFailed(f"Code: {code}. DB::Exception: Cannot: , errno: 5", code=code)

        decodable = decode = store

    assert all(isinstance(answer, Unavailable) for answer in commit(Failing(), PROTOBUF, [b"a", b"b", b"c"]))


def test_a_retention_beyond_what_a_ttl_can_say_is_for_ever(handle, pipeline, session):
    """The engine's DateTime ends in 2106. A TTL beyond it would begin in 1970 again: all would have expired."""
    try:
        for days in (36_500, 10_001, 50_000, 10**9, -1):
            maintenance.apply_retention(handle, {"retention_events_days": days, "retention_sessions_days": days})
            over_json(pipeline, handle, log_request([NUMBERED | {"session.id": session, "time_ns": time.time_ns()}]))
            engine = handle.query("SELECT engine_full FROM system.tables WHERE name = 'telemetry_events'").decode()
            assert " TTL " not in engine
        assert kept(handle, session) == 5
        maintenance.apply_retention(handle, {"retention_events_days": 10_000, "retention_sessions_days": 10_000})
        handle.run("ALTER TABLE telemetry.telemetry_events MATERIALIZE TTL SETTINGS mutations_sync = 2")
        assert kept(handle, session) == 5
    finally:
        maintenance.apply_retention(handle, {"retention_events_days": 0, "retention_sessions_days": 0})

"""Events by the standing query are those by statements, each message's rows are its own, and nothing that is sent holds it up for long."""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_telemetry.errors import QueryFailed
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve.commit import Rejected, commit
from sp_telemetry.store import framing, pipeline, privacy, schema, standing_query
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import STANDING, Pipeline
from tests.recordings.reading import recordings
from tests.server import as_protobuf, log_request

pytestmark = pytest.mark.skipif(not standing_query.AVAILABLE, reason="pipes have a size that can be set on Linux only")
START = 1_790_000_000 * 10**9
RECORD = b"\x12\x02\x12\x00"  # what a resource holds of it: a scope with a record, with nothing in either
ALL = "SELECT * EXCEPT (received_at, version, context_at) FROM telemetry.telemetry_events FINAL ORDER BY ALL"


@pytest.fixture
def storing(handle: Handle, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline whose statements are told from its standing query by `decoded`."""
    made = Pipeline(handle)
    made.decoded = []
    decode = made.decode
    monkeypatch.setattr(made, "decode", lambda lane, bodies: made.decoded.append(len(bodies)) or decode(lane, bodies))
    return made


def request(session: int, *sequences: int, **told: Any) -> bytes:
    common = {"name": "api_request", "session.id": str(UUID(int=session)), "cost_usd": 0.5}
    return as_protobuf(log_request([common | {"time_ns": START + n, "event.sequence": n} | told for n in sequences]))


def stored(handle: Handle, session: int) -> list[int]:
    asked = f"SELECT event_sequence FROM telemetry.telemetry_events FINAL WHERE session_id = '{UUID(int=session)}' ORDER BY 1"
    return [int(line) for line in handle.query(asked).split()]


@pytest.mark.parametrize("level", ["strict", "standard", "full"])
def test_the_recordings_are_the_same_rows_as_by_statements(handle: Handle, level: str, monkeypatch: pytest.MonkeyPatch):
    privacy.enforce(handle, Policy(level))
    bodies = [body for recording in recordings() for about, body in recording.requests("logs") if about["file"].endswith(".pb")]
    bodies = [body for body in bodies if pipeline.CONTEXT_MARK not in body]
    assert len(bodies) > 50
    by_query = Pipeline(handle)
    events = sum(by_query.store(STANDING, bodies[at : at + 7]) for at in range(0, len(bodies), 7))
    rows = handle.query(ALL, "JSONEachRow")
    assert by_query._standing is not None
    handle.run("TRUNCATE TABLE telemetry.telemetry_events")
    monkeypatch.setattr(pipeline, "AVAILABLE", False)
    assert Pipeline(handle).store(STANDING, bodies) == events
    assert handle.query(ALL, "JSONEachRow") == rows != b""


def test_each_answer_is_of_its_message_whatever_their_sizes(handle: Handle, storing: Pipeline):
    """Also of many messages a batch, and of one with more records than a block of the engine's usually has."""
    for session, size in enumerate((1, 400, 3, 2500, 1, 40), 1):
        batch = [request(session, *range(at, min(at + 300, size))) for at in range(0, size, 300)]
        assert storing.store(STANDING, batch) == size
        assert stored(handle, session) == list(range(size))
    records = b"".join(b"\x12\x09\x09" + struct.pack("<Q", START + n) for n in range(80_000))  # each a time and nothing else
    scope = b"\x12" + framing.varint(len(records)) + records
    assert storing.store(STANDING, [b"\x0a" + framing.varint(len(scope)) + scope]) == 80_000
    storing.store(STANDING, [request(99, 1)])
    assert stored(handle, 99) == [1]
    assert storing.decoded == []


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch):
    """A query that is given up is answered by statements, which a busy machine would do too."""
    monkeypatch.setattr(standing_query, "LONG_S", 30)


def test_a_request_of_any_length_is_stored(handle: Handle, storing: Pipeline, patient: None):
    assert storing.store(STANDING, [request(1, 1), request(2, 1, prompt="x" * standing_query.LONGEST), request(3, 1)]) == 3
    assert stored(handle, 1) == stored(handle, 2) == stored(handle, 3) == [1]
    assert storing.decoded == [3], "by statements"
    assert storing.store(STANDING, [request(4, 1, prompt="x" * (standing_query.LONGEST - 1000)), request(5, 1)]) == 2
    assert stored(handle, 4) == stored(handle, 5) == [1]
    assert storing.decoded == [3], "longer than a pipe, and by the query"


@pytest.fixture
def many_files() -> Iterator[None]:
    """As where many connections are open: what is opened from now on has a number beyond those that select() takes."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limits[1] < 2000:
        pytest.skip("a process may not have so many files here")
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        for _ in range(1100):
            stack.callback(os.close, os.dup(null))
        yield


def test_a_long_request_is_stored_however_many_files_are_open(handle: Handle, storing: Pipeline, patient: None, many_files: None):
    assert storing.store(STANDING, [request(1, 1, prompt="x" * (standing_query.LONGEST - 1000))]) == 1
    assert stored(handle, 1) == [1] and not storing.decoded, "by the query"
    storing.close()


@pytest.mark.parametrize(
    "broken",
    [
        b"\x0a\x0a\x12\x08\x12\x06\x32\xff\xff\xff\x7f\x00",  # a record of 256 MB, in a message that is whole at the top
        b"\x0a\x06\x12\x04\x12\x02\x32\x30",
        request(4, 1)[:-3],
    ],
)
def test_a_promise_of_more_than_there_is_is_rejected_soon_and_costs_nobody_else(handle: Handle, storing: Pipeline, broken: bytes):
    begun = time.monotonic()
    answers = commit(storing, STANDING, [request(1, 1), broken, request(2, 1)])
    assert time.monotonic() - begun < 10 * standing_query.LONG_S
    assert storing.decoded[:3] == [3, 1, 2], "once by the query, then by statements, in halves"
    assert isinstance(answers[1], Rejected)
    assert stored(handle, 1) == stored(handle, 2) == [1]
    assert storing.store(STANDING, [request(3, 1)]) == 1
    assert stored(handle, 3) == [1]


@pytest.mark.parametrize("resource", [b"", b"\x0a\x00", b"\x12\x00", b"\x12\x02\x0a\x00", b"\x12\x00" * 2000])
def test_requests_without_a_record_are_not_waited_for(handle: Handle, storing: Pipeline, patient: None, resource: bytes):
    """The query would answer them with nothing, for which one would wait until it is given up."""
    storing.store(STANDING, [request(1, 1)])
    standing = storing._standing
    none = b"\x0a" + framing.varint(len(resource)) + resource
    begun = time.monotonic()
    assert commit(storing, STANDING, [none, none * 2]) == [0, 0]
    assert time.monotonic() - begun < standing_query.LONG_S / 2
    assert storing.decoded == [2]
    assert commit(storing, STANDING, [none, request(2, 1), none, request(3, 1)]) == [2, 0, 0, 0]
    assert stored(handle, 2) == stored(handle, 3) == [1]
    assert storing.decoded == [2] and storing._standing is standing, "by the query, which goes on"
    assert int(handle.query("SELECT count() FROM telemetry.telemetry_events")) == 3


def test_a_record_that_is_not_soon_found_is_stored_all_the_same(handle: Handle, storing: Pipeline):
    assert storing.store(STANDING, [b"\x0a\x00" * framing.MOST_LOOKS + request(1, 1)]) == 1
    assert stored(handle, 1) == [1] and storing.decoded == [1], "by statements"


def test_a_machine_that_is_slower_than_was_thought_loses_nothing(handle: Handle, storing: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(standing_query, "LONG_S", 0.001)
    for session in range(1, 6):
        batch = [request(session, *range(at, at + 500)) for at in range(0, 4000, 500)]
        assert storing.store(STANDING, batch) == 4000
        assert stored(handle, session) == list(range(4000))


def test_what_is_defined_anew_holds_for_the_next_request(handle: Handle, storing: Pipeline):
    def kept(session: int) -> str:
        storing.store(STANDING, [request(session, 1, query_source="typed by somebody")])
        asked = f"SELECT query_source FROM telemetry.telemetry_events WHERE session_id = '{UUID(int=session)}'"
        return handle.query(asked).decode().strip()

    assert kept(1).startswith("other-")
    first = storing._standing
    with handle.engine.handle() as another:
        privacy.enforce(another, Policy("standard"))
    assert kept(2) == "typed by somebody"
    assert storing._standing is not first
    assert kept(3) == "typed by somebody"


def test_it_ends_with_its_pipeline_or_with_the_engine(tmp_path):
    engine = Engine(tmp_path)
    handle = engine.handle()
    schema.migrate(handle)
    one, other = Pipeline(handle), Pipeline(engine.handle())
    for each in (one, other):
        each.store(STANDING, [request(1, 1)])
    running = "SELECT count() FROM system.processes WHERE query LIKE '%/proc/self/fd/%' AND query NOT LIKE '%system.processes%'"
    assert int(handle.query(running)) == 2
    one.close()
    assert int(handle.query(running)) == 1
    engine.close()


@given(st.lists(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=3), max_size=3), st.binary(max_size=9))
def test_a_record_is_found_wherever_it_is(resources: list[list[tuple[bool, int]]], rest: bytes):
    """Of each resource its scopes, of each scope whether it has a name and how many records."""
    records = [{"body": {"stringValue": "\x12\x02"}, "severityNumber": 9, "flags": 1, "traceId": "AAECAw=="}]
    told = {
        "resourceLogs": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "\x12\x02\x12"}}]},
                "schemaUrl": "https://example.com",
                "scopeLogs": [{"logRecords": records * many} | ({"scope": {"name": "one"}} if named else {}) for named, many in scopes],
            }
            for scopes in resources
        ]
    }
    body = as_protobuf(told)
    assert framing.holds_a_record(body) is any(many for scopes in resources for _, many in scopes)
    framing.holds_a_record(rest), framing.holds_a_record(body + rest), framing.holds_a_record(body[: -len(rest)])  # raises nothing


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(20, 400))
def test_messages_put_together_hold_the_same_fields(inner: list[bytes], longest: int):
    inner = [RECORD + each for each in inner]
    bodies = [b"".join(b"\x0a" + framing.varint(len(one)) + one for one in (each, each[:9])) for each in inner]
    try:
        messages = list(framing.together(bodies, longest))
    except QueryFailed:
        assert any(len(body) > longest - framing.LENGTH_BYTES for body in bodies)
        return
    assert all(len(message) <= longest for message in messages)
    fields = []
    for message in messages:
        length, at = framing.varint_at(message, 0)
        assert at + length == len(message) and framing.is_whole(message[at:])
        while at < len(message):
            size, start = framing.varint_at(message, at + 1)
            fields.append(message[start : start + size])
            at = start + size
    assert fields == [part for each in inner for part in (each, each[:9])]


@given(st.binary(max_size=200), st.data())
def test_a_message_that_was_cut_or_is_something_else_is_not_whole(inner: bytes, data: st.DataObject):
    body = b"\x0a" + framing.varint(len(inner)) + inner
    cut = data.draw(st.integers(1, len(body) - 1))
    assert framing.is_whole(body) and framing.is_whole(b"") and framing.is_whole(body * 3)
    assert not framing.is_whole(body[:cut]) or inner.startswith(b"\x0a")
    assert not framing.is_whole(b"\x12" + body[1:])
    assert not framing.is_whole(body + b"\x0a\xff\xff\xff\xff\xff\xff")

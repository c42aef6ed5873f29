"""Derived tables and attribution on the real engine: always what the events say, whatever came twice, late or in another order."""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, as_protobuf, context, log_request, server, wait_for

SECOND = 10**9
START = 1_790_000_000 * SECOND  # a whole second in 2026
PROTOBUF, JSON = Lane("logs", "protobuf"), Lane("logs", "json")
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    engine = Engine(tmp_path_factory.mktemp("maintained"))
    with engine.handle() as opened:
        schema.migrate(opened)
        maintenance.apply_retention(opened, {"retention_events_days": 0, "retention_sessions_days": 0})
        yield opened
    engine.close()


@pytest.fixture(scope="module")
def pipeline(handle: Handle) -> Pipeline:
    return Pipeline(handle)


def rows(handle: Handle, sql: str) -> list[list[Any]]:
    return [json.loads(line) for line in handle.query(sql, "JSONCompactEachRow").decode().splitlines()]


def session() -> str:
    return str(UUID(int=next(numbers)))


def store(pipeline: Pipeline, *events: dict[str, Any], lane: Lane = JSON) -> None:
    request = log_request(list(events))
    pipeline.store(lane, [as_json(request) if lane == JSON else as_protobuf(request)])


def spent(handle: Handle, of: str, by: str = "feature") -> dict[str, float]:
    found = rows(handle, f"SELECT {by}, sum(cost_usd) FROM telemetry.telemetry_events FINAL WHERE session_id = '{of}' GROUP BY 1")
    return dict(map(tuple, found))


def request(of: str, at: int, number: int, cost: float = 1.0) -> dict[str, Any]:
    return {"name": "api_request", "time_ns": at, "session.id": of, "event.sequence": number, "cost_usd": cost, "input_tokens": 3}


def test_pitfall_27_a_context_that_comes_late_is_honoured_from_its_moment_on(handle, pipeline):
    of = session()
    store(pipeline, context(of, START, feature="017-a"), *(request(of, START + second * SECOND, second) for second in range(5)))
    assert spent(handle, of) == {"017-a": 5}
    since = time.time() - 1
    store(pipeline, context(of, START + 2 * SECOND, feature="018-b"))
    maintenance.reattribute(handle, since)
    assert spent(handle, of) == {"017-a": 2, "018-b": 3}
    store(pipeline, context(of, START + 4 * SECOND, feature=""))
    maintenance.reattribute(handle, since)
    assert spent(handle, of) == {"017-a": 2, "018-b": 2, "": 1}


def test_a_context_holds_from_its_very_moment(handle, pipeline):
    of = session()
    events = [request(of, START - 1, 0, 1), request(of, START, 1, 2), request(of, START + 1, 2, 4)]
    store(pipeline, context(of, START, feature="017-a"), *events)
    assert spent(handle, of) == {"": 1, "017-a": 6}


def test_a_context_of_one_session_says_nothing_about_another(handle, pipeline):
    one, other = session(), session()
    store(pipeline, context(one, START, feature="017-a", person="ada"), request(one, START + 1, 0), request(other, START + 1, 0))
    maintenance.reattribute(handle, 0)
    assert (spent(handle, one), spent(handle, other)) == ({"017-a": 1}, {"": 1})


def test_an_event_that_comes_again_after_late_context_keeps_its_attribution(handle, pipeline):
    of = session()
    store(pipeline, request(of, START, 0))
    store(pipeline, context(of, START, feature="017-a"))
    maintenance.reattribute(handle, time.time() - 5)
    store(pipeline, request(of, START, 0))
    assert spent(handle, of) == {"017-a": 1}
    handle.run("OPTIMIZE TABLE telemetry.telemetry_events FINAL")
    assert spent(handle, of) == {"017-a": 1}


@pytest.mark.parametrize("name", ["project", "branch", "feature", "chapter", "part", "step"])
def test_a_context_that_is_told_anew_for_the_same_moment_is_honoured_in_each_of_its_parts(handle, pipeline, name):
    of = session()
    store(pipeline, context(of, START, **{name: "first"}), {**request(of, START + 1, 0), "user.id": "random"})
    store(pipeline, context(of, START, **{name: "second"}))
    maintenance.reattribute(handle, time.time() - 5)
    column = {"chapter": "chapter_context", "step": "workflow_step"}.get(name, name)
    assert spent(handle, of, column) == {"second": 1}


def test_context_that_came_just_before_a_long_absence_is_honoured_at_the_next_start(handle, pipeline):
    """The server was killed before it could; it is started again a month later."""
    of = session()
    store(pipeline, request(of, START, 0))
    handle.run("TRUNCATE TABLE telemetry.session_context")
    maintenance.reattribute_newest(handle, 60)
    told = f"('{of}', fromUnixTimestamp64Nano({START}), now64(9) - INTERVAL 30 DAY, '017-a')"
    handle.run(f"INSERT INTO telemetry.session_context (session_id, at, received_at, feature) VALUES {told}")
    maintenance.reattribute_newest(handle, 60)
    assert spent(handle, of) == {"017-a": 1}


def test_a_server_honours_late_context_in_a_session_of_more_weeks_than_the_engine_inserts_by_itself(tmp_path: Path):
    """A week is a partition, and its limit is a hundred of them. What fails there is tried again for ever, and all else waits for it."""
    of, weeks = session(), 130
    events = [request(of, START - number * 7 * 86400 * SECOND, number) for number in range(weeks)]
    with server(tmp_path / "home") as running:
        running.stored("logs", as_protobuf(log_request(events)))
        assert running.query("SELECT count() FROM telemetry.telemetry_events") == [[weeks]]
        running.stored("logs", as_protobuf(log_request([context(of, START - weeks * 7 * 86400 * SECOND, feature="001-a")])))
        late = "SELECT count() FROM telemetry.telemetry_events FINAL WHERE feature != '001-a'"
        assert wait_for(lambda: running.query(late) == [[0]], 30, 0.5)
        assert "Attribution and summaries wait" not in (running.home.logs / "server.log").read_text()


def test_late_context_says_who_it_was_where_nobody_had_said_so(handle, pipeline):
    of = session()
    store(pipeline, {**request(of, START, 0), "user.id": "random"}, {**request(of, START, 1), "user.id": "random", "enduser.id": "grace"})
    store(pipeline, context(of, START, person="ada"))
    maintenance.reattribute(handle, time.time() - 5)
    assert spent(handle, of, "user_id") == {"ada": 1, "grace": 1}


def test_reattribution_with_nothing_to_do_writes_nothing(handle, pipeline):
    of = session()
    store(pipeline, context(of, START, feature="017-a"), request(of, START, 0))
    maintenance.reattribute(handle, 0)
    [[before]] = rows(handle, "SELECT count() FROM telemetry.telemetry_events")
    maintenance.reattribute(handle, 0)
    assert rows(handle, "SELECT count() FROM telemetry.telemetry_events") == [[before]]


# ---- any history, against a simple model

FEATURES = ("", "017-a", "018-b")
moments = st.integers(0, 3 * 3600)  # over hour boundaries
calls = st.tuples(st.just("api_request"), moments, st.integers(0, 400))
others = st.tuples(st.sampled_from(["user_prompt", "api_error", "tool_result"]), moments, st.just(0))
switches = st.tuples(st.just("context"), moments, st.sampled_from([(f, c) for f in FEATURES for c in ("", "33-x")]))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[list[tuple]], list[int]]:
    """What happened in each of some sessions, and the order in which it arrives: everything at least once, some of it again."""
    happened = draw(st.lists(st.lists(calls | others | switches, min_size=1, max_size=8), min_size=1, max_size=3))
    places = [(number, place) for number, events in enumerate(happened) for place in range(len(events))]
    again = draw(st.lists(st.sampled_from(places), max_size=5))
    order = draw(st.permutations(places + again))
    cuts = draw(st.lists(st.integers(1, len(order)), max_size=4, unique=True))
    bounds = [0, *sorted(cuts), len(order)]
    return happened, [order[start:end] for start, end in itertools.pairwise(bounds) if start < end]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=histories(), protobuf=st.booleans(), merge=st.booleans())
def test_any_history_ends_in_what_a_simple_model_says(handle, pipeline, history, protobuf, merge):
    happened, batches = history
    names = [session() for _ in happened]
    begun = time.time() - 1

    def event(number: int, place: int) -> dict[str, Any]:
        kind, second, told = happened[number][place]
        at = START + second * SECOND
        if kind == "context":
            # two contexts of one moment: hooks give each record its own nanosecond
            return context(names[number], at + place, feature=told[0], chapter=told[1])
        same = {"name": kind, "time_ns": at, "session.id": names[number], "event.sequence": place}
        return same | ({"cost_usd": told / 1000, "input_tokens": told, "output_tokens": 2, "model": "m"} if kind == "api_request" else {})

    for index, batch in enumerate(batches):
        store(pipeline, *(event(*place) for place in batch), lane=PROTOBUF if protobuf and index % 2 else JSON)
        if index % 2:
            maintenance.reattribute(handle, begun)
            maintenance.summarise(handle)
    maintenance.reattribute(handle, begun)
    maintenance.summarise(handle)
    if merge:
        handle.run("OPTIMIZE TABLE telemetry.telemetry_events FINAL")

    sums: dict[tuple, list[float]] = defaultdict(lambda: [0, 0.0, 0])
    counts: dict[tuple, int] = defaultdict(int)
    for number, events in enumerate(happened):
        told = sorted((START + second * SECOND + place, what) for place, (kind, second, what) in enumerate(events) if kind == "context")
        for kind, second, cost in events:
            if kind == "context":
                continue
            counts[names[number], kind] += 1
            if kind == "api_request":
                feature, chapter = ([what for at, what in told if at <= START + second * SECOND] or [("", "")])[-1]
                held = sums[names[number], feature, chapter]
                held[0] += 1
                held[1] += cost / 1000
                held[2] += cost
    chosen = tuple([*names, ""])
    found = rows(
        handle,
        "SELECT session_id, feature, chapter_context, count(), sum(cost_usd), sum(input_tokens) FROM telemetry.telemetry_events FINAL"
        f" WHERE event_type = 'api_request' AND session_id IN {chosen} GROUP BY 1, 2, 3",
    )
    assert {tuple(row[:3]): row[3:] for row in found} == {key: pytest.approx(value, abs=1e-9) for key, value in sums.items()}
    kinds = f"SELECT session_id, event_type, count() FROM telemetry.telemetry_events FINAL WHERE session_id IN {chosen} GROUP BY 1, 2"
    found = rows(handle, kinds)
    assert {(row[0], row[1]): row[2] for row in found} == dict(counts)
    assert_derived_tables_equal_the_events(handle)


def assert_derived_tables_equal_the_events(handle: Handle) -> None:
    calls = "event_type = 'api_request'"
    measures = f"""countIf({calls}), countIf(event_type = 'user_prompt'), countIf(event_type = 'api_error'),
        countIf(event_type = 'tool_result'), round(sumIf(cost_usd, {calls}), 9), sumIf(input_tokens, {calls})"""
    kept = "requests, prompts, api_errors, tool_calls, round(cost_usd, 9), input_tokens"
    by_session = f"SELECT session_id, {measures}, count() FROM telemetry.telemetry_events FINAL GROUP BY 1 ORDER BY 1"
    assert rows(handle, f"SELECT session_id, {kept}, events FROM telemetry.session_summaries FINAL ORDER BY 1") == rows(handle, by_session)
    # the hours of START alone: of others, tests above deleted the events
    hours = "hour BETWEEN '2026-09-21 00:00:00' AND '2026-09-22 00:00:00'"
    names = "user_id, project, branch, feature, chapter_context, workflow_step, model"
    by_hour = f"SELECT toStartOfHour(timestamp) AS hour, {names}, {measures} FROM telemetry.telemetry_events FINAL WHERE {hours}"
    wanted = rows(handle, f"{by_hour} GROUP BY ALL ORDER BY ALL")
    assert wanted and rows(handle, f"SELECT hour, {names}, {kept} FROM telemetry.usage_hourly FINAL WHERE {hours} ORDER BY ALL") == wanted


def test_parts_that_wait_to_be_rewritten_are_without_a_pause(tmp_path: Path) -> None:
    """The engine looks for work each ten seconds only (QUIET). By its defaults four parts may wait at once, so these took 100 seconds."""
    weeks, week = 40, 7 * 86400 * SECOND
    events = [{"name": "api_request", "session.id": "a", "event.sequence": n, "time_ns": START - n // 2 * week} for n in range(2 * weeks)]
    with server(tmp_path / "home") as running:
        running.stored("logs", as_protobuf(log_request(events)))
        [[before]] = running.query("SELECT count() FROM system.parts WHERE table = 'telemetry_events' AND active")
        begun = time.monotonic()
        running.run("ALTER TABLE telemetry.telemetry_events DELETE WHERE event_sequence % 2 = 1 SETTINGS mutations_sync = 2")
        assert before >= weeks and time.monotonic() - begun < 10
        assert running.query("SELECT count(), sum(event_sequence % 2) FROM telemetry.telemetry_events") == [[weeks, 0]]

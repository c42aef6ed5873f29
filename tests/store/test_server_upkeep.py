"""Upkeep as a server does it, by views that refresh themselves (telemetry-server/clickhouse/server/): held against the same models, by the
same histories, as the embedded server's. Events come as they do there: through the materialized views of the landing tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from sp_telemetry.store import maintenance, prices, schema, server
from sp_telemetry.store.engine import Engine, Handle
from tests.server import as_json, context, log_request
from tests.store import test_backfill_histories as filled
from tests.store.histories import OnHandle, whole_histories
from tests.store.test_maintenance import START, request

BACKFILL = ("upkeep_backfill", "upkeep_backfill_hourly", "upkeep_backfill_alike")
SUMMARIES = ("upkeep_sessions_emptied", "upkeep_sessions", "upkeep_usage")


class Refreshing:
    """A handle of a store with upkeep's views, and what the embedded server would do, done by them. Stands in for its `Pipeline`."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    def refresh(self, *views: str) -> None:
        for view in views:
            for _ in range(2):  # one that had begun before may not have seen what was written last
                self.handle.run(f"SYSTEM REFRESH VIEW telemetry.{view}")
                self.handle.run(f"SYSTEM WAIT VIEW telemetry.{view}")

    def arrive(self, events: list[dict[str, Any]]) -> None:
        self.handle.insert("INSERT INTO telemetry.otlp_logs_json", "JSONEachRow", [as_json(log_request(events))])

    def store(self, _: Any, requests: list[bytes]) -> None:
        """As `Pipeline.store`: what was filled in is taken back before it is over."""
        self.handle.insert("INSERT INTO telemetry.otlp_logs_json", "JSONEachRow", requests)
        self.refresh(*BACKFILL)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refreshing]:
    engine = Engine(tmp_path_factory.mktemp("server"))
    with engine.handle() as handle:
        schema.migrate(handle)
        prices.load(handle)
        maintenance.apply_retention(handle, {"retention_events_days": 0, "retention_sessions_days": 0})
        assert server.make_upkeep(handle)
        assert not server.make_upkeep(handle), "made again with nothing changed"
        yield Refreshing(handle)
        failed = handle.query("SELECT view, exception FROM system.view_refreshes WHERE exception != ''").decode()
        assert failed == ""
    engine.close()


class OnServer(OnHandle):
    """A history with the views in place of the embedded server's upkeep."""

    def __init__(self, store: Refreshing) -> None:
        super().__init__(store.handle)
        self.store = store

    def send(self, path: int, events: list[dict[str, Any]]) -> None:
        self.store.arrive(events)

    def bring_up_to_date(self) -> None:
        self.store.refresh("upkeep_contexts", *SUMMARIES[1:])


def test_any_history_ends_in_what_a_simple_model_says(store):
    run_state_machine_as_test(lambda: OnServer(store), settings=whole_histories(6, 15))


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.lists(filled.requests, min_size=1, max_size=8), steps=filled.steps, asked=st.sampled_from(filled.GROUPINGS))
def test_any_history_counts_each_request_once(store, monkeypatch, world, steps, asked):
    monkeypatch.setattr(maintenance, "summarise", lambda *_: store.refresh(*SUMMARIES))
    filled.history((store.handle, store), world, steps, *asked)


def test_of_several_with_one_id_each_event_takes_one_row(store):
    filled.several_with_one_id((store.handle, store))


def test_a_context_that_no_view_saw_in_time_is_honoured_within_the_hour(store):
    """After a pause of the server, or an insert that took long: `upkeep_contexts` looks at the last minutes only."""
    of = "00000000-0000-4000-8000-0000000000aa"
    store.arrive([request(of, START + second, second) for second in range(3)])
    store.handle.run("SYSTEM STOP VIEW telemetry.upkeep_contexts")  # it looks by itself, too
    store.arrive([context(of, START, feature="017-a")])
    store.handle.run(
        "INSERT INTO telemetry.session_context SELECT * REPLACE (received_at - toIntervalHour(2) AS received_at)"
        f" FROM telemetry.session_context FINAL WHERE session_id = '{of}'"
    )
    store.handle.run(f"DELETE FROM telemetry.session_context WHERE session_id = '{of}' AND received_at > now() - toIntervalHour(1)")
    store.handle.run("SYSTEM START VIEW telemetry.upkeep_contexts")
    feature = f"SELECT DISTINCT feature FROM telemetry.telemetry_events FINAL WHERE session_id = '{of}'"
    store.refresh("upkeep_contexts")
    assert store.handle.query(feature).decode() == "\n"
    store.refresh("upkeep_contexts_hourly")
    assert store.handle.query(feature).decode() == "017-a\n"


def test_the_views_refresh_by_themselves(store):
    of = "00000000-0000-4000-8000-0000000000bb"
    store.arrive([context(of, START, feature="018-b")])
    store.arrive([request(of, START + 1, 0, cost=0.5)])
    found, deadline = b"", time.monotonic() + 60  # every 30 s; the test is about that it happens
    while not found and time.monotonic() < deadline:
        time.sleep(0.5)
        found = store.handle.query(f"SELECT features, cost_usd FROM telemetry.session_summaries FINAL WHERE session_id = '{of}'")
    assert found == b"['018-b']\t0.5\n"


def test_a_migration_that_ended_between_its_views_and_those_of_upkeep_is_mended_by_the_next_one(store):
    """For own prices that can't be read, say: making views anew takes those of upkeep too, whose text is the same."""
    schema.record(store.handle, "views", "of an older version")
    assert schema.migrate(store.handle) == ["views"]
    assert server.make_upkeep(store.handle), "nothing makes summaries"
    assert not server.make_upkeep(store.handle)
    store.refresh("upkeep_contexts", *BACKFILL, *SUMMARIES)

"""How long events are kept, on the real engine: what goes, what stays, and that sums of what went are not made anew from the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sp_telemetry.store import backfill, maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from tests.server import as_json, log_request, server, wait_for
from tests.store.audited import DAY, NOW, called, made, of, reported
from tests.store.audited import store as send
from tests.transcripts import identifier

__all__ = ["of"]  # a fixture
WHOLE_S = 6 * 3600  # as in clickhouse/views/05_ranges.sql
SESSION = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One for all of these tests, for a process may have only one."""
    made = Engine(tmp_path_factory.mktemp("kept"))
    yield made
    made.close()


@pytest.fixture
def kept(engine: Engine) -> Iterator[Handle]:
    """A store in which nothing is."""
    with engine.handle() as handle:
        handle.run("DROP DATABASE IF EXISTS telemetry SYNC")
        schema.migrate(handle)
        yield handle


def apply(handle: Handle, events: int = 90, sessions: int = 365) -> list[str]:
    return maintenance.apply_retention(handle, {"retention_events_days": events, "retention_sessions_days": sessions})


def values(handle: Handle, sql: str) -> list[str]:
    return handle.query(sql).decode().splitlines()


def ttl(handle: Handle) -> dict[str, str]:
    found = {}
    for table in maintenance.TTL:
        made = values(handle, f"SELECT extract(engine_full, 'TTL (.*?)( SETTINGS|$)') FROM system.tables WHERE name = '{table}'")
        found[table] = made[0]
    return found


def test_retention_is_what_the_settings_say(kept):
    assert apply(kept) == []  # the defaults are the schema's own
    assert apply(kept, 30) == [
        "telemetry_events", "telemetry_metrics", "telemetry_spans"
    ]  # fmt: skip
    assert set(ttl(kept).values()) == {"toDateTime(timestamp) + toIntervalDay(30)", "toDateTime(ended_at) + toIntervalDay(365)"}
    assert apply(kept, 0, 0) == list(maintenance.TTL)
    assert set(ttl(kept).values()) == {""}
    assert apply(kept, 0, 0) == []
    assert apply(kept) == list(maintenance.TTL)
    assert schema.migrate(kept) == []


def test_what_is_older_than_the_retention_goes_and_the_rest_stays(kept):
    for days in (1, 40, 80):
        # parts are dropped whole, so each row in an insert of its own
        kept.run(f"INSERT INTO telemetry.telemetry_events (timestamp, event_id) VALUES (now64(9) - INTERVAL {days} DAY, {days})")
        kept.run(f"INSERT INTO telemetry.session_summaries (session_id, ended_at) VALUES ('{days}', now64(9) - INTERVAL {days} DAY)")
    apply(kept, 30, 60)
    ids = "SELECT event_id FROM telemetry.telemetry_events ORDER BY 1"
    sessions = "SELECT session_id FROM telemetry.session_summaries ORDER BY 1"
    assert wait_for(lambda: (values(kept, ids), values(kept, sessions)) == (["1"], ["1", "40"])), values(kept, ids)


def test_a_longer_retention_holds_for_what_is_stored_too(kept):
    """A part knows when it expires, by what the retention was when it was written."""
    apply(kept, 30)
    kept.run("INSERT INTO telemetry.telemetry_events (timestamp, event_id) VALUES (now64(9) - INTERVAL 29 DAY, 1)")
    apply(kept, 400)
    ends = "SELECT min(delete_ttl_info_max) > now() + INTERVAL 370 DAY FROM system.parts WHERE table = 'telemetry_events' AND active"
    assert wait_for(lambda: values(kept, ends) == ["1"])


@pytest.mark.parametrize("days", [30, 400])
def test_what_a_kill_or_a_full_disk_kept_from_following_a_retention_follows_at_the_next_start(kept, days):
    """Else parts would go by the retention before: some long before it is their time."""
    apply(kept, 90)
    kept.run("INSERT INTO telemetry.telemetry_events (timestamp, event_id) VALUES (now64(9) - INTERVAL 9 DAY, 1)")
    changed = f"ALTER TABLE telemetry.telemetry_events MODIFY TTL toDateTime(timestamp) + toIntervalDay({days})"
    kept.run(f"{changed} SETTINGS materialize_ttl_after_modify = 0, alter_sync = 0")
    assert "telemetry_events" not in apply(kept, days)
    left = "SELECT round((delete_ttl_info_max - now()) / 86400) FROM system.parts WHERE table = 'telemetry_events' AND active"
    assert wait_for(lambda: values(kept, left) == [str(days - 9)]), values(kept, left)
    mutations = "SELECT count() FROM system.mutations WHERE command LIKE '%TTL%'"
    asked = values(kept, mutations)
    assert apply(kept, days) == [] and values(kept, mutations) == asked, "nothing is left to do"


def test_what_an_earlier_retention_let_go_is_remembered(kept):
    """Reports take what is before `events_kept` from sums of hours, also where events are kept for longer than they were."""

    def ago(days: int) -> str:
        return str((int(time.time()) - days * 86400 + WHOLE_S) // 3600 * 3600 if days else 0)

    since = "SELECT toUnixTimestamp(max(since)) FROM telemetry.events_kept"
    assert values(kept, since) == ["0"]
    for days, lost in ((0, 0), (30, 30), (90, 30), (90, 30), (0, 30), (50_000, 30), (7, 7)):
        apply(kept, days)
        assert wait_for(lambda lost=lost: values(kept, since) == [ago(lost)]), days  # the hour may end meanwhile
    assert values(kept, "SELECT count() FROM telemetry.event_retention FINAL") == ["1"]


# ---- sums of what went


def request(at_s: float, number: int = 0) -> dict[str, Any]:
    return {"name": "api_request", "time_ns": int(at_s * 1e9), "session.id": SESSION, "event.sequence": number, "cost_usd": 1.0}


def arrive(handle: Handle, *events: dict[str, Any]) -> None:
    handle.insert("INSERT INTO telemetry.otlp_logs_json", "JSONEachRow", [as_json(log_request(list(events)))])


def summed(handle: Handle) -> list[str]:
    """Requests by the sums of hours, and by those of sessions."""
    found = (f"(SELECT sum(requests) FROM telemetry.{table} FINAL)" for table in ("usage_hourly", "session_summaries"))
    return values(handle, f"SELECT {', '.join(found)}")


def let_go(handle: Handle) -> None:
    """As the engine does by itself, some time after they have expired."""
    handle.run("OPTIMIZE TABLE telemetry.telemetry_events FINAL")
    assert wait_for(lambda: values(handle, "SELECT count() FROM telemetry.telemetry_events") == ["0"])


@pytest.mark.parametrize("then", [30, 365, 0, 50_000], ids=["as it was", "for longer", "for ever", "for longer than a TTL can say"])
def test_an_hour_that_lost_events_keeps_what_was_summed_up(kept: Handle, then: int) -> None:
    at = time.time() - 40 * 86400
    apply(kept, 90)
    arrive(kept, request(at, 0), request(at, 1))
    apply(kept, 30)
    let_go(kept)
    apply(kept, then)
    arrive(kept, request(at, 2))
    maintenance.summarise(kept)
    assert values(kept, "SELECT sum(requests) FROM telemetry.usage_hourly FINAL") == ["2"]


def test_what_a_shorter_retention_lets_go_is_summed_up_before(kept: Handle) -> None:
    """It came shortly before the server ended, and settings changed meanwhile."""
    apply(kept)
    arrive(kept, request(time.time() - 40 * 86400))
    apply(kept, 30)
    let_go(kept)
    maintenance.summarise(kept)
    assert summed(kept) == ["1\t1"]


@pytest.mark.parametrize("days", [90, 0, 50_000])
def test_what_is_kept_is_summed_up(kept: Handle, days: int) -> None:
    apply(kept, days)
    arrive(kept, request(time.time()))
    maintenance.summarise(kept)
    assert summed(kept) == ["1\t1"]


def test_a_session_whose_events_went_is_still_known(kept: Handle) -> None:
    """Sessions are kept for a year, also those that backfill has filled something into."""
    apply(kept)
    at = time.time() - 40 * 86400
    arrive(kept, request(at))
    listed = {"session_id": SESSION, "request_id": "req_1", "message_id": "msg_1", "run": time.time_ns()}
    kept.insert("INSERT INTO telemetry.backfilled_requests", "JSONEachRow", [json.dumps(listed).encode()])
    apply(kept, 30)
    let_go(kept)
    backfill.cancel(kept)
    assert summed(kept) == ["1\t1"]


def test_what_an_earlier_retention_let_go_is_not_filled_in_nor_missing(tmp_path, configuration, of):
    """Sums of hours know more of it than transcripts do."""
    old, of_new = made(of, NOW - 20 * DAY, 3), identifier(of, "new")
    new = made(of_new, NOW - 3 * DAY, 3)
    new.requests[2].in_telemetry = False
    for session in (old, new):
        configuration.session(session.id, session.transcript())
    home = tmp_path / "home"
    with server(home, SP_TELEMETRY_RETENTION_EVENTS_DAYS="90") as running:
        send(running, old.events())
        send(running, new.events())
    with server(home, SP_TELEMETRY_RETENTION_EVENTS_DAYS="14") as running:
        running.run("OPTIMIZE TABLE telemetry.telemetry_events FINAL")
        before = reported(running, configuration, "cost")["total"]
        assert before["requests"] == 5
    with server(home, SP_TELEMETRY_RETENTION_EVENTS_DAYS="365") as running:
        audited = called(running, configuration, "audit")
        assert audited.stdout.startswith("2 of 3 requests in both"), audited.stdout
        assert "no longer kept in full" in audited.stderr
        done = called(running, configuration, "backfill", "--since", "29d")
        assert done.stdout.startswith("1 request of 1 session filled in"), done.stdout + done.stderr
        total = reported(running, configuration, "cost")["total"]
        assert (total["requests"], total["sessions"]) == (6, 2)
        assert called(running, configuration, "backfill", "--remove").returncode == 0
        assert reported(running, configuration, "cost")["total"] == before

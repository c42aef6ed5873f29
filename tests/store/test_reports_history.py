"""Reports of longer ago than events are kept: the sums of hours say the same as the events did, and what they can't say is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sp_telemetry.reports import coverage, render
from sp_telemetry.reports.catalogue import COSTS, REPORTS
from sp_telemetry.reports.parameters import parameters
from sp_telemetry.reports.run import Result, ask
from sp_telemetry.store import maintenance
from sp_telemetry.store.client import Client
from tests.store.clickhouse_server import Server
from tests.store.reporting import clear, client, report, server

__all__ = ["client", "server"]  # fixtures

LOST = datetime(2026, 3, 20, 14, tzinfo=UTC)  # an hour
NAMES = st.sampled_from(["", "1-a", "33-c", "of (unattributed) things"])
EVENT = st.fixed_dictionaries(
    {
        "timestamp": st.integers(-86400 * 40, 86400 * 20).map(lambda seconds: f"{LOST + timedelta(seconds=seconds):%F %T}"),
        "event_type": st.sampled_from(["api_request", "api_request", "api_request", "user_prompt"]),
        "session_id": st.sampled_from(["s1", "s2", "s3"]),
        "user_id": st.sampled_from(["", "ada", "grace"]),
        "model": st.sampled_from(["", "large", "given-away"]),
        "chapter_context": NAMES, "feature": NAMES, "branch": NAMES, "workflow_step": NAMES, "project": NAMES,
        "cost_usd": st.integers(0, 8).map(lambda eighths: eighths / 8),  # added up without a rest in any order
        "input_tokens": st.integers(0, 2), "output_tokens": st.integers(0, 2), "cache_read_tokens": st.integers(0, 2),
        "cache_creation_5m_tokens": st.integers(0, 2), "cache_creation_1h_tokens": st.integers(0, 2),
    }
)  # fmt: skip


def write(server: Server, rows: list[dict[str, Any]]) -> None:
    """As events and as the sums of their hours."""
    clear(server)
    server.owner("TRUNCATE TABLE telemetry.event_retention")
    each = []
    for number, row in enumerate(rows):
        row["token_count"] = row["input_tokens"] + row["output_tokens"]
        row["cache_creation_tokens"] = row["cache_creation_5m_tokens"] + row["cache_creation_1h_tokens"]
        each.append(json.dumps({"version": 1, "event_id": number, "received_at": "2026-06-01", **row}))
    columns = ", ".join(["version", "event_id", "received_at", *rows[0]])
    server.owner(f"INSERT INTO telemetry.telemetry_events ({columns}) FORMAT JSONEachRow\n" + "\n".join(each))
    with server.engine.handle() as handle:
        maintenance.summarise(handle)


def lose(server: Server) -> None:
    """What retention does: events before LOST go, and it is remembered that they may have."""
    moment = f"{LOST:%F %T}"
    server.owner(f"INSERT INTO telemetry.event_retention (days, lost_before) VALUES (0, '{moment}')")
    server.owner(f"ALTER TABLE telemetry.telemetry_events DELETE WHERE timestamp < '{moment}' SETTINGS mutations_sync = 2")


@pytest.fixture
def given_away(server: Server) -> None:
    """A model whose price is 0, so that nothing of it is unpriced."""
    columns = "loaded_at, model, tier, valid_from, valid_to"
    values = "now64(9), 'given-away', 'standard', '2020-01-01', '2149-06-06'"
    server.owner(f"INSERT INTO telemetry.model_prices ({columns}) VALUES ({values})")


ASKED = [
    ("cost", "chapter", {}), ("cost", "day,model", {}), ("cost", "user,branch,step", {"user": "ada"}),
    ("cost", "project", {"chapter": "33"}), ("cost", "feature", {"feature": "(unattributed)"}),
    ("cost", "model", {"chapter": "of (unattributed) things"}),
    ("tokens", "model", {}), ("tokens", "day,feature", {"chapter": "(unattributed)"}), ("tokens", "step,user", {}),
]  # fmt: skip


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(EVENT, min_size=1, max_size=20), zone=st.sampled_from(["UTC", "Europe/Berlin"]))
def test_any_report_says_the_same_of_events_and_of_what_was_summed_up(
    server: Server, client: Client, given_away: None, rows: list[dict[str, Any]], zone: str
) -> None:
    rows[0] |= {"timestamp": f"{LOST:%F %T}", "event_type": "api_request", "chapter_context": "33-c", "feature": "", "user_id": "ada"}
    rows.append(rows[0] | {"timestamp": f"{LOST - timedelta(seconds=1):%F %T}", "chapter_context": "of (unattributed) things"})
    rows.append(rows[0] | {"chapter_context": ""})
    write(server, rows)

    def all_of_them() -> list[Result]:
        return [report(client, name, by, tz=zone, filters=filters) for name, by, filters in ASKED]

    before = all_of_them()
    for name in ("cost", "tokens"):  # the file as it stands says the same as without what nobody needs yet
        asked = parameters(REPORTS[name], by="day,user", start="2026-01-01", tz=zone).for_query()
        whole, part = (client.query(REPORTS[name].sql(sums), asked).rows for sums in (True, False))
        assert whole == part != []
    lose(server)
    for one, other in zip(before, all_of_them(), strict=True):
        assert (one.rows, one.total, one.more) == (other.rows, other.total, other.more)
        assert one.coverage["events_since"] is None
        assert datetime.fromisoformat(other.coverage["events_since"]) == LOST
        alike = ("unattributed", "unattributed_share", "unpriced_requests", "unpriced_tokens")
        assert {name: one.coverage[name] for name in alike} == {name: other.coverage[name] for name in alike}


def one(**values: Any) -> dict[str, Any]:
    tokens = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_5m_tokens"), 1)
    return {"event_type": "api_request", "session_id": "s", "cost_usd": 1.0, "cache_creation_1h_tokens": 0, **tokens} | values


def test_a_range_has_the_hours_that_begin_in_it_and_what_has_no_sums_says_so(server: Server, client: Client) -> None:
    old = ["2026-02-28 23:59:59", "2026-03-01 00:00:01", "2026-03-01 23:30:00", "2026-03-02 00:30:00"]
    write(server, [one(timestamp=at) for at in [*old, "2026-04-01 12:00:00"]])
    lose(server)
    for start, end, requests in (
        ("2026-03-01", "2026-03-01", 2), ("2026-03-01T23:00", "2026-03-02", 2), ("2026-03-02", "2026-03-31", 1),
        ("2026-03-01", None, 4), ("2026-01-01", None, 5), ("1970-01-01", None, 5), ("2026-03-20T15:00", None, 1),
    ):  # fmt: skip
        asked = report(client, "cost", "day", tz="UTC", start=start, end=end)
        assert asked.total["requests"] == requests, (start, end)
        line = " ".join(coverage.lines(asked, 0))
        assert ("events before 2026-03-20 14:00 by sums of hours" in line) == (start < "2026-03-20T14")
    newer = report(client, "cost", "day", tz="UTC", start="2026-03-03")  # nothing was there from then on
    assert newer.total["requests"] == 1 and newer.coverage["events_since"] is None

    of_session = report(client, "cost", "session", tz="UTC")
    computed = COSTS["computed"]
    for asked in (
        of_session,
        report(client, "tokens", "model", filters={"session": "s"}),
        report(client, "sessions", "day", tz="UTC"),
        ask(client, computed, parameters(computed, by="chapter", start="2026-01-01", tz="UTC")),
    ):
        assert asked.total["requests"] == 1
        assert "no longer kept in full · source" in coverage.lines(asked, 0)[0]
    assert list(REPORTS) and of_session.as_dict()["coverage"]["events_since"] == "2026-03-20T14:00:00+00:00"


def test_sessions_of_hours_that_did_not_count_them_are_not_known(server: Server, client: Client) -> None:
    """Hours that were summed up before there was such a column."""
    write(server, [one(timestamp=f"2026-0{month}-01", chapter_context=chapter) for month, chapter in ((3, "old"), (4, "new"))])
    lose(server)
    server.owner("ALTER TABLE telemetry.usage_hourly UPDATE sessions = [] WHERE 1 SETTINGS mutations_sync = 2")
    for name in ("cost", "tokens"):
        asked = report(client, name, "chapter", tz="UTC")
        assert {row["chapter"]: row["sessions"] for row in asked.rows[:2]} == {"old": None, "new": 1}
        assert (asked.total["sessions"], asked.total["requests"]) == (None, 2)
        assert coverage.lines(asked, 0)[0].startswith("2 requests · 0 % of ")
    shown = [line.split() for line in render.text(report(client, "cost", "chapter", tz="UTC"), 140).splitlines()]
    assert {words[0]: words[3] for words in shown if words[0] in ("old", "new", "total")} == {"old": "-", "new": "1", "total": "-"}


def test_events_that_are_still_there_are_not_counted_beside_their_sums(server: Server, client: Client) -> None:
    """The engine drops whole parts, so for up to a week some events are there that are older than they need be."""
    write(server, [one(timestamp="2026-03-20 13:59:59"), one(timestamp="2026-03-20 14:00:00")])
    server.owner(f"INSERT INTO telemetry.event_retention (days, lost_before) VALUES (0, '{LOST:%F %T}')")
    assert report(client, "cost", "day", tz="UTC").total["requests"] == 2
    assert report(client, "cost", "session", tz="UTC").total["requests"] == 2


def test_gaps_are_those_of_the_events_that_are_kept(server: Server, client: Client) -> None:
    """A session that goes over the end of what is kept did not lose the numbers that retention took."""
    numbers = [n for n in range(20) if n != 15]  # one is truly missing
    write(server, [one(timestamp=f"{LOST + timedelta(minutes=n - 10):%F %T}", event_sequence=n) for n in numbers])
    before = report(client, "cost", "day", tz="UTC").coverage
    assert (before["gaps"], before["expected"]) == (1, 20)
    server.owner(f"INSERT INTO telemetry.event_retention (days, lost_before) VALUES (0, '{LOST:%F %T}')")
    early = f"timestamp < '{LOST - timedelta(minutes=5):%F %T}'"
    server.owner(f"ALTER TABLE telemetry.telemetry_events DELETE WHERE {early} SETTINGS mutations_sync = 2")
    after = report(client, "cost", "day", tz="UTC").coverage
    assert (after["gaps"], after["expected"]) == (1, 10)

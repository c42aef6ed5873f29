"""Days with 23, 23½, 24½ and 25 hours, days that have no midnight or two: every report, and by `from` and `to`, as Python's zoneinfo."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from sp_telemetry import resources
from sp_telemetry.errors import UsageError
from sp_telemetry.reports.catalogue import REPORTS
from sp_telemetry.reports.parameters import parameters, time_range
from sp_telemetry.store.client import Client
from tests.store.clickhouse_server import Server
from tests.store.reporting import client, report, server
from tests.store.test_reports_rows import write

__all__ = ["client", "server"]  # fixtures
CHANGES = [  # a zone, and a day on which its clocks change
    ("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"),  # by half an hour
    ("America/Havana", "2026-03-08"), ("America/Havana", "2026-11-01"),  # at midnight and to midnight: 0:00 is not, and comes twice
    ("Africa/Cairo", "2026-04-24"), ("Africa/Cairo", "2026-10-30"),  # at midnight; and from midnight back to the day before
    ("America/Santiago", "2026-09-06"), ("America/Santiago", "2026-04-05"),  # the same, south of the equator
]  # fmt: skip
SHOWN = {"cost": "requests", "tokens": "requests", "tools": "calls", "errors": "errors", "sessions": "sessions"}


@pytest.mark.parametrize(("zone", "changed"), CHANGES)
def test_each_event_is_on_the_day_that_its_zone_had(server: Server, client: Client, zone: str, changed: str) -> None:
    day, of = date.fromisoformat(changed), ZoneInfo(zone)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=of).astimezone(UTC)
    moments = [noon + timedelta(minutes=10 * step, seconds=second) for step in range(-216, 217) for second in (-1, 0)]
    days = Counter(str(moment.astimezone(of).date()) for moment in moments)
    assert 4 <= len(days) <= 5
    kinds = ("api_request", "tool_result", "api_error")
    write(server, [
        {"timestamp": f"{moment:%F %T}", "event_type": kind, "session_id": f"s{number}", "event_sequence": 0, "source": "otlp",
         "model": "claude-sonnet-4-5", "input_tokens": 1, "token_count": 1, "cost_usd": 1.0, "success": True}
        for number, moment in enumerate(moments) for kind in kinds
    ])  # fmt: skip
    first, last = min(days), max(days)
    for name, column in SHOWN.items():
        result = report(client, name, "day", start=first, end=last, tz=zone)
        assert {row["day"]: row[column] for row in result.rows} == days, name
        assert result.total[column] == len(moments), name
    told = parameters(REPORTS["cost"], by="day", start=first, end=last, tz=zone).for_query()
    computed = client.query(resources.path("telemetry-server/queries/cost-computed.sql").read_text(), told).records()
    assert {row["group_1"]: row["requests"] for row in computed} == days | {"": len(moments)}
    for one, count in days.items():
        asked = {**parameters(REPORTS["cost"], by="day", tz=zone).for_query(), "from": one, "to": one}  # as typed behind curl
        assert [row["requests"] for row in client.query(REPORTS["cost"].sql(), asked).records()] == [count, count], one
        result = report(client, "cost", "day", start=one, end=one, tz=zone)
        assert [(row["day"], row["requests"]) for row in result.rows] == [(one, count)]
        assert result.coverage["received"] == 3 * count


@pytest.mark.parametrize("begin", ["", "day", "moment"])
@pytest.mark.parametrize("end", ["", "day", "moment"])
def test_a_range_of_a_query_as_it_is_printed(server: Server, client: Client, begin: str, end: str) -> None:
    """Each end a day, a moment or nothing, in every query that has a range: what is said of one is nothing to the other."""
    now = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
    moments = [now - timedelta(hours=7 * step) for step in range(30)]
    kinds = ("api_request", "tool_result", "api_error")
    write(server, [
        {"timestamp": f"{moment:%F %T}", "event_type": kind, "session_id": f"s{number}", "event_sequence": 0, "source": "otlp",
         "model": "claude-sonnet-4-5", "input_tokens": 1, "token_count": 1, "cost_usd": 1.0, "success": True}
        for number, moment in enumerate(moments) for kind in kinds
    ])  # fmt: skip
    first, last = now - timedelta(days=6), now - timedelta(days=2)
    asked = {
        **parameters(REPORTS["cost"], by="day", tz="UTC").for_query(),
        "from": {"": "", "day": f"{first:%F}", "moment": f"{first:%F %H}:00"}[begin],
        "to": {"": "", "day": f"{last:%F}", "moment": f"{last:%F %H}:00"}[end],
    }
    since = {"": now - timedelta(days=40), "day": first.replace(hour=0, minute=0), "moment": first.replace(minute=0)}[begin]
    until = {"": now + timedelta(days=1), "day": last.replace(hour=0, minute=0) + timedelta(days=1), "moment": last.replace(minute=0)}[end]
    within = sum(since <= moment < until for moment in moments)
    for name, column in SHOWN.items():
        assert client.query(REPORTS[name].sql(), asked).records()[-1][column] == within, name
    for file in ("cost-computed", "cost-differences"):
        rows = client.query(resources.path(f"telemetry-server/queries/{file}.sql").read_text(), asked).records()
        assert rows[-1]["requests"] == within, file
    client.query(resources.path("telemetry-server/queries/coverage.sql").read_text(), asked)
    client.query(resources.path("telemetry-server/transcripts/state.sql").read_text(), {**asked, "machine": ""})


def test_a_range_within_the_hour_that_comes_twice() -> None:
    """Python compares times of one zone by what its clock shows."""
    berlin, now = ZoneInfo("Europe/Berlin"), datetime(2026, 11, 30, tzinfo=UTC)
    begin, end = time_range(None, "2026-10-25T02:45+02:00", "2026-10-25T02:15+01:00", berlin, now)
    assert end is not None and end.astimezone(UTC) - begin.astimezone(UTC) == timedelta(minutes=30)
    with pytest.raises(UsageError, match="before it begins"):
        time_range(None, "2026-10-25T02:15+01:00", "2026-10-25T02:45+02:00", berlin, now)

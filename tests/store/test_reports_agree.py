"""Reports held against one another: the same requests, cost and calls are in each, however they are grouped, cut in two or filtered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sp_telemetry.errors import NothingStored
from sp_telemetry.reports.catalogue import COSTS, REPORTS, UNATTRIBUTED, Report
from sp_telemetry.reports.parameters import parameters
from sp_telemetry.reports.run import Result, ask
from sp_telemetry.store.client import Client
from tests.store.clickhouse_server import Server
from tests.store.reporting import client, server
from tests.store.test_reports_history import write

__all__ = ["client", "server"]  # fixtures

BEGIN = datetime(2026, 3, 28, tzinfo=UTC)  # clocks go forward in Berlin on the day after
HOURS = 60
NAMES = st.sampled_from(["", "1-a", "33-c", "(unattributed)x", "Ü b"])
EVENT = st.fixed_dictionaries(
    {
        "timestamp": st.integers(0, HOURS * 3600 - 1).map(lambda second: f"{BEGIN + timedelta(seconds=second):%F %T}"),
        "event_type": st.sampled_from(["api_request", "api_request", "api_error", "tool_result", "user_prompt"]),
        "source": st.sampled_from(["otlp", "otlp", "transcript"]),
        "session_id": st.sampled_from(["s1", "s2", "s3"]),
        "user_id": st.sampled_from(["", "ada", "grace"]),
        "model": st.sampled_from(["", "claude-opus-5-5", "claude-nobody-knows-9"]),
        "success": st.booleans(),
        "tool_name": st.sampled_from(["Bash", "Read"]),
        "chapter_context": NAMES, "feature": NAMES, "branch": NAMES, "workflow_step": NAMES, "project": NAMES,
        "cost_usd": st.integers(0, 8).map(lambda eighths: eighths / 8),  # added up without a rest in any order
        "input_tokens": st.integers(0, 2), "output_tokens": st.integers(0, 2), "cache_read_tokens": st.integers(0, 2),
        "cache_creation_5m_tokens": st.integers(0, 2), "cache_creation_1h_tokens": st.integers(0, 2),
    }
)  # fmt: skip
ZONES = st.sampled_from(["Europe/Berlin", "Asia/Kolkata"])
BOTH = COSTS["both"]
SUMS = {  # what may be added up over groups in which each event is once
    "cost": ("cost_usd", "requests", "token_count", "cache_read_tokens", "cache_creation_tokens", "unpriced_requests", "unpriced_tokens"),
    "tokens": ("input_tokens", "output_tokens", "token_count", "cache_read_tokens", "cache_creation_tokens", "requests"),
    "sessions": ("cost_usd", "requests", "tool_calls", "tool_failures", "api_errors"),
    "tools": ("calls", "failures"),
    "errors": ("errors", "api_errors", "tool_failures"),
}
FILTERS = ("chapter", "feature", "user", "session")


def asked(client: Client, report: Report, by: str, zone: str, **more: Any) -> Result | None:
    """None where there is nothing to report."""
    start, end = more.pop("start", f"{BEGIN:%F}"), more.pop("end", None)
    try:
        return ask(client, report, parameters(report, by=by, start=start, end=end, tz=zone, limit=0, filters=more))
    except NothingStored:
        return None


def total(result: Result | None, name: str) -> Any:
    return result.total[name] if result else 0


@settings(max_examples=2, deadline=None, phases=(Phase.generate,), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(EVENT, min_size=5, max_size=30), zone=ZONES, cut=st.integers(1, HOURS - 1), pick=st.integers(0, 99))
def test_any_two_reports_of_the_same_events_agree(
    server: Server, client: Client, rows: list[dict[str, Any]], zone: str, cut: int, pick: int
) -> None:
    write(server, rows)
    whole = {name: asked(client, REPORTS[name], "day", zone) for name in SUMS}
    computed = asked(client, BOTH, "model", zone)

    # what several of them tell is the same
    for name, told in {
        "requests": [whole["cost"], whole["tokens"], whole["sessions"], computed],
        "cost_usd": [whole["cost"], whole["sessions"]],
        "token_count": [whole["cost"], whole["tokens"], computed],
        "api_errors": [whole["sessions"], whole["errors"]],
        "tool_failures": [whole["sessions"], whole["errors"]],
    }.items():
        assert len({total(one, name) for one in told}) == 1, (name, told)
    reported = sum(row["cost_usd"] for row in rows if row["event_type"] == "api_request" and row["source"] != "transcript")
    assert total(computed, "reported_usd") == reported  # what was filled in was not reported: its cost is by the price list
    assert total(whole["tools"], "calls") == total(whole["sessions"], "tool_calls")
    assert total(whole["tools"], "failures") == total(whole["sessions"], "tool_failures")

    half = f"{BEGIN + timedelta(hours=cut):%FT%TZ}"
    for name, columns in SUMS.items():
        report = REPORTS[name]
        for by in (report.groupings[pick % len(report.groupings)], "day,chapter", "user,feature,step"):  # groups add up to the total
            grouped = asked(client, report, by, zone)
            for column in columns:
                assert sum(row[column] for row in (grouped.rows if grouped else [])) == total(whole[name], column), (name, by, column)
        parts = [asked(client, report, "day", zone, end=half), asked(client, report, "day", zone, start=half)]  # a range is its two halves
        for column in columns:
            assert sum(total(part, column) for part in parts) == total(whole[name], column), (name, column)
        by = FILTERS[pick % len(FILTERS)]  # who asks for a group by its name gets that group
        grouped = asked(client, report, by, zone)
        for row in grouped.rows if grouped else []:
            if (by, row[by]) == ("user", UNATTRIBUTED):
                continue  # there is no name to ask for
            alone = asked(client, report, "day", zone, **{by: row[by]})
            for column in columns:
                assert total(alone, column) == row[column], (name, by, row[by], column)

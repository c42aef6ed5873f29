"""Every shipped report over rows made for it: totals, gaps, days, versions, and nothing at all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sp_telemetry import resources
from sp_telemetry.errors import NothingStored
from sp_telemetry.reports.catalogue import ATTRIBUTED, REPORTS, UNATTRIBUTED
from sp_telemetry.reports.parameters import parameters
from sp_telemetry.store import maintenance
from sp_telemetry.store.client import Client
from tests.store.clickhouse_server import Server
from tests.store.histories import gaps
from tests.store.reporting import clear, client, report, server

__all__ = ["client", "server"]  # fixtures


def write(server: Server, rows: list[dict[str, Any]]) -> None:
    clear(server)
    lines = "\n".join(json.dumps({"version": 1, "event_id": number, **row}) for number, row in enumerate(rows))
    columns = ", ".join(dict.fromkeys(["version", "event_id", *(name for row in rows for name in row)]))
    server.owner(f"INSERT INTO telemetry.telemetry_events ({columns}) FORMAT JSONEachRow\n{lines}")


def settle(server: Server) -> None:
    """Summaries of all that is stored, and something written later, so that they are believed."""
    columns = "(timestamp, received_at, event_type, session_id)"
    server.owner(f"INSERT INTO telemetry.telemetry_events {columns} VALUES (now64(9), now64(9), 'x', 'later')")
    with server.engine.handle() as handle:
        maintenance.summarise(handle)
    assert int(server.owner("SELECT max(version) FROM telemetry.session_summaries")) > 1e18


NAMES = st.sampled_from(["", "", "1-a", "02-b", "33-c"])
ROW = st.fixed_dictionaries(
    {
        "timestamp": st.integers(0, 86400 * 40).map(lambda s: (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=s)).strftime("%F %T")),
        "event_type": st.sampled_from(["api_request", "api_request", "api_request", "tool_result"]),
        "session_id": st.sampled_from(["s1", "s2", "s3"]),
        "user_id": st.sampled_from(["", "ada", "grace"]),
        "model": st.sampled_from(["", "large", "small"]),
        "chapter_context": NAMES, "feature": NAMES, "branch": NAMES, "workflow_step": NAMES, "project": NAMES,
        "cost_usd": st.one_of(st.just(0.0), st.floats(0, 50, allow_nan=False)),
        "token_count": st.sampled_from([0, 5, 100]),
    }
)  # fmt: skip


ENDED = {  # event -> its rank and what it ends as. A command that a hook answers, as ours, makes no request: its session is not broken off
    "api_error": (3, "error"), "api_request": (2, "answer"), "command": (1, "command"), "tool_result": (0, "broken off"),
    "user_prompt": (0, "broken off"),
}  # fmt: skip
HAPPENED = st.tuples(st.sampled_from(["a", "b", ""]), st.integers(0, 3), st.none() | st.integers(0, 9), st.sampled_from([*ENDED]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happened=st.lists(HAPPENED, min_size=1))
@example(happened=[("a", 0, 2, "api_request"), ("a", 0, None, "user_prompt"), ("a", 0, 2, "api_error")])
def test_what_ended_a_session_is_what_came_last_in_it(
    server: Server, client: Client, happened: list[tuple[str, int, int | None, str]]
) -> None:
    """Of one moment what has the higher number; of one number, or of none, what has the higher rank."""
    command = {"event_type": "user_prompt", "command_name": "custom"}
    write(server, [
        {"timestamp": f"2026-03-01 00:00:0{second}", "session_id": session, "event_sequence": number}
        | (command if kind == "command" else {"event_type": kind})
        for session, second, number, kind in happened
    ])  # fmt: skip
    last: dict[str, tuple[Any, ...]] = {}
    for session, second, number, kind in happened:
        last[session] = max(last.get(session, ()), (second, number or 0, *ENDED[kind]))
    shown = {row["session"]: row["ended_by"] for row in report(client, "sessions", "session").rows}
    assert shown == {session or UNATTRIBUTED: ended[-1] if session else "" for session, ended in last.items()}


def test_a_session_with_an_event_in_the_last_ten_minutes_is_open(server: Server, client: Client) -> None:
    """Whatever came last in it; a piece of work is as open as the last of its sessions."""
    def ago(minutes: int) -> str:
        return f"{datetime.now(UTC) - timedelta(minutes=minutes):%F %T}"

    happened = [("open", 9, "api_error"), ("over", 11, "api_error"), ("first", 40, "api_request"), ("forked", 1, "api_request")]
    write(server, [{"timestamp": ago(minutes), "session_id": of, "event_type": what, "cost_usd": 1.0} for of, minutes, what in happened])
    server.owner("INSERT INTO telemetry.session_links VALUES ('forked', 'forked', 'first', 'first', now64(9))")
    rows = {row["session"]: row for row in report(client, "sessions", "session").rows}
    server.owner("TRUNCATE TABLE telemetry.session_links")
    assert {of: row["ended_by"] for of, row in rows.items()} == {"open": "open", "over": "error", "first": "open"}
    assert rows["first"]["joined_sessions"] == [{"session": "forked", "joined": "forked", "follows": "first"}]
    assert rows["first"]["cost_usd"] == 2 and rows["open"]["joined_sessions"] == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROW, min_size=1, max_size=40),
    by=st.lists(st.sampled_from(REPORTS["cost"].groupings), min_size=1, max_size=3, unique=True),
)
def test_pitfall_23_every_grouping_adds_up_to_what_is_stored(
    server: Server, client: Client, rows: list[dict[str, Any]], by: list[str]
) -> None:
    write(server, rows)
    requests = [row for row in rows if row["event_type"] == "api_request"]
    if not requests:
        with pytest.raises(NothingStored):
            report(client, "cost", ",".join(by))
        return
    result = report(client, "cost", ",".join(by), tz="America/St_Johns")
    raw = math.fsum(row["cost_usd"] for row in requests)
    for shown in (math.fsum(row["cost_usd"] for row in result.rows), result.total["cost_usd"]):
        assert shown == pytest.approx(raw, abs=1e-9)
    assert sum(row["requests"] for row in result.rows) == len(requests)
    unpriced = [row for row in requests if row["cost_usd"] == 0 and row["token_count"]]
    assert result.coverage["unpriced_requests"] == len(unpriced)
    assert result.coverage["unpriced_tokens"] == sum(row["token_count"] for row in unpriced)
    first = [row[by[0]] for row in result.rows]
    assert UNATTRIBUTED not in first[: len(first) - first.count(UNATTRIBUTED)]  # last, always
    if by[0] in ATTRIBUTED and len(by) == 1:
        assert first[-1] == UNATTRIBUTED


RUNS = st.lists(st.tuples(st.integers(1, 12), st.sets(st.integers(0, 11), max_size=4)), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sessions=st.lists(RUNS, min_size=1, max_size=3))
@example(sessions=[[(3, {0}), (5, {0, 3})]])  # 1, 2, 1, 2, 4: as many and as much as 0 to 4
def test_what_is_missing_is_found_without_any_order_of_time(
    server: Server, client: Client, sessions: list[list[tuple[int, set[int]]]]
) -> None:
    """Runs of a session lose numbers, but none of them one that is the last of any: those are the ones that can't be told."""
    rows, lost, second = [], 0, 0
    for number, runs in enumerate(sessions):
        last = {length - 1 for length, _ in runs}
        for length, missing in runs:
            missing = {each for each in missing if each < length} - last
            lost += len(missing)
            for sequence in set(range(length)) - missing:
                second += 1
                moment = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=second * 7919 % 86400)
                when, session = f"{moment:%F %T}", f"s{number}"
                rows.append(
                    {"timestamp": when, "event_type": "api_request", "session_id": session, "event_sequence": sequence, "cost_usd": 1.0}
                )
    write(server, rows)
    for _ in ("before", "after"):
        coverage = report(client, "cost", "chapter").coverage
        assert (coverage["gaps"], coverage["received"], coverage["sessions"]) == (lost, len(rows), len(sessions))
        settle(server)


def numbered(session: str, numbers: Iterable[int], hour: str, user: str = "ada") -> list[dict[str, Any]]:
    """Events a second apart from an hour of a day on."""
    begun = datetime.fromisoformat(f"2026-03-{hour}:00:00+00:00")
    common = {"event_type": "api_request", "source": "otlp", "session_id": session, "user_id": user}
    return [common | {"timestamp": f"{begun + timedelta(seconds=n):%F %T}", "event_sequence": number} for n, number in enumerate(numbers)]


FIVE = numbered("a", range(5), "01 10")
GO_ON = {  # -> what is missing of each session, and what if it is asked for alone
    "cleared twice": ([FIVE, numbered("b", range(5, 9), "01 11"), numbered("c", range(9, 12), "01 12")], [0, 0, 0], [0, 0, 0]),
    "continued": ([numbered("a", range(9), "01 10"), numbered("b", range(4), "01 11"), numbered("a", [4, 5, 6], "01 12")], [0, 0], [0, 0]),
    "resumed later": ([FIVE, numbered("b", range(5, 9), "01 11"), numbered("a", range(3), "01 13")], [0, 0], [0, 5]),
    "one lost between": ([FIVE, numbered("b", range(6, 9), "01 11")], [0, 6], [0, 6]),
    "one lost within": ([FIVE, numbered("b", [5, 7, 8], "01 11")], [0, 1], [0, 1]),
    "only one goes on": ([FIVE, numbered("b", range(5, 9), "01 11"), numbered("c", range(5, 9), "01 12")], [0, 0, 5], [0, 0, 0]),
    "before the other": ([FIVE, numbered("b", range(5, 9), "01 09")], [0, 5], [0, 5]),
    "on another day": ([FIVE, numbered("b", range(5, 9), "02 11")], [0, 5], [0, 5]),
    "somebody else": ([FIVE, numbered("b", range(5, 9), "01 11", "grace")], [0, 5], [0, 5]),
    "nobody": ([numbered("a", range(5), "01 10", ""), numbered("b", range(5, 9), "01 11", "")], [0, 5], [0, 5]),
}


@pytest.mark.parametrize("case", GO_ON)
def test_numbers_go_on_in_the_session_that_a_process_turns_to(server: Server, client: Client, case: str) -> None:
    """Seen on both versions: /clear and --continue begin a session within a process, and event.sequence goes on."""
    stretches, missing, alone = GO_ON[case]
    events = [event for stretch in stretches for event in stretch]
    write(server, events)
    listing = resources.path("telemetry-server/transcripts/gaps.sql").read_text("utf-8")
    asked = {"from": "2026-03-01", "to": "2026-03-03", "tz": "UTC", "session": "", "details": 100}
    of_each = dict(zip("abc"[: len(missing)], missing, strict=True))
    for _ in ("before", "after"):
        coverage = report(client, "cost", "chapter").coverage
        assert (coverage["gaps"], coverage["received"], coverage["sessions"]) == (sum(missing), len(events), len(missing))
        listed = client.query(listing, asked).records()
        assert {row["session_id"]: row["missing"] for row in listed} == {name: count for name, count in of_each.items() if count}
        settle(server)
    # alone, it is compared with what summaries tell of the others, and of some they don't tell where they ended
    assert [report(client, "cost", "chapter", filters={"session": name}).coverage["gaps"] for name in of_each] == alone


ODD = (5000, 99_999, 100_000, 100_001, 100_002, 200_002, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
NUMBERS = st.integers(0, 12) | st.sampled_from(ODD)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sessions=st.lists(st.lists(NUMBERS, min_size=1, max_size=12), min_size=1, max_size=3))
@example(sessions=[[2**64 - 1]])
@example(sessions=[[0, 1, 2, 2**63, 3, 4]])
@example(sessions=[[2**64 - 1, 2**64 - 1, 0, 1, 3]])
@example(sessions=[[0, 1, 2, 100_003, 1, 0, 150_000], [5000]])
@example(sessions=[[100_500, *range(2**63, 2**63 + 100)], [2001, 2**62, 2**63 - 1]])
def test_numbers_that_no_client_can_have_reached_are_not_believed(server: Server, client: Client, sessions: list[list[int]]) -> None:
    """By reports, after summaries too, and by audits: where order of time decides there all numbers are believed."""
    common = {"event_type": "api_request", "source": "otlp"}
    write(server, [
        common | {"timestamp": f"2026-03-01 00:{second // 60:02}:{second % 60:02}", "session_id": f"s{of}", "event_sequence": number}
        for of, numbers in enumerate(sessions) for second, number in enumerate(numbers)
    ])  # fmt: skip
    missing = [gaps(numbers)[1] for numbers in sessions]
    listing = resources.path("telemetry-server/transcripts/gaps.sql").read_text()
    for _ in ("before", "after"):
        coverage = report(client, "cost", "chapter").coverage
        assert (coverage["gaps"], coverage["received"]) == (sum(missing), sum(map(len, sessions)))
        for of, numbers in enumerate(sessions):
            asked = {"from": "2026-03-01", "to": "2026-03-02", "tz": "UTC", "session": f"s{of}", "details": 100}
            listed = client.query(listing, asked).records()
            told = sum(row["missing"] for row in listed)
            assert told == (listed[0]["total"] if listed else 0)
            assert all(row["first"] <= row["last"] and row["missing"] % (row["last"] - row["first"] + 1) == 0 for row in listed)
            if max(numbers) > 100_001 * len(numbers):  # so one is not believed, and the numbers alone decide
                assert told == missing[of]
            else:  # their order may tell of more
                assert missing[of] <= told <= 100_001 * len(numbers) ** 2
        settle(server)


@given(RUNS, st.integers(0, 2**64 - 1) | st.integers(0, 20))
def test_one_number_adds_a_hundred_thousand_gaps_at_most(runs: list[tuple[int, set[int]]], odd: int) -> None:
    """Of the model, by which the statements are measured."""
    numbers = [number for length, missing in runs for number in range(length) if number not in missing]
    assert -1 <= gaps([*numbers, odd])[1] - gaps(numbers)[1] <= 100_000


def test_a_process_under_way_at_the_start_of_the_range_is_not_a_gap(server: Server, client: Client) -> None:
    start = datetime(2026, 3, 1, 20, tzinfo=UTC)
    numbers = [*range(12), *range(4)]  # resumed once, after four hours of an hour each number
    rows = [
        {
            "timestamp": f"{start + timedelta(hours=hour):%F %T}",
            "event_type": "api_request",
            "session_id": "s",
            "event_sequence": number,
            "cost_usd": 1.0,
        }
        for hour, number in enumerate(numbers)
        if number != 9
    ]
    write(server, rows)
    for _ in ("before", "after"):
        coverage = report(client, "cost", "day", start="2026-03-02T02:30", tz="UTC").coverage
        assert (coverage["received"], coverage["gaps"]) == (8, 1)
        settle(server)


def test_pitfall_34_days_are_cut_in_the_zone_also_when_it_changes_its_clocks(server: Server, client: Client) -> None:
    at = ["2026-03-28 22:59:59", "2026-03-28 23:00:00", "2026-03-29 21:59:59", "2026-03-29 22:00:00"]  # Berlin: summer from the 29th on
    write(
        server,
        [{"timestamp": each, "event_type": "api_request", "session_id": "s", "cost_usd": 2.0**place} for place, each in enumerate(at)],
    )
    result = report(client, "cost", "day", start="2026-03-28", tz="Europe/Berlin")
    assert [(row["day"], row["cost_usd"]) for row in result.rows] == [("2026-03-30", 8.0), ("2026-03-29", 6.0), ("2026-03-28", 1.0)]
    only = report(client, "cost", "day", start="2026-03-29", end="2026-03-29", tz="Europe/Berlin")
    assert only.total["cost_usd"] == 6.0
    asked = {**parameters(REPORTS["cost"], by="day", tz="Europe/Berlin").for_query(), "from": "2026-03-29", "to": "2026-03-29"}
    assert client.query(REPORTS["cost"].sql(), asked).records()[-1]["cost_usd"] == 6.0  # as typed behind curl


def test_only_requests_are_money(server: Server, client: Client) -> None:
    """Whatever else says that it cost something repeats it."""
    kinds = ("api_request", "api_error", "tool_result", "user_prompt", "other")
    base = {"timestamp": f"{datetime.now(UTC):%F %T}", "session_id": "s"}
    write(server, [base | {"event_type": kind, "cost_usd": 2.0**place} for place, kind in enumerate(kinds)])
    for name in ("cost", "sessions"):
        result = report(client, name, "session", tz="UTC")
        assert (result.total["cost_usd"], result.coverage["unattributed"]) == (1, 1), name
    for file, place in (("session-analysis", 0), ("tool-usage", 4)):
        text = resources.path(f"telemetry-server/queries/{file}.sql").read_text()
        statement = text.split(f"\n-- {place + 1}.")[1].split(";")[0].partition("\n")[2]
        assert client.query(statement).records()[0]["cost_usd"] == 1, file


def test_pitfall_a13_a_session_of_several_features_is_one_in_the_total(server: Server, client: Client) -> None:
    """It counts in each feature that it had to do with, and asked for one of them it is one as well."""
    worked = [("s1", "017-a"), ("s1", "018-b"), ("s1", "017-a"), ("s1", ""), ("s2", "018-b"), ("s2", "018-b")]
    write(server, [
        {"timestamp": f"2026-03-01 10:0{at}:00", "event_type": "api_request", "session_id": of, "feature": feature, "cost_usd": 2.0**at}
        for at, (of, feature) in enumerate(worked)
    ])  # fmt: skip
    for name in ("sessions", "cost", "tokens"):
        result = report(client, name, "feature")
        assert {row["feature"]: row["sessions"] for row in result.rows} == {"018-b": 2, "017-a": 1, UNATTRIBUTED: 1}, name
        assert result.total["sessions"] == 2
        asked = [report(client, name, "feature", filters={"feature": one}).total["sessions"] for one in ("017-a", "018", UNATTRIBUTED)]
        assert asked == [1, 2, 1]
        assert [row["sessions"] for row in report(client, name, "session,feature").rows] == [1, 1, 1, 1]
    settle(server)
    summaries = client.query("SELECT session_id, cost_usd FROM session_summaries FINAL WHERE requests > 0 ORDER BY session_id").rows
    assert summaries == [["s1", 15], ["s2", 48]]


def test_pitfall_16_tokens_that_a_subagent_says_it_used_are_never_added(server: Server, client: Client) -> None:
    """`subagent_completed.total_tokens` is of its last request alone; its requests are events of their own."""
    base = {"timestamp": "2026-03-01 10:00:00", "session_id": "s"}
    write(server, [
        base | {"event_type": "api_request", "query_source": "agent:custom", "input_tokens": 5, "output_tokens": 2, "token_count": 7},
        base | {"event_type": "subagent_completed", "attributes": {"total_tokens": "7000"}, "input_tokens": 900, "token_count": 900},
    ])  # fmt: skip
    for name in ("cost", "tokens"):
        assert report(client, name, "model").total["token_count"] == 7, name
    settle(server)
    assert client.query("SELECT sum(input_tokens), sum(output_tokens) FROM session_summaries FINAL").rows == [[5, 2]]
    assert client.query("SELECT sum(input_tokens), sum(output_tokens) FROM usage_hourly FINAL").rows == [[5, 2]]


@pytest.mark.parametrize("duration", [0, 1, 127, 255, 257, 511, 8255, 14_781, 17_773, 2**31 - 1])
def test_a_duration_is_right_to_four_in_a_thousand(server: Server, client: Client, duration: int) -> None:
    base = {"timestamp": "2026-03-01 10:00:00", "event_type": "tool_result", "session_id": "s", "tool_name": "Bash", "success": True}
    write(server, [base | {"duration_ms": duration} for _ in range(3)])
    total = report(client, "tools", "tool").total
    assert total["p50_ms"] == total["p95_ms"] == pytest.approx(duration, rel=0.004)


def test_the_newer_copy_of_an_event_counts(server: Server, client: Client) -> None:
    same = {"timestamp": "2026-03-01 10:00:00", "event_type": "api_request", "session_id": "s", "event_id": 7, "cost_usd": 1.0}
    write(server, [same | {"version": 1}])
    server.owner("INSERT INTO telemetry.telemetry_events (timestamp, event_type, session_id, event_id, cost_usd, version, chapter_context) "
                 "VALUES ('2026-03-01 10:00:00', 'api_request', 's', 7, 1, 2, '33-c')")  # fmt: skip
    result = report(client, "cost", "chapter", tz="UTC")
    assert [(row["chapter"], row["cost_usd"]) for row in result.rows] == [("33-c", 1.0), (UNATTRIBUTED, 0.0)]


def test_pitfall_12_versions_with_a_known_fault_are_named(server: Server, client: Client) -> None:
    base = {"timestamp": "2026-03-01 10:00:00", "event_type": "api_request", "session_id": "s", "cost_usd": 1.0}
    versions = ["2.1.190", "2.1.191", "2.1.211", "2.1.212", "2.1.3300"]
    write(server, [base | {"service_version": version, "event_sequence": number} for number, version in enumerate(versions)])
    for _ in ("before", "after"):
        assert report(client, "cost", "chapter").coverage["chunked_versions"] == ["2.1.191", "2.1.211"]
        settle(server)


def test_an_empty_store_says_what_to_do(server: Server, client: Client) -> None:
    clear(server)
    for name in REPORTS:
        with pytest.raises(NothingStored, match="Nothing is stored yet") as failure:
            report(client, name, REPORTS[name].default_by)
        assert "telemetry-setup" in failure.value.hint


def test_a_name_is_asked_for_as_it_is(server: Server, client: Client) -> None:
    names = ["CORP\\ada", "a\tb\nc\r\\", "O'Brien", "[x\\y]", "\\N", "100 %"]
    base = {"timestamp": "2026-03-01 10:00:00", "event_type": "api_request", "session_id": "s", "cost_usd": 1.0}
    write(server, [base | {"user_id": name} for name in names])
    for name in names:
        assert report(client, "cost", "user", filters={"user": name}).total["cost_usd"] == 1
        assert client.query("SELECT count() FROM telemetry_events WHERE user_id = {user:String}", {"user": name}).rows == [[1]]
    assert client.query("SELECT count() FROM telemetry_events WHERE has({users:Array(String)}, user_id)", {"users": names}).rows == [[6]]


def test_nothing_to_show_says_what_there_is(server: Server, client: Client) -> None:
    write(server, [{"timestamp": "2026-03-01 10:00:00", "event_type": "user_prompt", "session_id": "s", "user_id": "ada"}])
    hints = []
    for more in ({}, {"start": "2026-03-02"}, {"filters": {"user": "grace"}}):
        with pytest.raises(NothingStored) as failure:
            report(client, "cost", "chapter", **more)
        hints.append(failure.value.hint)
    assert all("The newest of 1 stored event is of 2026-03-01 10:00 UTC" in hint for hint in hints)
    assert ["reads api_request events" in hint for hint in hints] == [True, False, False]
    assert ["goes further back" in hint for hint in hints] == [False, True, False]
    assert ["report cost --by user" in hint for hint in hints] == [False, False, True]

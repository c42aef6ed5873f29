"""`kill -9` at any moment: what was acknowledged is stored once, the next start is quick, and what is made from events agrees with them."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sp_telemetry.setup import service
from tests.e2e.kills import (
    SESSIONS,
    Sender,
    assert_no_part_was_given_up,
    busy,
    cpu_s,
    has_context,
    in_background,
    kill,
    start_and_kill,
    steps_of_starts,
)
from tests.server import Server, as_protobuf, log_request, wait_for

START_S = 3.0
WHOLE_SCHEMA = 3  # times as long takes a start that has every migration and all views to make again; an update has one or two
DAY_S = 86400
YEARS_DAYS, STEP_DAYS = 1000, 20  # the first retention that is set, and by how much each is shorter than the one before
AGED = "00000000-0000-0000-a9ed-"  # what the sessions of old events begin with
FROM_BORDER_DAYS = 8  # parts are dropped whole, so what expires and what stays lie in different weeks, which have parts of their own

# ---- what goes on when it is killed, beside the load


def nothing(server: Server, moments: random.Random) -> None:
    pass


def merge(server: Server, moments: random.Random) -> None:
    for table in ("telemetry_events", "session_context"):
        in_background(server, f"OPTIMIZE TABLE telemetry.{table} FINAL")


def upkeep(server: Server, moments: random.Random) -> None:
    """Attribution and summaries are brought up to date at an orderly end: it is killed in it."""
    os.kill(server.running.pid, signal.SIGTERM)


def migration(server: Server, moments: random.Random) -> None:
    """As after an update: the next start applies every file again, and is killed in it."""
    server.run("INSERT INTO telemetry.schema_migrations (name, checksum) VALUES ('views', 'of another version')")
    server.run("ALTER TABLE telemetry.schema_migrations DELETE WHERE name LIKE '0%' SETTINGS mutations_sync = 2")
    kill(server)
    start_and_kill(server, moments.uniform(0, 0.8))


def retention(server: Server, moments: random.Random) -> None:
    """A start with a shorter retention, under which more has expired, killed in it; then one that is killed while parts are dropped."""
    before = retention_days(server)
    server.environ["SP_TELEMETRY_RETENTION_EVENTS_DAYS"] = str(before - STEP_DAYS if before else YEARS_DAYS)
    kill(server)
    start_and_kill(server, moments.uniform(0, 0.8))
    server.up()
    in_background(server, "ALTER TABLE telemetry.telemetry_events MATERIALIZE TTL")
    merge(server, moments)


ACTIVITIES = (nothing, merge, nothing, migration, nothing, upkeep, nothing, retention)

# ---- events that are older than retention


def retention_days(server: Server) -> int:
    return int(server.environ["SP_TELEMETRY_RETENTION_EVENTS_DAYS"])


def store_aged(server: Server, turns: int) -> dict[str, int]:
    """On both sides of each border that retention will have an event, in a session of its own (-> its age in days). Summaries know them
    afterwards."""
    borders = [YEARS_DAYS - turn * STEP_DAYS for turn in range(turns)]
    ages = {f"{AGED}{age:012}": age for border in borders for age in (border + FROM_BORDER_DAYS, border - FROM_BORDER_DAYS)}
    now = time.time_ns()
    told = [
        {"name": "api_request", "time_ns": now - age * DAY_S * 10**9, "session.id": session, "cost_usd": 0.25, "input_tokens": 1}
        for session, age in ages.items()
    ]
    server.stored("logs", as_protobuf(log_request(told)))
    server.restart()
    return ages


def assert_only_the_expired_are_gone(server: Server, ages: dict[str, int]) -> None:
    """And what is made from events is kept of all."""
    days = retention_days(server)
    young = [[session] for session, age in sorted(ages.items()) if not days or age < days]
    assert young and (len(young) < len(ages) or not days)
    aged = f"WHERE session_id LIKE '{AGED}%' ORDER BY 1"
    left = f"SELECT session_id FROM telemetry.telemetry_events FINAL {aged}"
    assert wait_for(lambda: server.query(left) == young), (days, server.query(left))
    summaries = server.query(f"SELECT session_id, requests, cost_usd FROM telemetry.session_summaries FINAL {aged}")
    assert summaries == [[session, 1, 0.25] for session in sorted(ages)]
    old = "telemetry.usage_hourly FINAL WHERE hour < now() - INTERVAL 7 DAY"
    hours = server.query(f"SELECT count(), sum(requests), sum(cost_usd) FROM {old}")
    assert hours == [[len(ages), len(ages), len(ages) / 4]]


# ---- killed, and looked at afterwards


def kill_often(folder: Path, times: int, activities: tuple[Callable[[Server, random.Random], None], ...] = ACTIVITIES) -> None:
    """Load without a pause, and a kill in the middle of each activity. Prints what it took."""
    moments = random.Random(20261123)
    planned = list(itertools.islice(itertools.cycle(activities), times))
    server = Server(folder).up()
    senders = [Sender(server, session) for session in SESSIONS]
    starts: list[Start] = []
    try:
        ages = store_aged(server, planned.count(retention) + 1)
        for sender in senders:
            sender.start()
        for activity in planned:
            held = sum(len(sender.sent) for sender in senders)
            assert wait_for(lambda held=held: sum(len(sender.sent) for sender in senders) > held, 30, 0.01)
            time.sleep(moments.uniform(0, 0.2))
            activity(server, moments)
            time.sleep(moments.uniform(0, 0.1))
            kill(server)
            begun = time.monotonic()
            server.up()
            starts.append(Start(activity is migration, time.monotonic() - begun, cpu_s(server), busy()))
        assert wait_for(lambda: all(len(sender.sent) >= min(times, 20) for sender in senders), 60)
    except BaseException:
        service.down(server.home)
        raise
    finally:
        for sender in senders:
            sender.stop.set()
        for sender in senders:
            if sender.is_alive():
                sender.join()
    try:
        for sender in senders:
            assert_stored_once(server, sender)
        server.restart()  # an orderly end brings summaries up to date
        assert_consistent(server)
        assert_only_the_expired_are_gone(server, ages)
    finally:
        server.down()
    steps = steps_of_starts(server)
    assert len(steps) > times
    took, used = sorted(start.wall_s for start in starts), sorted(start.cpu_s for start in starts)
    print(
        f"\n{times} kills, {sum(len(sender.sent) for sender in senders)} events acknowledged and stored once; a start takes"
        f" {took[times // 2]:.2f} s (median), {took[-1]:.2f} s at most, {used[times // 2]:.2f} s of CPU (median),"
        f" {used[-1]:.2f} s at most; load {os.getloadavg()[0]:.1f};"
        f" the slowest: {steps[-3:]}"
    )
    assert_quick(starts)


@dataclass
class Start:
    """How long one took on a machine so busy, and what of its cores."""

    whole_schema: bool
    wall_s: float
    cpu_s: float
    busy: float


def assert_quick(starts: list[Start]) -> None:
    """Of CPU, which other programs lengthen little, and by the clock, for what a machine does that is so busy."""
    for start in starts:
        assert max(start.wall_s / start.busy, start.cpu_s / 2) < START_S * (WHOLE_SCHEMA if start.whole_schema else 1), starts
    plain = sorted(start.cpu_s for start in starts if not start.whole_schema)
    assert plain[len(plain) * 3 // 4] < START_S, starts


def assert_stored_once(server: Server, sender: Sender) -> None:
    """Each event and each context. One request may have been committed without its sender having been told."""
    unsure = {sender.number} - set(sender.sent)
    rows = server.query(
        "SELECT event_sequence, cost_usd, count() FROM telemetry.telemetry_events FINAL"
        f" WHERE session_id = '{sender.session}' GROUP BY 1, 2"
    )
    assert {number: cost for number, cost, _ in rows if number not in unsure} == {number: number / 1024 for number in sender.sent}
    assert all(times == 1 for _, _, times in rows)
    contexts = server.query(
        "SELECT toUnixTimestamp64Nano(at) AS at_ns, feature, count() FROM telemetry.session_context FINAL"
        f" WHERE session_id = '{sender.session}' GROUP BY 1, 2 ORDER BY 1"
    )
    told = [[at - 1, f"{number % 3:03}-f", 1] for number, at in sorted(sender.sent.items()) if has_context(number)]
    assert contexts[: len(told)] == told
    assert len(contexts) - len(told) <= sum(map(has_context, unsure))


def assert_consistent(server: Server) -> None:
    """Summaries and attribution are what the events and the contexts say, and no part was given up."""
    measures = "count(), sum(cost_usd), sum(input_tokens)"
    events = f"telemetry.telemetry_events FINAL WHERE session_id NOT LIKE '{AGED}%' GROUP BY 1 ORDER BY 1"
    raw = server.query(f"SELECT session_id, {measures} FROM {events}")
    summaries = f"telemetry.session_summaries FINAL WHERE session_id NOT LIKE '{AGED}%' ORDER BY 1"
    assert server.query(f"SELECT session_id, requests, cost_usd, input_tokens FROM {summaries}") == raw
    assert [row[0] for row in raw] == SESSIONS
    by_feature = server.query(f"SELECT feature, {measures} FROM {events}")
    kept = "sum(requests), sum(cost_usd), sum(input_tokens)"
    hours = "telemetry.usage_hourly FINAL WHERE hour >= now() - INTERVAL 7 DAY GROUP BY 1 ORDER BY 1"
    assert server.query(f"SELECT feature, {kept} FROM {hours}") == by_feature
    wrong = server.query(
        "SELECT count() FROM (SELECT * FROM telemetry.telemetry_events FINAL) AS e"
        " ASOF LEFT JOIN (SELECT * FROM telemetry.session_context FINAL) AS c ON e.session_id = c.session_id AND e.timestamp >= c.at"
        " WHERE e.feature != c.feature"
    )
    assert wrong == [[0]]
    assert_no_part_was_given_up(server)


@pytest.mark.timeout(360)
def test_pitfall_a08_killed_twenty_times_under_load(tmp_path):
    kill_often(tmp_path, 20)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_two_hundred_times_under_load(tmp_path):
    kill_often(tmp_path, 200)

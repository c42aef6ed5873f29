"""The audit's three sets for any history, on the real engine behind a real server, against a plain model in Python."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client.script import Usage
from tests.server import Server
from tests.store.audited import DAY, NOW, Request, Session, named, numbers, performed, running, sets, store
from tests.transcripts import Configuration, identifier

__all__ = ["running"]  # a fixture


histories = st.lists(
    st.lists(
        st.fixed_dictionaries({
            "in_transcript": st.booleans(), "in_telemetry": st.booleans(), "has_id": st.sampled_from([True, True, True, False]),
            "lines": st.integers(1, 3), "copies": st.integers(1, 3),
            "source": st.sampled_from(["sdk", "agent:custom", "generate_session_title"]),
            "gap": st.integers(1, 300),
        }).filter(lambda each: each["in_transcript"] or each["in_telemetry"]),
        min_size=1, max_size=8,
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def _history(drawn: list[list[dict[str, Any]]], forks: list[bool]) -> list[Session]:
    sessions = []
    for requests, fork in zip(drawn, itertools.cycle(forks)):
        of = identifier("history", next(numbers))
        at = NOW - 5 * DAY
        made = []
        for number, each in enumerate(requests):
            at += each["gap"]
            fields = {name: value for name, value in each.items() if name != "gap"}
            usage = Usage(input=number + 1, output=7, cache_read=next(numbers))
            made.append(Request(f"{of[:8]}{number}", at, usage, number=number, **fields))
        sessions.append(Session(of, made, fork))
    return sessions


def _check(running: Server, folder: Path, sessions: list[Session], order: list[int]) -> None:
    configuration = Configuration(folder)
    for session in sessions:
        lines = session.transcript()
        configuration.session(session.id, lines)
        if session.fork and lines:  # everything once more, in a file of a session that did nothing else
            copy = identifier(session.id, "fork")
            queued = {"type": "queue-operation", "timestamp": "2199-01-01T00:00:00.000Z", "sessionId": copy}
            configuration.session(copy, [queued, *(line | {"sessionId": copy} for line in lines)])
    events = [event for session in sessions for event in session.events()]
    shuffled = [events[place % len(events)] for place in order] + events if events else []
    for begin in range(0, len(shuffled), 5):  # duplicates, in another order, and again
        store(running, shuffled[begin : begin + 5])
    done = performed(running, configuration)
    ids = [session.id for session in sessions]
    found = sets(done, *ids)

    def requests(condition: Any) -> dict[str, set[str]]:
        return {session.id: {each.name for each in session.requests if condition(each)} for session in sessions}

    both = requests(lambda each: each.in_transcript and each.in_telemetry)
    only_transcript = requests(lambda each: each.in_transcript and not each.in_telemetry)
    only_telemetry = requests(lambda each: each.in_telemetry and not each.in_transcript)
    for side, expected in (("both", both), ("transcript", only_transcript), ("telemetry", only_telemetry)):
        counted = {of: sum(number for (session, _), number in found[side].items() if session == of) for of in ids}
        assert counted == {of: len(names) for of, names in expected.items()}, side
    assert all(reason == "" for _, reason in found["both"])
    named_missing = {name.lstrip("reqmsg_").lstrip("0") for name in named(done, "transcript", *ids)}
    assert named_missing == {name.lstrip("0") for names in only_transcript.values() for name in names}
    auxiliary = sum(number for (_, reason), number in found["telemetry"].items() if reason == "auxiliary")
    expected_auxiliary = [
        each for session in sessions for each in session.requests
        if each.in_telemetry and not each.in_transcript and each.source == "generate_session_title"
    ]  # fmt: skip
    assert auxiliary == len(expected_auxiliary)
    # each request once: the tokens of both sides are those of what happened
    for side, name in (("telemetry", "in_telemetry"), ("transcript", "in_transcript")):
        tokens = sum(row[f"{side}_tokens"]["cache_read"] for row in done.rows if row["session_id"] in ids)
        assert tokens == sum(each.usage.cache_read for session in sessions for each in session.requests if getattr(each, name))


# Every example takes a second of reading and asking, so there are few here and many in the long form.
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories, st.lists(st.booleans(), min_size=1, max_size=4), st.lists(st.integers(0, 40), max_size=12))
def test_the_three_sets_are_right_for_any_history(running, tmp_path_factory, drawn, forks, order):
    _check(running, tmp_path_factory.mktemp("history"), _history(drawn, forks), order)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories, st.lists(st.booleans(), min_size=1, max_size=4), st.lists(st.integers(0, 40), max_size=12))
def test_the_three_sets_are_right_for_any_history_at_length(running, tmp_path_factory, drawn, forks, order):
    _check(running, tmp_path_factory.mktemp("history"), _history(drawn, forks), order)

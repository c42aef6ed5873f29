"""The audit's three sets for any history of forks, duplicates, late events, backfills, removals and deleted transcripts: on the real engine
behind a real server, against a plain model in Python."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sp_telemetry.transcripts import backfill, files
from tests.client.script import Usage
from tests.server import Server
from tests.store.audited import DAY, NOW, Request, Session, named, numbers, performed, running, sets, store
from tests.transcripts import SECRET, Configuration, identifier

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


class Case:
    """Sessions on both sides, and what happens to them then; `filled`: names of requests that a backfill has filled in."""

    def __init__(self, running: Server, folder: Path, sessions: list[Session]) -> None:
        self.running, self.sessions, self.configuration = running, sessions, Configuration(folder)
        self.ids = [session.id for session in sessions]
        self.filled: set[str] = set()
        self.files: list[Path] = []

    def write_down(self) -> None:
        for session in self.sessions:
            lines = session.transcript()
            self.files.append(self.configuration.session(session.id, lines))
            if session.fork and lines:  # everything once more, in a file of a session that did nothing else
                copy = identifier(session.id, "fork")
                queued = {"type": "queue-operation", "timestamp": "2199-01-01T00:00:00.000Z", "sessionId": copy}
                self.files.append(self.configuration.session(copy, [queued, *(line | {"sessionId": copy} for line in lines)]))

    def send(self, order: list[int]) -> None:
        events = [event for session in self.sessions for event in session.events()]
        shuffled = [events[place % len(events)] for place in order] + events if events else []
        for begin in range(0, len(shuffled), 5):  # duplicates, in another order, and again
            store(self.running, shuffled[begin : begin + 5])

    def names(self, condition: Any) -> dict[str, set[str]]:
        return {session.id: {each.name for each in session.requests if condition(each)} for session in self.sessions}

    # ---- what happens

    def fill(self) -> None:
        backfill.fill(self.running.client, files.machine(SECRET), NOW - 30 * DAY, "Ada")
        missing = self.names(lambda each: each.in_transcript and not each.in_telemetry)
        self.filled = {name for names in missing.values() for name in names}

    def remove(self) -> None:
        backfill.remove(self.running.client, 0.0)
        self.filled = set()

    def arrive(self) -> None:
        """Every second event that never came, after all, and what had come once more."""
        late = [each for session in self.sessions for each in session.requests if not each.in_telemetry][::2]
        for each in late:
            each.in_telemetry = True
        self.filled -= {each.name for each in late}
        self.send([3, 1, 2])

    def delete(self) -> None:
        """Claude Code removes its transcripts. What was read of them stays known."""
        for file in self.files:
            file.unlink(missing_ok=True)

    # ---- what must hold then

    def check(self) -> None:
        done = performed(self.running, self.configuration)
        found = sets(done, *self.ids)
        both = self.names(lambda each: each.in_transcript and each.in_telemetry)
        only_transcript = self.names(lambda each: each.in_transcript and not each.in_telemetry)
        only_telemetry = self.names(lambda each: each.in_telemetry and not each.in_transcript)
        for side, expected in (("both", both), ("transcript", only_transcript), ("telemetry", only_telemetry)):
            counted = {of: sum(number for (session, _), number in found[side].items() if session == of) for of in self.ids}
            assert counted == {of: len(names) for of, names in expected.items()}, side
        assert all(reason == "" for _, reason in found["both"])
        named_missing = {name.lstrip("reqmsg_").lstrip("0") for name in named(done, "transcript", *self.ids)}
        assert named_missing == {name.lstrip("0") for names in only_transcript.values() for name in names}
        filled = Counter[str]()
        for row in done.rows:
            filled[row["session_id"]] += row["requests"] * row["filled"]
        assert {of: filled[of] for of in self.ids} == {of: len(names & self.filled) for of, names in only_transcript.items()}
        requests = [each for session in self.sessions for each in session.requests]
        auxiliary = sum(number for (_, reason), number in found["telemetry"].items() if reason == "auxiliary")
        assert auxiliary == sum(
            each.in_telemetry and not each.in_transcript and each.source == "generate_session_title" for each in requests
        )
        # each request once: the tokens of both sides are those of what happened, and reports count what arrived or was filled in
        for side, name in (("telemetry", "in_telemetry"), ("transcript", "in_transcript")):
            tokens = sum(row[f"{side}_tokens"]["cache_read"] for row in done.rows if row["session_id"] in self.ids)
            assert tokens == sum(each.usage.cache_read for each in requests if getattr(each, name))
        counted = "SELECT sum(cache_read_tokens) FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request'"
        [[tokens]] = self.running.query(f"{counted} AND has({{ids:Array(String)}}, session_id)", ids=self.ids)
        assert tokens == sum(each.usage.cache_read for each in requests if each.in_telemetry or each.name in self.filled)


def _run(running: Server, folder: Path, sessions: list[Session], order: list[int], steps: list[str]) -> None:
    case = Case(running, folder, sessions)
    case.write_down()
    case.send(order)
    case.check()
    for step in steps:
        getattr(case, step)()
        case.check()


# Every step takes a second of reading and asking, so there are few here and many in the long form.
any_history = given(
    histories, st.lists(st.booleans(), min_size=1, max_size=4), st.lists(st.integers(0, 40), max_size=12),
    st.lists(st.sampled_from(["fill", "arrive", "remove", "delete", "fill"]), max_size=3),
)  # fmt: skip
ALIKE = {"in_transcript": True, "lines": 1, "copies": 1, "source": "sdk", "gap": 9}
LATE = [[{**ALIKE, "in_telemetry": number < 1, "has_id": number < 3} for number in range(5)]]


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@example(LATE, [True], [0], ["fill", "arrive", "delete", "remove", "fill"])
@any_history
def test_the_three_sets_are_right_for_any_history(running, tmp_path_factory, drawn, forks, order, steps):
    _run(running, tmp_path_factory.mktemp("history"), _history(drawn, forks), order, steps)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@any_history
def test_the_three_sets_are_right_for_any_history_at_length(running, tmp_path_factory, drawn, forks, order, steps):
    _run(running, tmp_path_factory.mktemp("history"), _history(drawn, forks), order, steps)

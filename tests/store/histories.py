"""Random histories, and a model in plain Python of what a store must say of them: it knows nothing of versions, merges or copies.

A history: sessions with several processes at once, whose numbers begin at 0 each; many events of one millisecond, with or without the
API's ids; contexts that change; all of it delivered in any order, split anyhow, any number of times or never. What the model says at the
end is what every table and the coverage say.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Handle
from tests.server import context

MS, HOUR = 10**6, 3600 * 10**9
WEEK = 7 * 24 * HOUR
SPAN = 2 * WEEK  # longer than the longest history
MONDAY = 1_789_948_800 * 10**9
START = MONDAY - 3 * MS  # each history goes on over midnight into another week, which is another partition
KINDS = ("api_request", "api_request", "api_request", "api_error", "tool_result", "user_prompt", "hook_registered")
WORK = [(feature, chapter) for feature in ("", "017-a", "018-b") for chapter in ("", "33-x")]
STEPS = st.tuples(st.integers(0, 5), st.sampled_from(KINDS), st.integers(0, 4000), st.booleans())
histories = itertools.count()


@dataclass
class Process:
    """One run of the client: whose session it belongs to, and how far its numbers and prompts have come."""

    session: str
    number: int
    events: list[dict[str, Any]] = field(default_factory=list)


class History(RuleBasedStateMachine):
    """What happens, how it arrives, and what must be true at the end. How a store is reached is for those who inherit."""

    def __init__(self) -> None:
        super().__init__()
        self.history = next(histories)
        self.now = START + self.history * SPAN  # no two histories share an hour
        self.begun = time.time()
        self.processes: list[Process] = []
        self.told: list[dict[str, Any]] = []  # everything that happened, as what a sender would send
        self.switched: set[tuple[str, int]] = set()
        self.arrived: Counter[int] = Counter()  # place in `told` -> how often

    # -- what happens

    @initialize(sessions=st.integers(1, 3))
    def begin(self, sessions: int) -> None:
        self.sessions = [str(UUID(int=(self.history + 1) * 100 + number)) for number in range(sessions)]
        for session in self.sessions:
            self.processes.append(Process(session, len(self.processes)))

    @rule(session=st.integers(0, 2))
    def resume(self, session: int) -> None:
        if len(self.processes) < 6:
            self.processes.append(Process(self.sessions[session % len(self.sessions)], len(self.processes)))

    @rule(events=st.lists(STEPS, min_size=1, max_size=12), pause=st.sampled_from([0, 0, MS, 5 * MS, HOUR // 2]), together=st.booleans())
    def work(self, events: list[tuple[int, str, int, bool]], pause: int, together: bool) -> None:
        """All of one millisecond. Of a session's processes each may do the same at once."""
        self.now += pause
        each = [(place, *events[0][1:]) for place in range(len(self.processes))] if together else []
        for chosen, kind, size, identified in [*events, *each]:
            process = self.processes[chosen % len(self.processes)]
            number = len(process.events)
            event = {"name": kind, "time_ns": self.now, "session.id": process.session, "event.sequence": number,
                     "prompt.id": str(UUID(int=self.history * 1000 + process.number))}  # fmt: skip
            if kind == "api_request":
                event |= {"cost_usd": size / 1024, "input_tokens": size, "output_tokens": 2, "model": "m"}
            if identified and kind.startswith("api_"):
                event["request_id"] = f"req_{self.history:06}{process.number:03}{number:06}"
            process.events.append(event)
            self.told.append(event)

    @rule(session=st.integers(0, 2), back=st.integers(0, 40), what=st.sampled_from(WORK))
    def switch(self, session: int, back: int, what: tuple[str, str]) -> None:
        """Now, or at the very moment of one of the last events: hooks and events travel by ways of their own."""
        of = self.sessions[session % len(self.sessions)]
        moments = [self.now, *(told["time_ns"] for told in self.told if told["name"] != "sp_telemetry.context")][::-1]
        at = moments[back % len(moments)]
        while (of, at) in self.switched:  # hooks give each record its own nanosecond
            at += 1
        self.switched.add((of, at))
        self.told.append(context(of, at, feature=what[0], chapter=what[1]))

    # -- how it arrives

    @precondition(lambda self: self.told)
    @rule(data=st.data(), path=st.integers(0, 9), requests=st.integers(1, 3))
    def deliver(self, data: st.DataObject, path: int, requests: int) -> None:
        """Anything that has happened, in any order, whether it has arrived before or not, in some requests."""
        place = st.integers(0, len(self.told) - 1)
        places = data.draw(st.lists(place, min_size=1, max_size=25))
        for request in range(requests):
            if part := places[request::requests]:
                self.send(path, [self.told[place] for place in part])
                self.arrived.update(part)

    @precondition(lambda self: self.told)
    @rule(path=st.integers(0, 9), skipped=st.integers(2, 9))
    def deliver_nearly_all(self, path: int, skipped: int) -> None:
        part = [place for place in range(len(self.told)) if place % skipped]
        if part:
            self.send(path, [self.told[place] for place in part])
            self.arrived.update(part)

    # -- the store: whoever inherits has one

    send: Callable[[int, list[dict[str, Any]]], None]  # let these arrive in one request, by one of the ways there are (the number)
    bring_up_to_date: Callable[[], None]  # attribution and summaries
    check_copies: Callable[[list[dict[str, Any]]], None]  # whether it knows how many of all were copies; each of these came once or more
    query: Callable[[str, dict[str, str]], list[dict[str, Any]]]  # a shipped query, with its parameters
    ask: Callable[[str], list[list[Any]]]

    # -- what must be true at the end

    def teardown(self) -> None:
        if not self.arrived:
            return
        self.bring_up_to_date()
        events = [self.told[place] for place in sorted(self.arrived) if self.told[place]["name"] != "sp_telemetry.context"]
        assert self.rows("telemetry_events", "session_id, event_type, feature, chapter_context", SUMS) == sums(
            events, lambda event: (event["session.id"], event["name"], *self.working_on(event))
        )
        self.check_hours(events)
        self.check_sessions(events)
        for session in self.sessions:
            assert self.coverage(session) == gaps([event["event.sequence"] for event in events if event["session.id"] == session])
        self.check_copies(events)

    def working_on(self, event: dict[str, Any]) -> tuple[str, str]:
        """Of all contexts that have arrived, the session's last before the event."""
        known = [
            told
            for place in self.arrived
            if (told := self.told[place])["name"] == "sp_telemetry.context"
            and told["session.id"] == event["session.id"]
            and told["time_ns"] <= event["time_ns"]
        ]
        last = max(known, key=lambda told: told["time_ns"], default={})
        return last.get("context.feature", ""), last.get("context.chapter", "")

    def check_hours(self, events: list[dict[str, Any]]) -> None:
        counted = [event for event in events if event["name"] == "api_request"]
        hour = "toUnixTimestamp(hour), feature, chapter_context"
        kept = "sum(requests), sum(cost_usd), sum(input_tokens), sum(output_tokens)"
        first, last = START + self.history * SPAN, START + (self.history + 1) * SPAN
        chosen = f"hour >= fromUnixTimestamp({first // HOUR * HOUR // 10**9}) AND hour < fromUnixTimestamp({last // HOUR * HOUR // 10**9})"
        found = self.ask(f"SELECT {hour}, {kept} FROM telemetry.usage_hourly FINAL WHERE {chosen} GROUP BY ALL HAVING sum(requests) > 0")
        assert {tuple(row[:3]): row[3:] for row in found} == sums(
            counted, lambda event: (event["time_ns"] // HOUR * 3600, *self.working_on(event))
        )

    def check_sessions(self, events: list[dict[str, Any]]) -> None:
        wanted = {}
        for session in {event["session.id"] for event in events}:
            own = [event for event in events if event["session.id"] == session]
            kinds = Counter(event["name"] for event in own)
            times = [event["time_ns"] for event in own]
            named = [set(filter(None, names)) for names in zip(*map(self.working_on, own), strict=True)]
            cost = sum(event.get("cost_usd", 0) for event in own)
            wanted[session] = [
                kinds["api_request"], kinds["api_error"], kinds["tool_result"], kinds["user_prompt"], len(own), cost,
                min(times), max(times), *map(sorted, named),
            ]  # fmt: skip
        columns = (
            "session_id, requests, api_errors, tool_calls, prompts, events, cost_usd,"
            " toUnixTimestamp64Nano(started_at), toUnixTimestamp64Nano(ended_at), features, chapters"
        )
        found = self.ask(f"SELECT {columns} FROM telemetry.session_summaries FINAL WHERE session_id IN {self.chosen}")
        assert {row[0]: row[1:] for row in found} == wanted

    def coverage(self, session: str) -> tuple[int, int]:
        """(received, gaps), as they stand under a report."""
        asked = {"from": "2020-01-01", "to": "", "tz": "UTC", "user": "", "session": session, "chapter": "", "feature": ""}
        [row] = self.query(COVERAGE, asked) or [{"received": 0, "gaps": 0}]
        return int(row["received"] or 0), int(row["gaps"] or 0)

    @property
    def chosen(self) -> tuple[str, ...]:
        return (*self.sessions, "")

    def rows(self, table: str, group: str, measures: str) -> dict[tuple, list]:
        found = self.ask(f"SELECT {group}, {measures} FROM telemetry.{table} FINAL WHERE session_id IN {self.chosen} GROUP BY {group}")
        width = len(group.split(","))
        return {tuple(row[:width]): row[width:] for row in found}


class OnHandle(History):
    """A history whose store is asked, and brought up to date, through a handle of this process."""

    def __init__(self, handle: Handle) -> None:
        super().__init__()
        self.handle = handle

    @rule(attribute=st.booleans(), summarise=st.booleans(), merge=st.booleans())
    def keep_up(self, attribute: bool, summarise: bool, merge: bool) -> None:
        if attribute:
            maintenance.reattribute(self.handle, self.begun - 1)
        if summarise:
            maintenance.summarise(self.handle)
        if merge:
            for table in ("telemetry_events", "session_context", "session_summaries", "usage_hourly"):
                self.handle.run(f"OPTIMIZE TABLE telemetry.{table} FINAL")

    def bring_up_to_date(self) -> None:
        maintenance.reattribute(self.handle, self.begun - 1)
        maintenance.summarise(self.handle)

    def check_copies(self, events: list[dict[str, Any]]) -> None:
        """What was committed minus the new ones is how many came more than once."""
        assert maintenance.figures(self.handle, self.begun)["events_new"] == len(events)

    def query(self, sql: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.handle.query(sql, "JSONEachRow", parameters).splitlines()]

    def ask(self, sql: str) -> list[list[Any]]:
        text = self.handle.query(f"{sql} SETTINGS output_format_json_quote_64bit_integers = 0", "JSONCompactEachRow")
        return [json.loads(line) for line in text.splitlines()]


SUMS = "count(), sum(cost_usd), sum(input_tokens), sum(output_tokens)"
COVERAGE = (schema.folder().parent / "queries" / "coverage.sql").read_text()


def sums(events: list[dict[str, Any]], key: Any) -> dict[tuple, list]:
    found: dict[tuple, list] = defaultdict(lambda: [0, 0.0, 0, 0])
    for event in events:
        held = found[key(event)]
        held[0] += 1
        for place, name in enumerate(("cost_usd", "input_tokens", "output_tokens"), 1):
            held[place] += event.get(name, 0)
    return dict(found)


def gaps(numbers: list[int]) -> tuple[int, int]:
    """(received, missing): the second event with a number is one of a second process, whose numbers begin at 0 too. Up to the first
    number that is not believed, for more would be missing below it than 100,000, and than a thousand times of what arrived from it on."""
    times = Counter(numbers)
    missing = 0
    for process in range(max(times.values(), default=0)):
        own = sorted(number for number in times if times[number] > process)
        for place, (before, number) in enumerate(itertools.pairwise([-1, *own])):
            if number - before - 1 > max(100_000, 1000 * (len(own) - place)):
                break
            missing += number - before - 1
    return len(numbers), missing


def whole_histories(examples: int, steps: int) -> settings:
    """What fails is shown as it is: to find a smaller one takes as many stores' work as a hundred histories."""
    every = list(HealthCheck)
    return settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=every, phases=[Phase.generate])

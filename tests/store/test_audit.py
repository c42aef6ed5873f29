"""The audit's three sets and its reasons, on the real engine behind a real server, against a plain model in Python."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sp_telemetry.transcripts import audit, summary
from sp_telemetry.transcripts.audit import Audit
from tests.client.script import Usage
from tests.server import JSON, Server, as_json, log_request, server
from tests.transcripts import SECRET, Configuration, answer, identifier, prompt

NOW = time.time()
DAY = 86400
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("audited")) as started:
        # as if it had run for the last ten days, but for an hour eight days ago
        times = [(NOW - 10 * DAY, NOW - 8 * DAY), (NOW - 8 * DAY + 3600, NOW - 10)]
        values = ", ".join(f"('x', {begin:.3f}, {end:.3f}, true)" for begin, end in times)
        started.run(f"INSERT INTO telemetry.server_runs (server, started_at, seen_at, ended) VALUES {values}")
        yield started


@dataclass
class Request:
    """One call to the API, and which side knows of it."""

    name: str
    at: float
    usage: Usage
    in_transcript: bool = True
    in_telemetry: bool = True
    has_id: bool = True
    lines: int = 1
    copies: int = 1  # of its event
    source: str = "sdk"
    prompt: str = "p"
    number: int = 0


@dataclass
class Session:
    """A history: what happened, from which both sides are made."""

    id: str
    requests: list[Request]
    fork: bool = False
    sent: list[dict[str, Any]] = field(default_factory=list)

    def transcript(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for request in self.requests:
            if request.in_transcript:
                lines.append(prompt(self.id, request.prompt, request.at - 0.5))
                ids = {} if request.has_id else {"request_id": ""}
                for block in range(request.lines):
                    lines.append(answer(self.id, request.name, request.at + block / 1000, request.usage, block=block, **ids))
        return lines

    def events(self) -> list[dict[str, Any]]:
        made = []
        for request in self.requests:
            if not request.in_telemetry:
                continue
            usage = request.usage
            event = {
                "name": "api_request", "time_ns": int(request.at * 1e9) + 3_000_000, "event.sequence": request.number,
                "session.id": self.id, "prompt.id": identifier(self.id, request.prompt),
                "model": "claude-sonnet-4-5", "query_source": request.source,
                "input_tokens": usage.input, "output_tokens": usage.output, "cache_read_tokens": usage.cache_read,
                "cache_creation_tokens": usage.cache_write_5m + usage.cache_write_1h, "cost_usd": 1.0,
            }  # fmt: skip
            if request.has_id:
                event["request_id"] = f"req_{request.name:0>12}"
            made += [event] * request.copies
        return made


def performed(running: Server, configuration: Configuration, *, session: str = "", start: str = "", loses: bool = False) -> Audit:
    read = configuration.bring(running.client)
    begin = start or time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(NOW - 30 * DAY))
    asked = {"start": begin, "end": "", "tz": "UTC", "session": session}
    return audit.audit(running.client, configuration.found(), read, **asked, loses=lambda version: loses)


def sets(done: Audit, *sessions: str) -> dict[str, Counter]:
    """side -> session and reason -> requests."""
    found: dict[str, Counter] = {"both": Counter(), "telemetry": Counter(), "transcript": Counter()}
    for row in done.rows:
        if row["session_id"] in sessions:
            found[row["side"]][row["session_id"], row["reason"]] += row["requests"]
    return found


def named(done: Audit, side: str, *sessions: str) -> set[str]:
    """The ids of the requests that the audit names."""
    return {
        detail["request_id"] or detail["message_id"]
        for row in done.rows
        if row["side"] == side and row["session_id"] in sessions
        for detail in row["details"]
    }


def store(running: Server, events: list[dict[str, Any]]) -> None:
    if events:
        running.stored("logs", as_json(log_request(events)), JSON)


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


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path)


@pytest.fixture
def of(request: pytest.FixtureRequest) -> str:
    return identifier(request.node.nodeid)


def _session(of: str, at: float, count: int, **each: Any) -> Session:
    return Session(of, [
        Request(f"{of[:8]}{number}", at + number * 60, Usage(input=number + 1, output=7, cache_read=next(numbers)), number=number, **each)
        for number in range(count)
    ])  # fmt: skip


def _reasons(running: Server, configuration: Configuration, session: Session, **more: Any) -> tuple[Audit, dict[str, Counter]]:
    lines = session.transcript()
    if lines:
        configuration.session(session.id, lines)
    store(running, session.events())
    done = performed(running, configuration, session=session.id, **more)
    found = sets(done, session.id)
    return done, {side: Counter({reason: number for (_, reason), number in counted.items()}) for side, counted in found.items()}


def test_a_clean_session(running, configuration, of):
    done, found = _reasons(running, configuration, _session(of, NOW - 5 * DAY, 4, copies=2))
    assert found == {"both": Counter({"": 4}), "telemetry": Counter(), "transcript": Counter()}
    assert (done.missing, done.unexplained, done.differing) == (0, 0, 0)
    assert summary.line(done).startswith("4 of 4 requests in both · 0 missing · cost differs by")


def test_pitfall_08_auxiliary_requests_only_in_telemetry_are_clean(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 5)
    for request in session.requests[3:]:
        request.in_transcript, request.source = False, "generate_session_title"
    done, found = _reasons(running, configuration, session)
    assert found == {"both": Counter({"": 3}), "telemetry": Counter(auxiliary=2), "transcript": Counter()}
    assert not (done.missing or done.unexplained)
    assert "2 auxiliary only in telemetry · 0 missing" in summary.line(done)


def test_a_request_of_the_conversation_that_its_transcript_lacks_is_no_auxiliary_one(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 3)
    session.requests[1].in_transcript = False
    done, found = _reasons(running, configuration, session)
    assert found["telemetry"] == Counter(unknown=1)
    assert not done.clean


def test_without_a_transcript_there_is_nothing_to_hold_against(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 3)
    for request in session.requests:
        request.in_transcript = False
    done, found = _reasons(running, configuration, session)
    assert found == {"both": Counter(), "telemetry": Counter({"transcript deleted": 3}), "transcript": Counter()}
    assert done.clean


def test_what_came_after_the_last_reading_of_a_deleted_transcript(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 4)
    early = Session(of, session.requests[:2])
    path = configuration.session(of, early.transcript())
    configuration.bring(running.client)
    path.unlink()
    store(running, session.events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["both"] == Counter({(of, ""): 2})
    assert sets(done, of)["telemetry"] == Counter({(of, "transcript deleted"): 2})


def test_telemetry_off(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 6)
    for request in session.requests[2:4]:  # a process of its own, with prompts of its own, and no event
        request.in_telemetry, request.prompt = False, f"q{request.number}"
    session.requests[4].number, session.requests[5].number = 0, 1  # the next process begins its numbers again
    done, found = _reasons(running, configuration, session)
    assert found["transcript"] == Counter({"telemetry off then": 2})
    assert (done.missing, done.clean) == (2, False)
    assert "2 missing" in summary.line(done)
    assert f"session {of}" in summary.text(done)


def test_server_down(running, configuration, of):
    session = _session(of, NOW - 8 * DAY - 150, 8)  # the server ended 150 s later
    for request in session.requests[2:]:
        request.in_telemetry = False
    _, found = _reasons(running, configuration, session)
    assert found["both"] == Counter({"": 2})
    # the third is from 30 s before the end: its event was lost in another way
    assert found["transcript"] == Counter({"server down then": 5, "unknown": 1})


def test_a_gap_in_the_numbers(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 6)
    for request in session.requests[2:4]:
        request.in_telemetry = False
    done, found = _reasons(running, configuration, session)
    assert found["transcript"] == Counter({"sequence gap": 2})
    assert (done.numbers["gaps"], done.numbers["expected"]) == (2, 6)


def test_a_version_that_is_known_to_lose_events(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 4)
    session.requests[3].in_telemetry = False  # the last: no number tells of it
    assert _reasons(running, configuration, session)[1]["transcript"] == Counter(unknown=1)
    assert _reasons(running, configuration, session, loses=True)[1]["transcript"] == Counter({"version known to misreport": 1})


def test_what_is_young_is_under_way(running, configuration, of):
    session = Session(of, [Request(f"{of[:8]}1", time.time() - 5, Usage(input=1, output=2), in_telemetry=False)])
    done, found = _reasons(running, configuration, session)
    assert found["transcript"] == Counter({"not yet exported": 1})
    assert (done.missing, done.pending, done.clean) == (0, 1, True)
    assert "1 not yet exported · 0 missing" in summary.line(done)


def test_tokens_that_differ_are_named_request_by_request(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 3)
    configuration.session(of, session.transcript())
    session.requests[1].usage = Usage(input=2, output=99)
    store(running, session.events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["both"] == Counter({(of, ""): 2, (of, "tokens differ"): 1})
    assert named(done, "both", of) >= {f"req_{session.requests[1].name:0>12}"}
    assert (done.differing, done.clean) == (1, False)


def test_requests_without_ids_are_matched_by_their_tokens_and_time(running, configuration, of):
    """Also equal ones, as often as they are there on both sides."""
    same = Usage(input=5, output=5)
    requests = [Request(f"{of[:8]}{n}", NOW - 5 * DAY + n * 100, same, has_id=False, number=n) for n in range(5)]
    requests[2].in_telemetry = False
    requests[4].in_transcript = False
    done, found = _reasons(running, configuration, Session(of, requests))
    assert {side: sum(counts.values()) for side, counts in found.items()} == {"both": 3, "telemetry": 1, "transcript": 1}
    assert named(done, "transcript", of) == {f"msg_{requests[2].name:0>12}"}


def test_equal_requests_with_other_ids_are_not_the_same(running, configuration, of):
    same = Usage(input=5, output=5)
    requests = [Request(f"{of[:8]}{n}", NOW - 5 * DAY + n, same, in_telemetry=n == 0, in_transcript=n == 1, number=n) for n in range(2)]
    _, found = _reasons(running, configuration, Session(of, requests))
    assert {side: sum(counts.values()) for side, counts in found.items()} == {"both": 0, "telemetry": 1, "transcript": 1}


def test_several_attempts_that_the_event_does_not_tell_of_are_said_so(running, configuration, of):
    attempts = [{"input_tokens": 3, "output_tokens": 1}, {"input_tokens": 4, "output_tokens": 30}]
    line = answer(of, f"{of[:8]}1", NOW - 5 * DAY, {**Usage(input=4, output=30).wire(), "iterations": attempts})
    configuration.session(of, [line])
    store(running, Session(of, [Request(f"{of[:8]}1", NOW - 5 * DAY, Usage(input=4, output=30))]).events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["both"] == Counter({(of, "billed for several attempts"): 1})
    assert [row["transcript_tokens"]["input"] for row in done.rows] == [7]


def _command(running: Server, configuration: Configuration, *arguments: str) -> subprocess.CompletedProcess:
    environ = {**running.environ, **configuration.environ, "SP_TELEMETRY_HOME": str(running.home.path)}
    command = [sys.executable, "-m", "sp_telemetry.cli.main", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def test_the_command_its_line_its_json_and_its_exit_code(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 4)
    session.requests[2].in_telemetry = False
    configuration.session(of, session.transcript())
    store(running, session.events())
    done = _command(running, configuration, "audit", "--session", of)
    assert done.returncode == 1, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("3 of 4 requests in both · 1 missing · cost differs by $")
    assert any(line.startswith("only in transcripts: 1 sequence gap") for line in rest)
    told = json.loads(_command(running, configuration, "audit", "--session", of, "--json").stdout)
    assert (told["both"], told["missing"], told["clean"], told["reasons"]["transcript"]) == (3, 1, False, {"sequence gap": 1})
    store(running, Session(of, [Request(**{**session.requests[2].__dict__, "in_telemetry": True})]).events())  # it comes after all
    again = json.loads(_command(running, configuration, "audit", "--session", of, "--json").stdout)
    assert (again["both"], again["missing"], again["sequence"]["gaps"]) == (4, 0, 0)
    assert again["transcripts"]["read"] == 0


def test_what_the_command_refuses(running, configuration, tmp_path):
    empty = Configuration(tmp_path / "empty")
    assert _command(running, empty, "audit", "--since", "yesterday").returncode == 2
    assert _command(running, empty, "audit", "--since", "1d", "--from", "2026-01-01").returncode == 2
    nothing = _command(running, empty, "audit", "--session", identifier("nobody"))
    assert (nothing.returncode, nothing.stdout) == (6, "")
    assert "neither in telemetry nor in transcripts" in nothing.stderr
    away = subprocess.run(
        [sys.executable, "-m", "sp_telemetry.cli.main", "audit"],
        env={**running.environ, **empty.environ, "SP_TELEMETRY_HOME": str(tmp_path / "home"), "SP_TELEMETRY_URL": "http://127.0.0.1:9"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert away.returncode == 3


def test_the_secret_of_the_ids_is_its_own(running, configuration, of):
    """Another machine's secret gives other ids, so two machines that read the same path do not disturb each other."""
    from sp_telemetry.transcripts import files

    configuration.session(of, _session(of, NOW - 5 * DAY, 1).transcript())
    mine, theirs = (files.find(configuration.environ, secret).files[0] for secret in (SECRET, "another"))
    assert mine.file_id != theirs.file_id and mine.folder_id != theirs.folder_id
    assert files.machine(SECRET) != files.machine("another")


def test_it_is_a_report_as_well_as_a_command(running, configuration, of):
    """So `/telemetry-report audit` is answered in a session: the plugin hands its arguments to `report`."""
    session = _session(of, NOW - 5 * DAY, 3)
    configuration.session(of, session.transcript())
    store(running, session.events())
    done = _command(running, configuration, "report", "audit", "--session", of, "--format", "text")
    assert done.stdout.startswith("3 of 3 requests in both · 0 missing"), done.stderr
    assert json.loads(_command(running, configuration, "report", "audit", "--session", of, "--json").stdout)["both"] == 3
    refused = _command(running, configuration, "report", "audit", "--by", "day")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--since" in refused.stderr


def _report(running: Server, configuration: Configuration, name: str, *arguments: str) -> dict[str, Any]:
    done = _command(running, configuration, "report", name, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_an_audit_found_stands_under_reports(running, configuration, of):
    session = _session(of, NOW - 5 * DAY, 5)
    for request in session.requests[3:]:  # the last: no number tells that they are missing
        request.in_telemetry = False
    configuration.session(of, session.transcript())
    store(running, session.events())
    before = _report(running, configuration, "cost", "--session", of)["coverage"]
    assert (before["audited_sessions"], before["missing_requests"], before["gaps"]) == (0, 0, 0)
    performed(running, configuration)
    after = _report(running, configuration, "cost", "--session", of)["coverage"]
    assert (after["audited_sessions"], after["audited_requests"], after["missing_requests"]) == (1, 5, 2)
    text = " ".join(_command(running, configuration, "report", "cost", "--session", of).stdout.split())
    assert "2 of 5 requests missing by the audit of 20" in text


def test_sessions_that_go_on_from_one_another_are_one_piece_of_work(running, configuration, of):
    """Counted once, under the first one's id, with the link shown; turns, cost, time active and what ended it."""
    fork = identifier(of, "fork")
    first, second = _session(of, NOW - 5 * DAY, 3), _session(fork, NOW - 5 * DAY + 3600, 2)
    lines = first.transcript()
    queued = {"type": "queue-operation", "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(NOW - 5 * DAY + 3599))}
    configuration.session(of, lines)
    configuration.session(fork, [queued, *(line | {"sessionId": fork} for line in lines), *second.transcript()])
    configuration.bring(running.client)
    audit.link(running.client)
    asked = {"name": "user_prompt", "time_ns": int(NOW - 5 * DAY - 1) * 10**9, "session.id": of, "event.sequence": 9}
    failed = {"name": "api_error", "time_ns": int(NOW - 5 * DAY + 3800) * 10**9, "session.id": fork, "event.sequence": 9}
    store(running, [*first.events(), *second.events(), asked, failed])
    told = _report(running, configuration, "sessions", "--session", of)
    [row] = told["rows"]
    assert (row["session"], row["sessions"], row["requests"], row["prompts"], row["cost_usd"]) == (of, 2, 5, 1, 5)
    assert (row["joined"], row["ended_by"]) == ("1 forked", "error")
    assert row["active_ms"] in (5 * 60000, 6 * 60000, 7 * 60000)  # of more than an hour
    assert row["elapsed_ms"] > 3600 * 1000
    assert told["total"]["requests"] == 5
    [alone] = _report(running, configuration, "sessions", "--session", fork)["rows"]
    assert (alone["requests"], alone["ended_by"]) == (2, "error")
    table = _command(running, configuration, "report", "sessions", "--session", of).stdout
    assert all(word in table.splitlines()[0] for word in ("cost", "prompts", "active", "ended by"))

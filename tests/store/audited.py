"""A history of requests, from which both sides of an audit are made: for the tests of it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.transcripts import audit
from sp_telemetry.transcripts.audit import Audit
from tests.client.script import Usage
from tests.server import JSON, Server, as_json, log_request, server
from tests.transcripts import Configuration, answer, identifier, prompt

NOW = time.time()
DAY = 86400
numbers = itertools.count(1)


@contextmanager
def audited_server(folder: Path) -> Iterator[Server]:
    """A server as if it had run for the last ten days, but for an hour eight days ago."""
    with server(folder) as started:
        times = [(NOW - 10 * DAY, NOW - 8 * DAY), (NOW - 8 * DAY + 3600, NOW - 10)]
        values = ", ".join(f"('x', {begin:.3f}, {end:.3f}, true)" for begin, end in times)
        started.run(f"INSERT INTO telemetry.server_runs (server, started_at, seen_at, ended) VALUES {values}")
        yield started


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with audited_server(tmp_path_factory.mktemp("audited")) as started:
        yield started


@pytest.fixture
def of(request: pytest.FixtureRequest) -> str:
    return identifier(request.node.nodeid)


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


def made(of: str, at: float, count: int, **each: Any) -> Session:
    return Session(of, [
        Request(f"{of[:8]}{number}", at + number * 60, Usage(input=number + 1, output=7, cache_read=next(numbers)), number=number, **each)
        for number in range(count)
    ])  # fmt: skip


def reasons(running: Server, configuration: Configuration, session: Session, **more: Any) -> tuple[Audit, dict[str, Counter]]:
    lines = session.transcript()
    if lines:
        configuration.session(session.id, lines)
    store(running, session.events())
    done = performed(running, configuration, session=session.id, **more)
    found = sets(done, session.id)
    return done, {side: Counter({reason: number for (_, reason), number in counted.items()}) for side, counted in found.items()}


def called(running: Server, configuration: Configuration, *arguments: str) -> subprocess.CompletedProcess:
    """`sp-telemetry` with these arguments, of the server's home and of the configuration's transcripts."""
    environ = {**running.environ, **configuration.environ, "SP_TELEMETRY_HOME": str(running.home.path)}
    command = [sys.executable, "-m", "sp_telemetry.cli.main", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def reported(running: Server, configuration: Configuration, name: str, *arguments: str) -> dict[str, Any]:
    """What a report says with --json."""
    done = called(running, configuration, "report", name, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

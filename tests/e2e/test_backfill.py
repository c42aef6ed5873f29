"""Backfill with the real client: the server is away for half a session, transcripts fill the gap, the originals come late."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.store.client import connect
from tests.client import VERSIONS, ClaudeCode, MessagesApi, OtlpRecorder, Reply, Run, Script, ToolUse, executable
from tests.client.install import NEWEST, OLDEST, ClientUnavailable
from tests.conftest import ROOT, require
from tests.e2e.test_setup import machine_in
from tests.server import Server, server, wait_for

pytestmark = [pytest.mark.needs("npm", "git")]
BRANCH = "017-usage-data-collection"
CHAPTER = "manuscript/05-part/33-agents"


@dataclass
class Place:
    """A book, a client, a server, and somebody who keeps what is exported while it is away."""

    client: ClaudeCode
    store: Server
    otlp: OtlpRecorder
    book: Path

    def ask(self, prompt: str, url: str, **more: Any) -> Run:
        environment = self.otlp.environment(traces=False) | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_RESOURCE_ATTRIBUTES": "enduser.id=Ada",
        }
        run = self.client.run(prompt, cwd=self.book / CHAPTER, env=environment, **more)
        assert run.returncode == 0, run.stdout + run.stderr
        return run

    def command(self, *arguments: str) -> Any:
        done = self.store.command(*arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def audit(self, code: int = 0) -> Any:
        done = self.store.command("audit", "--json", "--grace", "0")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def state(self) -> list[list[Any]]:
        """Everything that reports are made from: events, and the sums over them in every table."""
        return [
            self.store.query("SELECT * EXCEPT (received_at, version) FROM telemetry_events FINAL ORDER BY timestamp, event_id"),
            self.store.query("SELECT sum(requests), sum(cost_usd) FROM usage_hourly FINAL"),
            self.store.query("SELECT requests, cost_usd FROM session_summaries FINAL ORDER BY session_id"),
        ]


@pytest.fixture(params=VERSIONS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    try:
        binary = executable(request.param)
    except ClientUnavailable as reason:
        require(False, str(reason))
    book = tmp_path / "book"
    (book / CHAPTER).mkdir(parents=True)
    (book / CHAPTER / "text.md").write_text("text\n")
    for command in (("init", "-qb", "main"), ("add", "."), ("-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "-qm", "x"),
                    ("switch", "-qc", BRANCH)):  # fmt: skip
        subprocess.run(["git", *command], cwd=book, check=True)
    read = Reply("1", ToolUse("Read", file_path=str(book / CHAPTER / "text.md")))
    agent = Reply("2", ToolUse("Agent", description="look", prompt="look around", subagent_type="general-purpose"))
    script = Script(cache="1h").on("first half", read, Reply("so far")).on("second half", read, agent, Reply("done"))
    script.on("look around", read, Reply("looked"))
    with MessagesApi(script) as api, OtlpRecorder(grpc=False) as otlp:
        client = ClaudeCode(binary, tmp_path / "home", api.url)
        with server(tmp_path / "sp", CLAUDE_CONFIG_DIR=str(client.config), HOME=str(tmp_path), SP_TELEMETRY_PERSON="Ada") as store:
            yield Place(client, store, otlp, book)


def test_what_was_missed_is_filled_in_once_and_gives_way_to_the_original(place: Place) -> None:
    store = place.store
    first = place.ask("first half", f"http://127.0.0.1:{store.ports['otlp_http']}")
    said = store.says()
    store.down()
    second = place.ask("second half", place.otlp.http_url, resume=first.session_id)  # what it exports now is kept for later
    store.up()
    assert second.session_id == first.session_id
    cost = second.result["total_cost_usd"]
    if place.client.executable.find(OLDEST) > 0:  # newer ones go on counting where the session was left
        cost += first.result["total_cost_usd"]
    lost = {row["request_id"] for row in events_of(place.otlp) if row["event.name"] == "api_request"}
    reported = {row[0] for row in store.query("SELECT request_id FROM telemetry_events WHERE event_type = 'api_request'")}
    assert lost and reported and not lost & reported, (lost, reported, said, store.says())

    # Audit says exactly which are missing.
    audit = place.audit(code=1)
    assert (audit["both"], audit["missing"], audit["filled"]) == (len(reported), len(lost), 0)
    named = {detail["request_id"] for row in audit["rows"] if row["side"] == "transcript" for detail in row["details"]}
    assert named == lost
    assert audit["reasons"]["transcript"] == {"server down then": len(lost)}

    # Backfill fills them in; a dry run says the same and does nothing.
    before = place.state()
    planned = place.command("backfill", "--dry-run")["filled"]
    assert place.state() == before
    filled = place.command("backfill")["filled"]
    assert filled == planned
    assert (filled["requests"], filled["sessions"], filled["unpriced_requests"]) == (len(lost), 1, 0)
    assert sum_of(place) == (len(lost) + len(reported), pytest.approx(cost, abs=1e-9))
    audit = place.audit()
    assert (audit["clean"], audit["both"], audit["missing"], audit["filled"]) == (True, len(reported), 0, len(lost))
    rows = store.query("""
        SELECT DISTINCT user_id, installation_id != '', feature, chapter_context, part, branch, context_source, context_confidence <= 0.5,
            attributes['cost_source'], service_version
        FROM telemetry_events FINAL WHERE source = 'transcript'""")
    assert rows == [["Ada", True, BRANCH, "33-agents", "05-part", BRANCH, "feature:transcript branch chapter:transcript cwd", True,
                     "computed", version_of(place)]]  # fmt: skip
    assert {row[0] for row in store.query("SELECT request_id FROM telemetry_events FINAL WHERE source = 'transcript'")} == lost

    # Again: nothing changes.
    full = place.state()
    assert place.command("backfill")["filled"]["requests"] == 0
    assert place.state() == full

    # The originals arrive late, twice: each takes its row's place, and no sum changes.
    by_context = contexts_of(place)
    late = place.otlp.of("logs")
    for request in (*late, *late):
        store.stored("logs", request.body, request.content_type)
    assert sum_of(place) == (len(lost) + len(reported), pytest.approx(cost, abs=1e-9))
    assert store.query("SELECT count() FROM telemetry_events FINAL WHERE source = 'transcript'") == [[0]]
    assert contexts_of(place) == by_context
    audit = place.audit()
    assert (audit["clean"], audit["both"], audit["filled"]) == (True, len(lost) + len(reported), 0)
    assert place.command("backfill")["filled"]["requests"] == 0
    assert sum_of(place) == (len(lost) + len(reported), pytest.approx(cost, abs=1e-9))


def test_what_was_filled_in_can_be_taken_back(place: Place) -> None:
    place.ask("second half", place.otlp.http_url)
    empty = place.state()
    filled = place.command("backfill")["filled"]
    assert filled["requests"] > 3
    assert sum_of(place) == (filled["requests"], pytest.approx(filled["cost_usd"]))
    assert place.command("backfill", "--remove", "--dry-run")["removed"] == filled
    assert place.command("backfill", "--remove")["removed"] == filled
    assert place.state() == empty
    assert place.command("backfill")["filled"] == filled  # and filled in again


def sum_of(place: Place) -> tuple[int, float]:
    """Requests and cost, which must be the same in the events and in both derived tables."""
    place.store.query("SELECT 1")
    sums = {
        tuple(round(float(value), 9) for value in place.store.query(f"SELECT {count}, sum(cost_usd) FROM {table} FINAL WHERE {which}")[0])
        for table, count, which in (
            ("telemetry_events", "count()", "event_type = 'api_request'"),
            *((table, "sum(requests)", "true") for table in (() if stale(place) else ("usage_hourly", "session_summaries"))),
        )
    }
    assert len(sums) == 1, sums
    return sums.pop()


def contexts_of(place: Place) -> list[list[Any]]:
    """Requests and cost by all that a context says, and by user, model and session."""
    return place.store.query("""
        SELECT user_id, session_id, model, project, branch, feature, chapter_context, part, workflow_step, context_source,
            count(), round(sum(cost_usd), 9)
        FROM telemetry_events FINAL WHERE event_type = 'api_request' GROUP BY ALL ORDER BY ALL""")


def stale(place: Place) -> bool:
    """Whether events came that the summaries, made every half minute, need not know of yet."""
    [[newest, known]] = place.store.query(
        "SELECT (SELECT max(written_ns) FROM telemetry_events WHERE source = 'otlp'), (SELECT max(version) FROM session_summaries)"
    )
    return int(newest) > int(known)


def version_of(place: Place) -> str:
    [[version]] = place.store.query("SELECT DISTINCT service_version FROM telemetry_events WHERE source = 'otlp' AND service_version != ''")
    return version


def events_of(otlp: OtlpRecorder) -> list[dict[str, Any]]:
    """The attributes of each recorded event."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    found = []
    for request in otlp.of("logs"):
        message = ExportLogsServiceRequest.FromString(request.body)
        for record in (r for resource in message.resource_logs for scope in resource.scope_logs for r in scope.log_records):
            found.append({attribute.key: attribute.value.string_value for attribute in record.attributes})
    return found


@pytest.mark.checkout
@pytest.mark.needs("node", "sh")
def test_the_start_of_a_session_fills_in_what_an_earlier_one_lost(tmp_path: Path) -> None:
    """By the plugin's own hook, once somebody agreed in set-up; beside the client, which it outlives; once an hour."""
    with machine_in(tmp_path, NEWEST, Script()) as machine:
        clone = tmp_path / "a clone"
        shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv*", "tests", "docs", ".*_cache", ".hypothesis"))
        assert machine.setup("--person", "Ada")["ok"]
        for arguments in (("marketplace", "add", str(clone)), ("install", "sp-telemetry@sp-telemetry")):
            command = [machine.client.executable, "plugin", *arguments]
            subprocess.run(command, env=machine.environ, capture_output=True, check=True, timeout=60)
        started, gate, cli = tmp_path / "started", tmp_path / "gate", tmp_path / "command line"
        os.mkfifo(gate)
        held = f"echo \"$*\" >>'{started}'; [ \"$1\" != backfill ] || cat '{gate}'"  # until somebody writes into it
        cli.write_text(f"#!/bin/sh\n{held}\nexec '{sys.executable}' -m sp_telemetry.cli.main \"$@\"\n")
        cli.chmod(0o755)
        mark, env = machine.home.path / "hooks" / "backfill", machine.environ | {"SP_TELEMETRY_CLI": str(cli)}

        def filled_in() -> set[str]:
            sql = "SELECT request_id FROM telemetry.telemetry_events FINAL WHERE source = 'transcript' AND event_type = 'api_request'"
            return {row[0] for row in connect(machine.home, machine.home.settings()).query(sql).rows}

        lost = machine.session(env=env, more=["--settings", '{"env": {"CLAUDE_CODE_ENABLE_TELEMETRY": "0"}}']).session_id
        missed = {answered.request_id for answered in machine.api.log if answered.session_id == lost}
        assert missed and machine.events(lost) == [] and not mark.exists()  # nobody has agreed

        assert machine.setup("--backfill")["ok"]
        machine.session(env=env)  # ends, and what its start began has not
        done = mark.stat().st_mtime_ns
        assert filled_in() == set()
        gate.write_text("go on\n")
        assert wait_for(lambda: filled_in() == missed, 60)

        machine.session(env=env)
        assert mark.stat().st_mtime_ns == done
        an_hour_ago = time.time() - 3601
        os.utime(mark, (an_hour_ago, an_hour_ago))
        machine.session(env=env)
        gate.write_text("go on\n")
        assert wait_for(lambda: started.read_text() == "backfill --quiet\n" * 2, 30)
        assert filled_in() == missed

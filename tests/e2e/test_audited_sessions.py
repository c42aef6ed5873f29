"""Sessions of the real client, some of them while the server was down or telemetry off: the audit says exactly what is missing, and why."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.setup.environment import variables
from tests.client import VERSIONS
from tests.client.install import ClientUnavailable, executable
from tests.client.messages_api import MessagesApi
from tests.client.script import Reply, Script, ToolUse, Usage
from tests.client.session import ClaudeCode
from tests.conftest import require
from tests.ports import free_port
from tests.server import Server, wait_for

pytestmark = [pytest.mark.needs("node", "npm", "git"), pytest.mark.timeout(300)]
MODEL = "claude-sonnet-4-5"
# On a busy machine 2 s are not enough for the last export.
PATIENT = {"CLAUDE_CODE_OTEL_SHUTDOWN_TIMEOUT_MS": "20000", "CLAUDE_CODE_OTEL_FLUSH_TIMEOUT_MS": "20000"}


@dataclass
class Story:
    """A machine with the real client. `runs`: what each run asked of the API (its request ids), by the run's name."""

    server: Server
    client: ClaudeCode
    api: MessagesApi
    repository: Path
    telemetry: dict[str, str]
    runs: dict[str, list[str]] = field(default_factory=dict)
    printed: dict[str, float] = field(default_factory=dict)

    def run(self, name: str, prompt: str, *, off: bool = False, **more: Any) -> str:
        """One run of `claude -p`; its session id."""
        before = len(self.api.log)
        done = self.client.run(prompt, cwd=self.repository, env={} if off else self.telemetry, model=MODEL, **more)
        assert done.returncode == 0, done.stderr
        self.runs[name] = [each.request_id for each in self.api.log[before:] if each.status == 200]
        self.printed[name] = done.result.get("total_cost_usd", 0.0)
        return done.session_id

    def audit(self, *arguments: str) -> dict[str, Any]:
        own = {"SP_TELEMETRY_HOME": str(self.server.home.path), "HOME": str(self.client.home), "CLAUDE_CONFIG_DIR": ""}
        command = [sys.executable, "-m", "sp_telemetry.cli.main", "audit", "--json", "--grace", "0", *arguments]
        done = subprocess.run(command, env={**self.server.environ, **own}, capture_output=True, text=True, timeout=60)
        assert done.stdout, done.stderr
        return json.loads(done.stdout) | {"exit code": done.returncode}

    def require_arrived(self, *names: str) -> None:
        sql = "SELECT uniqExact(request_id) FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request'"
        expected = sum(len(self.runs[name]) for name in names)
        assert wait_for(lambda: self.server.query(sql) == [[expected]], 15), (self.server.query(sql), expected, self.server.says())


def named(told: dict[str, Any], side: str, reason: str) -> set[str]:
    return {detail["request_id"] for row in told["rows"] if (row["side"], row["reason"]) == (side, reason) for detail in row["details"]}


@pytest.fixture(params=VERSIONS)
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    try:
        claude = executable(request.param)
    except ClientUnavailable as error:
        require(False, str(error))
    repository = tmp_path / "book"
    repository.mkdir()
    (repository / "chapter.md").write_text("# One\n")
    script = (
        Script()
        .on("the first question", Reply("Let me look.", ToolUse("Read", file_path=str(repository / "chapter.md"))), Reply("So it is."))
        .on("the second question", Reply("Once more.", ToolUse("Read", file_path=str(repository / "chapter.md"))), Reply("Still so."))
        .on("the third question", Reply("Let me ask.", ToolUse("Task" if request.param == VERSIONS[0] else "Agent", description="ask",
            prompt="the question of a subagent", subagent_type="general-purpose")), Reply("It says so too."))
        .on("the question of a subagent", Reply("Yes.", usage=Usage(input=11, output=12, cache_write_1h=13)))
        .on("the fourth question", Reply("Another way."))
    )  # fmt: skip
    server = Server(tmp_path / "home of sp", SP_TELEMETRY_OTLP_HTTP_PORT=str(free_port()))
    with MessagesApi(script) as api:
        client = ClaudeCode(claude, tmp_path / "home", api.url)
        server.up()
        telemetry = variables(f"http://127.0.0.1:{server.ports['otlp_http']}", "ada") | {"OTEL_LOGS_EXPORT_INTERVAL": "200"} | PATIENT
        try:
            yield Story(server, client, api, repository, telemetry)
        finally:
            server.down()


def test_what_is_missing_and_why_is_said_exactly(story):
    """Half of a session with the server down, a run with telemetry off, a fork, a compaction and a subagent."""
    session = story.run("on", "the first question")
    story.require_arrived("on")
    story.server.down()
    story.run("down", "the second question", resume=session)
    story.server.up()
    story.run("on again", "the third question", resume=session)
    story.run("off", "the second question", resume=session, off=True)
    fork = story.run("fork", "the fourth question", resume=session, more=["--fork-session"])
    story.run("compaction", "/compact", resume=fork)
    story.run("after it", "the first question", resume=fork)
    heard = ("on", "on again", "fork", "compaction", "after it")
    story.require_arrived(*heard)

    told = story.audit()
    compaction = set(story.runs["compaction"])  # its own request stands in no transcript
    assert named(told, "transcript", "server down then") == set(story.runs["down"])
    assert named(told, "transcript", "telemetry off then") == set(story.runs["off"])
    assert named(told, "telemetry", "auxiliary") == compaction
    both = sum(len(story.runs[name]) for name in heard) - len(compaction)
    assert (told["both"], told["missing"], told["only_telemetry"]) == (both, len(story.runs["down"] + story.runs["off"]), len(compaction))
    assert (told["differing"], told["unexplained_costs"], told["exit code"]) == (0, [], 1)
    assert told["sequence"]["replayed_requests"] > 0  # the fork took its history along; its requests are counted once, for the original
    [[stored]] = story.server.query("SELECT sum(cost_usd) FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request'")
    of_both = sum(row["telemetry_usd"] for row in told["rows"])
    assert of_both == pytest.approx(stored, abs=1e-6)

    links = story.server.query("SELECT session_id, kind, follows, work_id FROM telemetry.session_links FINAL")
    assert links == [[fork, "forked", session, session]]
    compactions = "SELECT sum(compactions) FROM telemetry.transcript_files FINAL WHERE session_id = {of:String}"
    assert story.server.query(compactions, of=fork) == [[1]]
    # the subagent's request belongs to the session and to the prompt that called for it
    sql = """SELECT session_id, prompt_id = (SELECT any(prompt_id) FROM telemetry.transcript_requests WHERE request_id = {asking:String})
        FROM telemetry.transcript_requests WHERE agent_id != ''"""
    assert story.server.query(sql, asking=story.runs["on again"][0]) == [[session, 1]]


def test_a_clean_audit_and_nothing_new_the_second_time(story):
    session = story.run("on", "the third question")
    story.require_arrived("on")
    told = story.audit("--session", session)
    assert (told["both"], told["missing"], told["clean"], told["exit code"]) == (len(story.runs["on"]), 0, True, 0)
    assert told["cost_differs_usd"] == 0
    assert sum(row["telemetry_usd"] for row in told["rows"]) == pytest.approx(story.printed["on"], abs=1e-6)
    again = story.audit("--session", session)
    assert again["transcripts"]["read"] == 0
    assert {name: again[name] for name in told if name != "transcripts"} == {name: told[name] for name in told if name != "transcripts"}

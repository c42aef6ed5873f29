"""An installation's life with the real client: set up, sessions with nothing but what set-up wrote, reports, and back to the old bytes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sp_telemetry.home import Home
from sp_telemetry.store.client import connect
from tests.client import VERSIONS, ClaudeCode, MessagesApi, Reply, Script, ToolUse, executable
from tests.client.install import ClientUnavailable
from tests.conftest import ROOT, require
from tests.ports import free_ports
from tests.server import JSON, as_json, log_request, wait_for

pytestmark = pytest.mark.needs("node", "npm", "git")
PORTS = ("otlp_http", "otlp_grpc", "clickhouse", "health", "metrics")
ORIGINAL = (
    b'{\r\n   "model": "sonnet",   "env": {"EDITOR": "vi",\r\n  "OTEL_RESOURCE_ATTRIBUTES": "team=docs"},\r\n "cleanupPeriodDays":30}'
)


@dataclass
class Machine:
    """Somebody's machine: a client on PATH, a book under git, a home of ours that does not exist yet."""

    client: ClaudeCode
    api: MessagesApi
    home: Home
    book: Path
    ports: dict[str, int]

    @property
    def settings(self) -> Path:
        return self.client.config / "settings.json"

    @property
    def environ(self) -> dict[str, str]:
        return self.client.environment(SP_TELEMETRY_HOME=str(self.home.path), PYTHONPATH=os.environ["PYTHONPATH"])

    def cli(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sp_telemetry.cli.main", *arguments]
        return subprocess.run(
            command, env=self.environ | environ, cwd=self.book, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL
        )

    def setup(self, *arguments: str, **environ: str) -> dict[str, Any]:
        ports = [word for name, port in self.ports.items() for word in ("--port", f"{name}={port}")]
        done = self.cli("setup", "--yes", "--json", *ports, *arguments, **environ)
        assert done.stderr == ""
        return json.loads(done.stdout) | {"code": done.returncode}

    def session(self, prompt: str = "say hello", **more: Any) -> Any:
        """A session with no variable but what the settings give."""
        run = self.client.run(prompt, cwd=self.book, **more)
        assert run.returncode == 0, run.stderr
        return run

    def events(self, session: str = "", least: int = 0) -> list[dict[str, Any]]:
        client = connect(self.home, self.home.settings())
        sql = (
            "SELECT event_type, user_id, session_id, cost_usd, service_version FROM telemetry.telemetry_events FINAL "
            "WHERE session_id != '' AND ({session:String} = '' OR session_id = {session:String})"
        )
        deadline = time.monotonic() + 5
        while len(found := client.query(sql, {"session": session}).records()) < least and time.monotonic() < deadline:
            time.sleep(0.05)
        return found


@contextlib.contextmanager
def machine_in(folder: Path, version: str, script: Script | None = None) -> Iterator[Machine]:
    try:
        binary = executable(version)
    except ClientUnavailable as reason:
        require(False, str(reason))
    path = folder / "bin"
    path.mkdir(parents=True)
    (path / "claude").symlink_to(binary)
    book = folder / "ein Buch"
    subprocess.run(["git", "init", "-q", "-b", "017-usage-data-collection", str(book)], check=True)
    with MessagesApi(script or Script()) as api:
        home = folder / "home of ada"
        client = ClaudeCode(path / "claude", home, api.url, path=f"{path}{os.pathsep}{os.environ['PATH']}")
        # Without this, 2.1.197 moves autoUpdates into the settings file at its first start, and writes all of it anew.
        (client.config / ".claude.json").write_text('{"hasCompletedOnboarding": true}')
        (home / ".gitconfig").write_text("[user]\n\tname = Ada Lovelace\n\temail = countess@example.com\n")
        made = Machine(client, api, Home(folder / "sp home"), book, dict(zip(PORTS, free_ports(5), strict=True)))
        try:
            yield made
        finally:
            made.cli("down")


@pytest.fixture(params=VERSIONS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    echo = [Reply(number, ToolUse("Bash", command=f"echo {number}")) for number in "12"]
    script = Script().on("two tools", *echo, Reply("3"))
    with machine_in(tmp_path, request.param, script) as made:
        yield made


def test_a_life(machine: Machine) -> None:
    machine.settings.write_bytes(ORIGINAL)
    dry = json.loads(machine.cli("setup", "--dry-run", "--json").stdout)
    assert dry["offered"][:2] == ["Ada Lovelace", "countess@example.com"] and not machine.home.path.exists()
    assert machine.settings.read_bytes() == ORIGINAL

    begun = time.monotonic()
    result = machine.setup("--person", "Ada Lovelace")
    assert result["ok"] and result["verified"]["person"] == "Ada Lovelace"
    assert time.monotonic() - begun < 30
    assert json.loads(machine.settings.read_bytes())["env"]["OTEL_RESOURCE_ATTRIBUTES"] == "team=docs,enduser.id=Ada%20Lovelace"
    told = {finding["code"]: finding for finding in json.loads(machine.cli("doctor", "--json").stdout)["findings"]}
    assert told["no-event-yet"]["mend"].startswith("Restart Claude Code") and told["settings"]["level"] == "ok"

    run = machine.session("two tools")
    events = machine.events(run.session_id, least=7)
    kinds = [event["event_type"] for event in events]
    assert kinds.count("api_request") == 3 and kinds.count("tool_result") == 2 and "user_prompt" in kinds
    assert {event["user_id"] for event in events} == {"Ada Lovelace"}
    assert sum(event["cost_usd"] for event in events) == pytest.approx(run.result["total_cost_usd"])
    report = machine.cli("report", "cost", "--by", "user")
    assert "Ada Lovelace" in report.stdout, report
    examined = machine.cli("doctor", "--json")
    assert [one for one in json.loads(examined.stdout)["findings"] if one["level"] == "error"] == [] and examined.returncode == 1

    again = machine.setup()
    assert again["ok"] and not again["settings_written"] and not again["server"]["started"] and again["person"] == "Ada Lovelace"

    gone = machine.cli("uninstall")
    assert gone.returncode == 0 and "byte for byte" in gone.stdout and "The data stay" in gone.stdout
    assert machine.settings.read_bytes() == ORIGINAL
    machine.session()  # Claude Code works as before
    assert not (machine.home.path / "config.toml").exists()  # so that no hook starts the server again

    back = machine.setup()
    assert back["ok"] and back["person"] == "Ada Lovelace" and len(machine.events(run.session_id)) == len(events)
    refused = machine.cli("uninstall", "--purge")
    assert refused.returncode == 2 and machine.home.store.exists()
    purged = machine.cli("uninstall", "--purge", "--yes")
    assert purged.returncode == 0 and not machine.home.path.exists() and machine.settings.read_bytes() == ORIGINAL


def test_server_down_in_a_session_and_up_again(machine: Machine) -> None:
    machine.setup("--person", "Ada")
    first = machine.session()
    assert machine.events(first.session_id, least=1)
    assert machine.cli("down").returncode == 0
    begun = time.monotonic()
    lost = machine.session(resume=first.session_id)
    assert time.monotonic() - begun < 15  # nobody waits for a server that is away
    findings = json.loads(machine.cli("doctor", "--json").stdout)["findings"]
    assert [one["code"] for one in findings if one["level"] == "error"] == ["server-down"]
    assert machine.cli("up").returncode == 0
    before = len(machine.events(first.session_id))
    machine.session(resume=lost.session_id)
    assert len(machine.events(first.session_id, least=before + 1)) > before


def test_server_killed_in_mid_session(machine: Machine) -> None:
    """What was acknowledged is there once; the session neither fails nor waits; the next one is stored again."""
    machine.setup("--person", "Ada")
    first = machine.session()
    known = machine.events(first.session_id, least=1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(machine.session, "two tools", resume=first.session_id)
        time.sleep(0.7)  # it is starting, or at its first tool
        os.kill(json.loads(machine.home.server_file.read_text())["pid"], signal.SIGKILL)
        begun = time.monotonic()
        assert running.result(60).result["is_error"] is False
        assert time.monotonic() - begun < 30
    assert machine.cli("up").returncode == 0
    after = machine.events(first.session_id, least=len(known))
    assert len(after) >= len(known)
    machine.session(resume=first.session_id)
    assert len(machine.events(first.session_id, least=len(after) + 1)) > len(after)


def test_two_sessions_at_once(machine: Machine) -> None:
    machine.setup("--person", "Ada")
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: machine.session("two tools"), range(2)))
    for run in runs:
        events = machine.events(run.session_id, least=7)
        assert sum(event["event_type"] == "api_request" for event in events) == 3
        assert sum(event["cost_usd"] for event in events) == pytest.approx(run.result["total_cost_usd"])


def test_traces_and_console_by_a_flag(machine: Machine) -> None:
    machine.setup("--person", "Ada", "--traces", "--console")
    run = machine.session()
    client = connect(machine.home, machine.home.settings())
    spans = client.query("SELECT count() FROM telemetry.telemetry_spans WHERE session_id = {s:String}", {"s": run.session_id})
    assert spans.rows[0][0] > 0 and machine.events(run.session_id)
    machine.setup("--no-traces", "--no-console")
    env = json.loads(machine.settings.read_text())["env"]
    assert env["OTEL_LOGS_EXPORTER"] == "otlp" and "OTEL_TRACES_EXPORTER" not in env


def test_somebody_elses_telemetry_is_not_replaced_unasked(machine: Machine) -> None:
    theirs = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://key@otel.example.com", "OTEL_LOGS_EXPORTER": "console"}
    machine.settings.write_text(json.dumps({"env": theirs | {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://otel.example.com/v1/logs"}}))
    before = machine.settings.read_bytes()
    refused = machine.setup("--person", "Ada")
    assert refused["code"] == 2 and not refused["ok"]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" in refused["error"]
    assert machine.settings.read_bytes() == before and not machine.home.server_file.exists()
    dry = machine.cli("setup", "--dry-run").stdout
    assert "not from here" in dry and "key@" not in dry
    forced = machine.setup("--person", "Ada", "--force")
    assert forced["ok"] and json.loads(machine.settings.read_text())["env"]["OTEL_LOGS_EXPORTER"] == "otlp,console"
    assert machine.events(machine.session().session_id, least=3)
    machine.cli("uninstall")
    assert machine.settings.read_bytes() == before


def test_an_address_is_a_name_where_somebody_chose_it(machine: Machine) -> None:
    address = json.loads(machine.cli("setup", "--dry-run", "--json").stdout)["offered"][1]
    result = machine.setup("--person", address)
    assert result["ok"] and result["verified"]["person"] == address == "countess@example.com"
    run = machine.session()
    assert {event["user_id"] for event in machine.events(run.session_id, least=3)} == {address}
    report = machine.cli("report", "cost", "--by", "user", "--format", "json")
    assert address in report.stdout and "<email>" not in report.stdout


def test_a_taken_port_is_named_with_its_holder_and_another_can_be_chosen(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", machine.ports["metrics"])):
        refused = machine.setup("--person", "Ada")
        assert f"Port {machine.ports['metrics']} (metrics) is in use by" in refused["error"] and "--port metrics=" in refused["hint"]
        machine.ports["metrics"] = free_ports(1)[0]
        assert machine.setup("--person", "Ada")["ok"]
    # A hook that starts the server later has no variables of ours: the port stands in config.toml.
    assert f"metrics_port = {machine.ports['metrics']}" in (machine.home.path / "config.toml").read_text()


#: level -> what is kept of a prompt's text, and of what the API said
KEPT = {
    "full": ("ask <email> of ACME-1234", "Overloaded, says <email>"),
    "standard": ("", "Overloaded, says <email>"),
    "strict": ("", "overloaded"),
}


def test_the_level_is_chosen_at_set_up_shown_by_status_and_holds(tmp_path: Path) -> None:
    told = {"prompt": "ask grace@example.org of ACME-1234", "error": "Overloaded, says grace@example.org"}
    with machine_in(tmp_path, VERSIONS[-1]) as machine:

        def shown(line: str) -> bool:
            return f"\nprivacy   {line}\n" in re.sub(r" since [-:0-9 ]{19}", "", machine.cli("status").stdout)

        def kept() -> tuple[str, str]:
            session = str(uuid4())
            events = [{"name": name, "time_ns": time.time_ns(), "session.id": session, **told} for name in ("user_prompt", "api_error")]
            url, body = f"http://127.0.0.1:{machine.ports['otlp_http']}/v1/logs", as_json(log_request(events))
            assert httpx.post(url, content=body, headers={"Content-Type": JSON}).status_code == 200
            assert len(machine.events(session, least=2)) == 2
            sql = "SELECT max(attributes['prompt']), max(api_error_message) FROM telemetry.telemetry_events WHERE session_id = {s:String}"
            return tuple(connect(machine.home, machine.home.settings()).query(sql, {"s": session}).rows[0])

        for level, texts in KEPT.items():
            assert machine.setup("--person", "Ada", "--privacy", level)["ok"]
            assert tomllib.loads((machine.home.path / "config.toml").read_text())["privacy_level"] == level
            assert wait_for(lambda at=level: shown(at)) and kept() == texts
        rules = "[patterns.ticket]\nregex = 'ACME-[0-9]{4,}'\n[attributes]\nerror = 'drop'\n"
        (machine.home.path / "privacy.toml").write_text(rules)
        assert wait_for(lambda: shown("strict, with 2 rules of your own")) and kept() == ("", "")


def test_broken_settings_and_impossible_names_change_nothing(machine: Machine) -> None:
    machine.settings.write_text('{"env": {} // mine\n}')
    refused = machine.setup("--person", "Ada")
    assert refused["code"] == 2 and "Nothing was changed" in refused["error"]
    machine.settings.write_text("{}")
    secret = machine.setup("--person", "sk-ant-made0up0here@example.com")
    assert secret["code"] == 2 and "'<anthropic-key>@example.com'" in secret["error"]
    assert not machine.home.path.exists() and machine.settings.read_text() == "{}"


@pytest.mark.checkout
def test_with_the_plugin_the_doctor_sees_hooks_and_contexts(machine: Machine, tmp_path: Path) -> None:
    clone = tmp_path / "a clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv*", "tests", "docs", ".*_cache", ".hypothesis"))
    for arguments in (("marketplace", "add", str(clone)), ("install", "sp-telemetry@sp-telemetry")):
        command = [machine.client.executable, "plugin", *arguments]
        done = subprocess.run(command, env=machine.environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    before = machine.settings.read_bytes()
    commands = machine.client.config / "commands"
    assert {one["state"] for one in json.loads(machine.cli("setup", "--dry-run", "--json").stdout)["bare_names"]} == {"free"}
    assert len(machine.setup("--person", "Ada", "--bare-names")["commands_written"]) == 2 and len(list(commands.iterdir())) == 2
    # Hooks do not see what the shell knows of our home only by default; a person who moved it has SP_TELEMETRY_HOME set.
    machine.session(env={"SP_TELEMETRY_HOME": str(machine.home.path)})
    machine.events(least=3)
    findings = {finding["code"]: finding for finding in json.loads(machine.cli("doctor", "--json").stdout)["findings"]}
    assert findings["hooks"]["facts"]["sessions"] == 1 and findings["spool"]["facts"]["delivered"] >= 1
    assert findings["context"]["facts"]["unattributed"] == 0 and "plugin-missing" not in findings
    assert [finding for finding in findings.values() if finding["level"] == "error"] == []
    assert machine.cli("uninstall").stdout.count("The command is taken away") == 2
    assert machine.settings.read_bytes() == before and not commands.exists()

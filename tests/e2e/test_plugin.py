"""The plugin in the real client, at both ends of the supported range: installed from a clone with a space in its path, then used."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.home import Home
from sp_telemetry.setup import bare_names
from sp_telemetry.setup.layers import layers
from tests.client import VERSIONS, ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, executable
from tests.client.install import NEWEST, ClientUnavailable
from tests.conftest import ROOT, require
from tests.unit.test_hooks import NOBODY, book, git, records
from tests.unit.test_hooks_failures import interpreters

pytestmark = [pytest.mark.checkout, pytest.mark.needs("npm", "git", "sh")]
PLUGIN = "sp-telemetry@sp-telemetry"


@dataclass
class Place:
    """A machine with the plugin installed: a client, a book, a model that follows a script, a receiver, a stand-in command line."""

    version: str
    client: ClaudeCode
    clone: Path
    book: Path
    api: MessagesApi
    otlp: OtlpRecorder
    scratch: Path
    asked: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SP_TELEMETRY_HOME": str(self.scratch / "sp home"),
            "SP_TELEMETRY_OTLP_HTTP_PORT": self.otlp.http_url.rpartition(":")[2],
            "SP_TELEMETRY_CLICKHOUSE_PORT": str(NOBODY),
            "SP_TELEMETRY_CLI": str(self.scratch / "command line"),
        }

    def plugin(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.client.executable, "plugin", *arguments]
        return subprocess.run(command, env=self.client.environment(), capture_output=True, text=True, timeout=60)

    def run(self, prompt: str, *, default_permissions: bool = False, **env: str) -> Any:
        if default_permissions:
            command = [self.client.executable, "-p", prompt, "--output-format", "json"]
            environment = self.client.environment(**self.environment, **env)
            done = subprocess.run(command, env=environment, cwd=self.book, capture_output=True, text=True, timeout=60)
            return json.loads(done.stdout)
        return self.client.run(prompt, cwd=self.book, env=self.environment | env).result


@pytest.fixture(params=VERSIONS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    try:
        binary = executable(request.param)
    except ClientUnavailable as reason:
        require(False, str(reason))
    clone = tmp_path / "a clone of ours"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv*", "tests", "docs", ".*_cache", ".hypothesis"))
    cli = tmp_path / "command line"
    cli.write_text('#!/bin/sh\necho "these words:"; for word in "$@"; do echo "[$word]"; done\nprintf "%${COLUMNS}s\\n" | tr " " =\n')
    cli.chmod(0o755)
    asked: list[str] = []
    script = Script().on(
        "switch and write",
        Reply("1", ToolUse("Bash", command="git switch -qc 018-cost-reports")),
        Reply("2", ToolUse("Write", file_path=str(tmp_path / "ein Büchlein/manuscript/05-part/33-agents/new.md"), content="x")),
        Reply("3", ToolUse("Bash", command="git switch -q main; false")),
        Reply("done"),
    )
    script.on("use the skill", Reply("1", ToolUse("Skill", skill="telemetry-report", args="cost `touch y`")), Reply("done"))
    script.on("move to a worktree", Reply("1", ToolUse("EnterWorktree")), Reply("done"))
    root = f"{clone}/" if request.param == "2.1.197" else clone  # 2.1.197 puts a slash behind the plugin's path
    script.on(
        "The reports there are",
        Reply("1", ToolUse("Bash", command=f"\"{root}/hooks/report.sh\" 'cost' '--since' '7d'")),
        Reply("shown"),
    )

    def observe(call: Any) -> dict[str, Any]:
        asked.append(json.dumps(call.body["messages"], ensure_ascii=False))
        return {}

    with MessagesApi(script, observe=observe) as api, OtlpRecorder(grpc=False) as otlp:
        client = ClaudeCode(binary, tmp_path / "home", api.url)
        place = Place(request.param, client, clone, book(tmp_path / "ein Büchlein"), api, otlp, tmp_path, asked)
        for arguments in (("marketplace", "add", str(clone)), ("install", PLUGIN)):
            done = place.plugin(*arguments)
            assert done.returncode == 0, done.stdout + done.stderr
        yield place


def test_the_plugin_is_valid_for_the_client(tmp_path: Path) -> None:
    client = ClaudeCode(executable(NEWEST), tmp_path, "http://127.0.0.1:1")
    command = [client.executable, "plugin", "validate", "--strict", str(ROOT)]
    done = subprocess.run(command, env=client.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    for command in ("sp.telemetry-setup", "telemetry-report"):
        assert f"sp-telemetry:{command}" in done.stdout


def test_pitfall_a12_a_session_that_switches_branches_is_recorded_as_it_goes(place: Place) -> None:
    assert place.run("switch and write")["result"] == "done"
    assert [(one["hook"], one["feature"], one["chapter"]) for one in records(place.otlp, 4)] == [
        ("SessionStart", "017-usage-data-collection", ""),
        ("PostToolUse", "018-cost-reports", ""),
        ("PostToolUse", "018-cost-reports", "33-agents"),
        ("PostToolUseFailure", "", ""),
    ]
    assert "sp-telemetry counts this session under feature 017-usage-data-collection" in place.asked[0]


def test_a_session_in_a_worktree_of_its_own_is_recorded_there(place: Place) -> None:
    place.run("move to a worktree")
    first, second = records(place.otlp, 2)
    assert first["worktree"] == ""
    assert second["worktree"] != ""
    assert second["hook"] in ("PostToolUse", "CwdChanged")


def test_a_typed_command_is_the_step(place: Place) -> None:
    folder = place.book / ".claude" / "commands"
    folder.mkdir(parents=True)
    (folder / "speckit.plan.md").write_text("Plan: $ARGUMENTS\n")
    place.run("/speckit.plan the collector")
    assert records(place.otlp, 2)[-1]["step"] == "plan"


@pytest.mark.parametrize(("command", "report"), [("/telemetry-report", "cost"), ("/sp-telemetry:telemetry-report", "audit")])
def test_a_typed_report_is_answered_without_the_model(place: Place, command: str, report: str) -> None:
    answer = place.run(f"{command} {report} --by 'a b'")["result"]
    assert f"these words:\n[report]\n[{report}]\n[--by]\n[a b]\n[--format]\n[text]\n" in answer
    assert "[report]\n[--format]\n[text]" in place.run(command)["result"]
    assert place.api.log == []


@pytest.mark.parametrize("command", ["/sp.telemetry-setup", "/sp-telemetry:sp.telemetry-setup"])
def test_set_up_is_there_under_both_names(place: Place, command: str) -> None:
    place.run(f"{command} --dry-run")
    assert "Guide the person through the set-up of sp-telemetry." in place.asked[0]
    assert f'\\"{place.clone}' in place.asked[0] and "${CLAUDE" not in place.asked[0]


def test_bare_names_that_another_plugin_has_come_back_by_set_up(place: Place) -> None:
    """Of two plugins with a command of one name, the client takes the one that was enabled first."""
    other = place.scratch / "other"
    for name in bare_names.NAMES:
        skill = other / "commands" / name / "SKILL.md"
        skill.parent.mkdir(parents=True)
        skill.write_text(f"---\nname: {name}\ndescription: theirs\n---\nTHEIRS {name}\n")
    (other / ".claude-plugin").mkdir()
    about = {"name": "other", "description": "x", "version": "1.0.0", "author": {"name": "x"}}
    (other / ".claude-plugin" / "plugin.json").write_text(json.dumps({**about, "skills": "./commands"}))
    market = {"name": "other", "owner": {"name": "x"}, "description": "x", "plugins": [{"name": "other", "source": "./"}]}
    (other / ".claude-plugin" / "marketplace.json").write_text(json.dumps(market))
    for arguments in (("marketplace", "add", str(other)), ("uninstall", PLUGIN), ("install", "other@other"), ("install", PLUGIN)):
        done = place.plugin(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def answers(command: str) -> str:
        place.asked.clear()
        result = place.run(command)["result"]
        return "theirs" if "THEIRS" in "".join(place.asked) else "ours" if "these words:" in result or "Guide the" in place.asked[0] else ""

    commands = ("/telemetry-report", "/sp.telemetry-setup", "/sp-telemetry:telemetry-report", "/sp-telemetry:sp.telemetry-setup")
    assert [answers(command) for command in commands] == ["theirs", "theirs", "ours", "ours"]
    environ, home = place.client.environment(), Home(place.scratch / "sp home")
    seen = bare_names.look(home, environ, layers(environ, None, ()))
    assert [(one.state, one.by) for one in seen] == [("taken", "other@other")] * 2
    bare_names.put(home, environ, seen)
    assert [answers(command) for command in commands[:2]] == ["ours", "ours"]
    assert answers("/other:telemetry-report") == "theirs"
    bare_names.take_away(home)
    assert answers(commands[0]) == "theirs"


def test_a_command_of_the_persons_own_is_not_ours_to_answer(place: Place) -> None:
    folder = place.client.config / "commands"
    folder.mkdir()
    (folder / "telemetry-report.md").write_text("my own report: $ARGUMENTS\n")
    place.run("/telemetry-report cost")
    assert "my own report: cost" in place.asked[0]


@pytest.mark.parametrize("hooks", ["1", "0"])
def test_no_argument_of_a_report_is_run(place: Place, hooks: str) -> None:
    for attack in ('"; touch x; "$(touch x)`touch x`!`touch x`', "cost\n!`touch x`\n```!\ntouch x\n```"):
        place.run(f"/telemetry-report {attack}", SP_TELEMETRY_HOOKS=hooks)
    place.run("use the skill", SP_TELEMETRY_HOOKS=hooks)
    assert [path.name for path in place.book.iterdir() if path.name in "xy"] == []


def test_explain_hands_the_data_to_the_model(place: Place) -> None:
    place.run("/telemetry-report explain cost")
    assert "The report that was asked for:\\n\\nthese words:\\n[report]\\n[cost]" in place.asked[0]


def test_without_the_hook_the_skill_answers_and_asks_for_no_permission(place: Place) -> None:
    result = place.run("/telemetry-report cost --since 7d", default_permissions=True, SP_TELEMETRY_HOOKS="0")
    assert result["result"] == "shown"
    assert result["permission_denials"] == []
    assert "these words:\\n[report]\\n[cost]\\n[--since]\\n[7d]" in place.asked[-1]
    assert len(place.api.log) == 2


def test_a_skill_that_the_model_starts_costs_one_request_more(place: Place) -> None:
    place.run("use the skill")
    assert "The reports there are:\\n\\nthese words:\\n[report]\\n[--format]" in "".join(place.asked)


def test_the_plugin_can_be_removed(place: Place) -> None:
    place.run("switch and write")
    assert place.plugin("uninstall", PLUGIN).returncode == 0
    sent = len(records(place.otlp, 4))
    git(place.book, "switch", "-q", "main")
    assert place.run("hello")["result"] == "Done."
    assert len(records(place.otlp)) == sent


def test_an_update_keeps_data_and_settings(place: Place) -> None:
    place.run("switch and write")
    home, settings = place.scratch / "sp home", place.client.config / "settings.json"
    kept = {file: file.read_bytes() for file in (*home.rglob("*"), settings) if file.is_file() and file.name != "hooks.log"}
    assert len(kept) > 1
    for manifest in place.clone.glob(".claude-plugin/plugin.json"):
        manifest.write_text(manifest.read_text().replace('"version": "0.1.0"', '"version": "0.2.0"'))
    for arguments in (("marketplace", "update", "sp-telemetry"), ("update", PLUGIN)):
        done = place.plugin(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert '"0.2.0"' in (place.client.config / "plugins" / "installed_plugins.json").read_text()
    assert {file: file.read_bytes() for file in kept} == kept
    sent = len(records(place.otlp, 4))
    assert place.run("switch and write")["result"] == "done"
    assert len(records(place.otlp, sent + 1)) > sent
    assert "these words" in place.run("/sp-telemetry:telemetry-report cost")["result"]


def screen(socket: str) -> str:
    return subprocess.run(["tmux", "-L", socket, "capture-pane", "-pJ", "-t", "0"], capture_output=True, text=True).stdout


def until(socket: str, *texts: str, seconds: float = 20) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        shown = screen(socket)
        if any(text in shown for text in texts):
            return shown
        time.sleep(0.1)
    raise AssertionError(f"none of {texts} on the screen:\n{screen(socket)}")


@pytest.mark.needs("tmux")
def test_in_the_terminal_the_report_stands_on_the_screen(place: Place) -> None:
    socket = f"sp-{place.scratch.name[-24:]}"
    (place.client.config / ".claude.json").write_text(json.dumps({
        **json.loads((place.client.config / ".claude.json").read_text()),
        "projects": {str(place.book): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
        "customApiKeyResponses": {"approved": ["dummy"], "rejected": []}, "theme": "dark",
    }))  # fmt: skip
    environment = place.client.environment(**place.environment, TERM="xterm-256color")
    command = ["tmux", "-L", socket, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "40", shlex.quote(place.client.executable)]
    subprocess.run(command, env=environment, cwd=place.book, check=True)
    try:
        until(socket, "says: 017 usage-data-collection")
        for keys in ("/telemetry-report cost", "Enter"):
            subprocess.run(["tmux", "-L", socket, "send-keys", keys], check=True)
            time.sleep(0.6)
        shown = until(socket, "[report]")
        assert "[cost]" in shown
        shown = until(socket, "Original prompt")
        assert [line.strip() for line in shown.splitlines() if "==" in line] == ["=" * 70]  # a line as wide as ours is not broken
        assert place.api.log == []
    finally:
        subprocess.run(["tmux", "-L", socket, "kill-server"])


def test_a_machine_with_python_3_9_alone_has_hooks_and_is_told_what_the_rest_needs(place: Place) -> None:
    python = interpreters().get((3, 9))
    require(python, "Python 3.9 not found")
    tools = place.scratch / "tools"
    tools.mkdir()
    names = "sh bash cat chmod cmp cp cut date dirname env git grep head id ls mkdir mktemp mv readlink rm sed sleep tail touch uname"
    for tool in names.split():
        (tools / tool).symlink_to(shutil.which(tool))
    (tools / "python3").symlink_to(python)
    command = [place.client.executable, "-p", "switch and write", "--output-format", "json", "--permission-mode", "bypassPermissions"]
    environment = place.client.environment(**place.environment) | {"PATH": str(tools)}
    del environment["SP_TELEMETRY_CLI"]
    done = subprocess.run(command, env=environment, cwd=place.book, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["result"] == "done"
    assert [one["chapter"] for one in records(place.otlp, 4)] == ["", "", "33-agents", ""]
    (used,) = (place.client.config / "plugins" / "data").glob("*/python")
    assert used.read_text().strip() == os.path.realpath(python)
    command[2] = "/telemetry-report cost"
    told = subprocess.run(command, env=environment, cwd=place.book, capture_output=True, text=True, timeout=60)
    assert "not set up on this machine yet: type /sp.telemetry-setup" in json.loads(told.stdout)["result"]
    setup = [place.clone / "scripts" / "sp-telemetry", "setup"]
    launcher = subprocess.run(setup, env=environment, capture_output=True, text=True, timeout=60)
    assert launcher.returncode == 10 and "Python 3.11 to 3.14 is needed; found 3.9" in launcher.stderr

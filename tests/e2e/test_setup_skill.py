"""/sp.telemetry-setup in a real session, with a model that does what the skill says: in `-p`, and in the terminal with a person.

The model is a function of the conversation: it takes the commands out of the skill's text as the client handed it over, and the name
from what the dry run offered. So a skill whose commands do not run, or need a permission that it does not bring, fails here.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.client import VERSIONS, Reply, Script, ToolUse
from tests.client.script import Request, _text
from tests.conftest import ROOT
from tests.e2e.test_plugin import PLUGIN, until
from tests.e2e.test_setup import Machine, machine_in

pytestmark = [pytest.mark.checkout, pytest.mark.needs("node", "npm", "git", "sh")]
SKILL = "Guide the person through the set-up of sp-telemetry."


class Model:
    """Follows the skill. `asks` is whether there is a person: without one, the command's arguments have said what to do."""

    def __init__(self, asks: bool) -> None:
        self.asks = asks
        self.results: list[str] = []

    def reply(self, request: Request) -> Reply | None:
        if request.prompt != SKILL:
            return None
        text = next(text for message in request.body["messages"] if SKILL in (text := _text(message["content"])))
        dry, wet = (re.search(rf"`(\"[^`\"]+\" setup {words}[^`]*)`", text)[1] for words in ("--json --dry-run", "--json --yes"))
        self.results = [_text(block["content"]) for block in request.tool_results]
        if request.step == 0:
            return Reply("I look first.", ToolUse("Bash", command=dry, description="What would change", timeout=600_000))
        found = json.loads(self.results[0])
        if request.step == 1 and self.asks:
            return Reply("These settings would change.", ToolUse("AskUserQuestion", questions=[
                question("Under which name is the cost to be reported?", "Name", *found["offered"][:2]),
                question(f"Write {len(found['changes'])} variables into your user settings?", "Go on", "Yes, go on", "No"),
            ]))  # fmt: skip
        if request.step == 1 + self.asks:
            name = found["offered"][1] if self.asks else "Ada O'Neill"
            assert not self.asks or name in self.results[1], self.results
            quoted = name.replace("'", "'\\''")
            command = wet.replace("<the name, in single quotes>", quoted)
            return Reply("", ToolUse("Bash", command=command, description="Set up", timeout=600_000))
        told = json.loads(self.results[-1])
        assert told["ok"], told
        return Reply(f"An event arrived under the name {told['verified']['person']}. Restart Claude Code now.")


def question(text: str, header: str, *labels: str) -> dict[str, Any]:
    options = [{"label": label, "description": f"choose {label}"} for label in labels]
    return {"question": text, "header": header, "multiSelect": False, "options": options}


@contextmanager
def place_with_plugin(folder: Path, version: str, model: Model) -> Iterator[tuple[Machine, dict[str, str]]]:
    clone = folder / "a clone of ours"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv*", "tests", "docs", ".*_cache", ".hypothesis"))
    with machine_in(folder, version, Script().on(SKILL).otherwise(model.reply)) as machine:
        for arguments in (("marketplace", "add", str(clone)), ("install", PLUGIN)):
            command = [machine.client.executable, "plugin", *arguments]
            done = subprocess.run(command, env=machine.environ, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr
        # An environment that is made already, and this machine's free ports; everything else as on anybody's machine.
        variables = {f"SP_TELEMETRY_{name.upper()}_PORT": str(port) for name, port in machine.ports.items()}
        yield machine, variables | {"SP_TELEMETRY_VENV": sys.prefix, "SP_TELEMETRY_HOME": str(machine.home.path)}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_that_follows_the_skill_sets_up(tmp_path: Path, version: str) -> None:
    model = Model(asks=False)
    with place_with_plugin(tmp_path, version, model) as (machine, variables):
        command = [machine.client.executable, "-p", "/sp.telemetry-setup as Ada O'Neill, go on", "--output-format", "json"]
        environment = machine.client.environment(**variables)
        done = subprocess.run(command, env=environment, cwd=machine.book, capture_output=True, text=True, timeout=120)
        result = json.loads(done.stdout)
        assert result["permission_denials"] == [], model.results
        assert result["result"] == "An event arrived under the name Ada O'Neill. Restart Claude Code now."
        session = machine.session(env=variables)
        assert {event["user_id"] for event in machine.events(session.session_id, least=3)} == {"Ada O'Neill"}
        answered = machine.session("/telemetry-report cost --by user", env=variables)
        assert "Ada O'Neill" in answered.result["result"] and len(machine.api.log) == 4


@pytest.mark.needs("tmux")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_person_is_asked_and_sees_what_came_of_it(tmp_path: Path, version: str) -> None:
    model = Model(asks=True)
    with place_with_plugin(tmp_path, version, model) as (machine, variables):
        (machine.client.config / ".claude.json").write_text(json.dumps({
            "hasCompletedOnboarding": True, "theme": "dark", "customApiKeyResponses": {"approved": ["dummy"], "rejected": []},
            "projects": {str(machine.book): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
        }))  # fmt: skip
        socket = f"sp-{tmp_path.name[-24:]}"
        tmux = ["tmux", "-L", socket]
        environment = machine.client.environment(**variables, TERM="xterm-256color")
        start = [*tmux, "-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "50", shlex.quote(machine.client.executable)]
        subprocess.run(start, env=environment, cwd=machine.book, check=True)

        def press(*keys: str) -> None:
            for key in keys:
                subprocess.run([*tmux, "send-keys", key], check=True)
                time.sleep(0.6)

        try:
            until(socket, "017 usage-data-collection")
            press("/sp.telemetry-setup", "Enter")
            shown = until(socket, "Under which name", seconds=60)
            assert "Do you want to proceed" not in shown  # the skill brings the permission for its command
            assert "Ada Lovelace" in shown and "countess@example.com" in shown
            press("2")
            until(socket, "into your user settings?")
            press("1")
            until(socket, "Submit answers", "Ready to submit")
            press("1")
            shown = until(socket, "Restart Claude Code now.", seconds=60)
            assert "An event arrived under the name countess@example.com." in " ".join(shown.split())
        finally:
            subprocess.run([*tmux, "kill-server"])
        session = machine.session(env=variables)
        assert {event["user_id"] for event in machine.events(session.session_id, least=3)} == {"countess@example.com"}

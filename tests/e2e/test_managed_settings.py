"""Who wins, by the real client: an administrator's files, `--settings`, the repository's local file; doctor and set-up say the same.

The administrator's files are put into a copy of /etc that only the client and the doctor see, in a mount namespace of their own (Linux,
root); nothing outside changes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.setup.environment import variables
from tests.e2e.test_setup import Machine, machine_in
from tests.e2e.test_setup_causes import ENDPOINT, EVENTS, LOGS_ENDPOINT, NEW, NOBODY, NONE, NOT_ADA, OLD, RESOURCE

pytestmark = pytest.mark.needs("node", "npm", "git")
INSIDE = 'mount --bind "$1" /etc && shift && exec "$@"'


def namespace(etc: Path) -> list[str]:
    return ["unshare", "--mount", "sh", "-c", INSIDE, "inside", str(etc)]


@pytest.fixture(scope="module", params=[pytest.param(OLD, marks=pytest.mark.long), NEW])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine_in(tmp_path_factory.mktemp("managed"), request.param) as made:
        assert made.setup("--person", "Ada")["ok"]
        yield made


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("a mount namespace needs Linux, root and unshare")
    copy = tmp_path_factory.mktemp("etc") / "etc"
    shutil.copytree("/etc", copy, symlinks=True)
    shutil.rmtree(copy / "claude-code", ignore_errors=True)
    tried = subprocess.run([*namespace(copy), "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this machine gives no mount namespace: {tried.stderr.strip()}")
    return copy


@dataclass
class Case:
    """What the files of an administrator say (`more` is in managed-settings.d), what the user's do, what comes of it, what doctor says."""

    name: str
    managed: dict[str, str]
    outcome: str | dict[str, str]
    code: str = ""
    level: str | dict[str, str] = ""
    more: dict[str, str] = field(default_factory=dict)
    user: dict[str, str] = field(default_factory=dict)
    base: bool = True

    def __str__(self) -> str:
        return self.name


OURS = "http://127.0.0.1:{http}"
CASES = (
    Case("nothing is said", {}, EVENTS),
    Case("somewhere else", {ENDPOINT: NOBODY}, NONE, "other-port", "error"),
    Case("no events", {"OTEL_LOGS_EXPORTER": "none"}, NONE, "no-exporter", "error"),
    Case("switched off", {"CLAUDE_CODE_ENABLE_TELEMETRY": "0"}, NONE, "telemetry-off", "error"),
    Case("switched on for all", variables(OURS, "Ada"), EVENTS, base=False),
    Case("other attributes", {RESOURCE: "team=docs"}, NOT_ADA, "person-lost", "warning"),
    Case("a file beside wins", {ENDPOINT: NOBODY}, EVENTS, more={ENDPOINT: OURS}),
    Case("a file beside is wrong", {ENDPOINT: OURS}, NONE, "other-port", "error", more={ENDPOINT: NOBODY}),
    Case("a user's endpoint of one signal beside a managed one", {ENDPOINT: OURS}, {OLD: NONE, NEW: EVENTS}, "signal-endpoint",
         {OLD: "error", NEW: ""}, user={LOGS_ENDPOINT: NOBODY + "/v1/logs"}),
    Case("a user's protocol of one signal beside a managed endpoint", {ENDPOINT: OURS}, NONE, "signal-protocol", "error",
         user={"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"}),
)  # fmt: skip


def outcome_of(machine: Machine, session: str, expected: str) -> str:
    events = machine.events(session, least=0 if expected == NONE else 3)
    names = {event["user_id"] for event in events}
    return NONE if not events else EVENTS if names == {"Ada"} else NOT_ADA


def version_of(machine: Machine) -> str:
    return OLD if OLD in str(Path(machine.client.executable).resolve()) else NEW


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_administrators_files(machine: Machine, etc: Path, case: Case) -> None:
    def filled(values: dict[str, str]) -> dict[str, str]:
        return {name: value.replace("{http}", str(machine.ports["otlp_http"])) for name, value in values.items()}

    folder = etc / "claude-code"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "managed-settings.d").mkdir(parents=True)
    (folder / "managed-settings.json").write_text(json.dumps({"env": filled(case.managed)}))
    if case.more:
        (folder / "managed-settings.d" / "10-more.json").write_text(json.dumps({"env": filled(case.more)}))
    base = variables(f"http://127.0.0.1:{machine.ports['otlp_http']}", "Ada") if case.base else {}
    machine.settings.write_text(json.dumps({"env": base | filled(case.user)}))
    version = version_of(machine)
    outcome = case.outcome if isinstance(case.outcome, str) else case.outcome[version]
    level = case.level if isinstance(case.level, str) else case.level[version]

    machine.client.prefix = namespace(etc)
    try:
        run = machine.session()
    finally:
        machine.client.prefix = []
    assert outcome_of(machine, run.session_id, outcome) == outcome

    examined, planned = (told(machine, etc, *command) for command in (("doctor",), ("setup", "--dry-run")))
    errors = {finding["code"] for finding in examined["findings"] if finding["level"] == "error"}
    if outcome == EVENTS:
        assert not errors, examined
    found = [finding for finding in examined["findings"] if finding["code"] == case.code]
    assert [finding["level"] for finding in found] == ([level] if level else [])
    forced = [check for check in planned["checks"] if check["level"] == "error" and "Managed settings force" in check["what"]]
    assert bool(forced) == (outcome != EVENTS and not case.user)
    if level == "error" and not case.user:
        assert "administrator" in found[0]["mend"] and "administrator" in forced[0]["hint"]


def told(machine: Machine, etc: Path, *command: str) -> Any:
    inside = [*namespace(etc), sys.executable, "-m", "sp_telemetry.cli.main", *command, "--json"]
    done = subprocess.run(inside, env=machine.environ, cwd=machine.book, capture_output=True, text=True, timeout=90)
    return json.loads(done.stdout)


SILENT = {"env": {"OTEL_LOGS_EXPORTER": "none"}}


@pytest.mark.parametrize(
    ("user", "flag", "local", "outcome", "code"),
    [
        (True, {"env": {"CLAUDE_CODE_ENABLE_TELEMETRY": ""}}, {}, NONE, ""),  # as `sp-telemetry env --help` has it
        (True, {"env": {ENDPOINT: NOBODY}}, {}, NONE, ""),
        (False, {"env": variables(OURS, "Ada")}, {}, EVENTS, "telemetry-off"),  # what a doctor can't see, and says
        (True, {}, SILENT, NONE, "repository-silences"),
        (True, {"env": {"OTEL_LOGS_EXPORTER": "otlp"}}, SILENT, EVENTS, "repository-silences"),
        (False, {}, {"env": variables(OURS, "Ada")}, {OLD: EVENTS, NEW: NONE}, {OLD: "", NEW: "telemetry-off"}),
    ],
)
def test_the_flag_and_the_local_file(machine: Machine, user: bool, flag: Any, local: Any, outcome: Any, code: Any) -> None:
    def filled(values: Any) -> str:
        return json.dumps(values).replace("{http}", str(machine.ports["otlp_http"]))

    base = variables(f"http://127.0.0.1:{machine.ports['otlp_http']}", "Ada") if user else {}
    machine.settings.write_text(json.dumps({"env": base}))
    file = machine.book / ".claude" / "settings.local.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(filled(local))
    try:
        version = version_of(machine)
        expected, code = (value if isinstance(value, str) else value[version] for value in (outcome, code))
        run = machine.session(more=["--settings", filled(flag)] if flag else [])
        assert outcome_of(machine, run.session_id, expected) == expected
        findings = json.loads(machine.cli("doctor", "--json").stdout)["findings"]
        errors = {finding["code"] for finding in findings if finding["level"] == "error" and finding["area"] == "settings"}
        assert errors == ({code} if code else set())
    finally:
        file.unlink()

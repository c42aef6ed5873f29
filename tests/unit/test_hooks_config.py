"""What is shipped to the client: manifests, hooks.json, and that the hooks need nothing but an old Python's standard library."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sp_telemetry
from sp_telemetry.reports.catalogue import REPORTS
from sp_telemetry.settings import default_home
from tests.conftest import ROOT
from tests.unit.test_hooks import HOOKS, Session, otlp, session

__all__ = ["otlp", "session"]  # fixtures
pytestmark = [pytest.mark.checkout, pytest.mark.needs("sh", "git")]

# What 2.1.197 knows. An event that it does not know makes it drop the whole file, silently.
KNOWN = {
    "PreToolUse", "PostToolUse", "PostToolUseFailure", "PostToolBatch", "Notification", "UserPromptSubmit", "UserPromptExpansion",
    "SessionStart", "SessionEnd", "Stop", "StopFailure", "SubagentStart", "SubagentStop", "PreCompact", "PostCompact",
    "PermissionRequest", "PermissionDenied", "Setup", "TeammateIdle", "TaskCreated", "TaskCompleted", "Elicitation",
    "ElicitationResult", "ConfigChange", "WorktreeCreate", "WorktreeRemove", "InstructionsLoaded", "CwdChanged", "FileChanged",
    "MessageDisplay",
}
HANDLERS = [(event, entry.get("matcher", ""), hook) for event, entries in HOOKS.items() for entry in entries for hook in entry["hooks"]]
SOURCES = sorted((ROOT / "hooks").rglob("*.py"))


def manifest(name: str) -> dict[str, Any]:
    return json.loads((ROOT / ".claude-plugin" / name).read_text())


def load(name: str) -> ModuleType:
    """A module of hooks/lib by itself, as far as it needs no sibling but quickjson."""
    sys.path.insert(0, str(ROOT / "hooks" / "lib"))
    try:
        spec = importlib.util.spec_from_file_location(f"hooks_{name}", ROOT / "hooks" / "lib" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "hooks" / "lib"))


def test_the_manifests_name_one_plugin_of_this_version() -> None:
    plugin, market = manifest("plugin.json"), manifest("marketplace.json")
    assert plugin["version"] == sp_telemetry.__version__
    assert [(entry["name"], entry["source"]) for entry in market["plugins"]] == [(plugin["name"], "./")]
    assert re.fullmatch(r"[a-z][a-z-]*", plugin["name"])


def test_the_commands_bear_their_bare_names() -> None:
    folder = ROOT / manifest("plugin.json")["skills"]
    names = {file.parent.name: re.search(r"^name: (.*)$", file.read_text(), re.M).group(1) for file in folder.glob("*/SKILL.md")}
    assert {"sp.telemetry-setup", "telemetry-report"} <= set(names)
    assert all(directory == name for directory, name in names.items())


def test_what_is_shown_while_a_report_is_typed_names_each() -> None:
    """`…` stands for what has a hyphen: another view of one of them."""
    hint = re.search(r'^argument-hint: "\[([a-z|]+) …\]', (ROOT / "commands/telemetry-report/SKILL.md").read_text("utf-8"), re.M).group(1)
    assert hint.split("|") == [*(name for name in REPORTS if "-" not in name), "audit"]


def test_no_argument_meets_a_shell_in_a_skill() -> None:
    """The client puts arguments into a shell line as they are: `"; touch x; "` runs, quoted or not (seen on 2.1.197 and 2.1.330)."""
    for file in (ROOT / "commands").glob("*/SKILL.md"):
        assert not re.search(r"\$(ARGUMENTS|[0-9])", file.read_text()), file


@pytest.mark.parametrize(("event", "matcher", "hook"), HANDLERS)
def test_every_hook_is_one_that_both_clients_can_run(event: str, matcher: str, hook: dict[str, Any]) -> None:
    assert event in KNOWN
    # They would replace the making of worktrees, and could stop their removal.
    assert event not in ("WorktreeCreate", "WorktreeRemove")
    assert set(hook) == {"type", "command", "args", "timeout"}
    assert (hook["type"], hook["command"]) == ("command", "sh")
    assert 0 < hook["timeout"] <= 5
    script, what = hook["args"]  # each placeholder is an argument of its own: no shell splits a path
    assert script.startswith("${CLAUDE_PLUGIN_ROOT}/")
    file = ROOT / script.removeprefix("${CLAUDE_PLUGIN_ROOT}/")
    assert file.is_file()
    assert what in file.read_text()
    re.compile(matcher)


def test_the_report_hook_matches_its_command_alone() -> None:
    (matcher,) = [matcher for event, matcher, _ in HANDLERS if event == "UserPromptExpansion"]
    assert re.search(matcher, "telemetry-report")
    assert re.search(matcher, manifest("plugin.json")["name"] + ":telemetry-report")
    assert not re.search(matcher, "my-telemetry-report")
    assert not re.search(matcher, "another-plugin:telemetry-report")
    assert not re.search(matcher, "telemetry-report-all")


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.name)
def test_hooks_are_python_3_9_and_standard_library_alone(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 9))
    siblings = {path.stem for folder in ("hooks/lib", "src/sp_telemetry/context") for path in (ROOT / folder).glob("*.py")}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name in siblings or name.partition(".")[0] in sys.stdlib_module_names, name
            assert "sp_telemetry" not in name
        strict = isinstance(node, ast.Call) and any(keyword.arg == "strict" for keyword in node.keywords)
        assert not strict, "zip(strict=…) is of 3.10"


def test_a_hook_imports_nothing_heavy(session: Session) -> None:
    session.start()
    call = json.dumps({"session_id": session.id, "cwd": str(session.cwd), "hook_event_name": "UserPromptSubmit", "prompt": "/plan"})
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-X", "importtime", str(ROOT / "hooks" / "hook.py"), "prompt", "", ""]
    done = subprocess.run(command, input=call, env=session.environment, cwd=session.cwd, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"session", "rules", "wire"} <= imported
    heavy = {
        "json", "re", "dataclasses", "typing", "enum", "signal", "socket", "http.client", "subprocess", "shlex", "contextlib",
        "tempfile", "uuid", "pathlib", "urllib", "tomllib",
    }
    assert imported.isdisjoint(heavy)


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize(
    "environ",
    [
        {"HOME": "/home/ada"},
        {"HOME": "/home/ada", "SP_TELEMETRY_HOME": "/srv/sp telemetry"},
        {"HOME": "/home/ada", "SP_TELEMETRY_HOME": "relative/place"},
        {"HOME": "/home/ada", "SP_TELEMETRY_HOME": "~/mine"},
        {"HOME": "/home/ada", "SP_TELEMETRY_HOME": ""},
        {"HOME": "/home/ada", "XDG_DATA_HOME": "/data/ada"},
        {"HOME": "/home/ada", "LOCALAPPDATA": "/windows/local"},
        {"USERPROFILE": "/users/ada"},
        {},
    ],
)
def test_hooks_and_package_agree_where_home_is(environ: dict[str, str], platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", environ.get("HOME", "/home/ada"))
    assert load("places").home(environ, platform) == str(default_home(environ, platform))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ('person = "Ada \\"L\\" \\u00e9" # who\n', {"person": 'Ada "L" é'}),
        ("person = 'C:\\Ada'\nautostart = false # no\nport = 4_318\n", {"person": "C:\\Ada", "autostart": False, "port": 4318}),
        ('[table]\nperson = "Bob"\n', {}),
        ('broken\nperson = "Ada"\n"quoted" = true\nx = [1]\ny = "open\n', {"person": "Ada", "quoted": True}),
    ],
)
def test_the_top_of_a_toml_file(text: str, expected: dict[str, Any]) -> None:
    assert load("places").top_level(text) == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_quick_json_reads_and_writes_as_json_does(value: Any) -> None:
    quick = load("quickjson")
    assert json.loads(quick.dumps(value)) == value
    assert quick.loads(" \r\n\t" + json.dumps(value, indent=1)) == value


@pytest.mark.parametrize("text", ["", " ", "{", '{"a":', '{"a" 1}', "[1,", '"open', '"\\u12"', "nul", "-", "'a'", "{1:2}"])
def test_quick_json_refuses_what_json_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        load("quickjson").loads(text)


def test_quick_json_writes_no_number_that_json_lacks() -> None:
    assert load("quickjson").dumps([math.inf, -math.inf, math.nan]) == "[null,null,null]"

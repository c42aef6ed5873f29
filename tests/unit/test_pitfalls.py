"""docs/pitfalls.md is true, and what no other test holds of it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from sp_telemetry import resources
from sp_telemetry.store.schema import statements
from tests.conftest import ROOT

SQL = sorted(resources.path("telemetry-server").rglob("*.sql"))


@cache
def _tests_of(file: Path) -> set[str]:
    if not file.is_file():
        return set()
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.checkout
def test_every_row_has_tests_that_exist():
    rows = re.findall(r"^\| (A?\d+) \|([^|]*)\|([^|]*)\|([^|]*)\|$", (ROOT / "docs" / "pitfalls.md").read_text(), re.MULTILINE)
    assert [number for number, *_ in rows] == [f"A{number}" for number in range(1, 16)] + [str(number) for number in range(1, 35)]
    for number, wrong, tests, said in rows:
        named = re.findall(r"`([\w/.]+\.py)::(\w+)`", tests)
        assert named and wrong.strip() and said.strip(), number
        for file, test in named:
            assert test in _tests_of(ROOT / file), (number, file, test)


@pytest.mark.checkout
@pytest.mark.parametrize("number", range(1, 10))
def test_each_pitfall_of_counting_has_a_test_of_its_name(number):
    names = {name for file in (ROOT / "tests" / "store").glob("test_*.py") for name in _tests_of(file)}
    assert [name for name in names if name.startswith(f"test_pitfall_{number:02}_")]


@pytest.mark.checkout
@pytest.mark.needs("git")
def test_pitfall_a04_no_password_is_committed():
    """No file of a kind that holds credentials, and no assignment of one that is more than a variable's name."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    assert not [name for name in listed if re.search(r"(^|/)(\.env|CREDENTIALS[^/]*|id_rsa|.*\.pem|.*\.key|secrets/.*)$", name)]
    assigned = re.compile(r"^\s*[A-Z_]*(PASSWORD|SECRET|TOKEN)[A-Z_]*\s*[=:]\s*['\"]?[A-Za-z0-9+/_-]{12,}['\"]?\s*$", re.MULTILINE)
    for name in listed:
        path = ROOT / name
        if path.suffix in (".md", ".sh", ".yml", ".yaml", ".toml", ".env", ".template", ".json", ".sql") and path.is_file():
            assert not assigned.search(path.read_text(errors="replace")), name


def test_pitfall_a05_no_shell_variable_in_sql():
    assert SQL
    assert [file.name for file in SQL if "${" in file.read_text()] == []


def test_pitfall_a09_no_table_adds_up_on_its_own():
    """Sums are made from events; a table that adds up at merges is wrong after the first copy."""
    assert [file.name for file in SQL if re.search(r"\b(Summing|Aggregating)MergeTree\b", file.read_text())] == []


@pytest.mark.checkout
def test_pitfall_21_the_readme_says_what_cost_is():
    text = " ".join((ROOT / "README.md").read_text().split()).lower()
    assert "list price" in text and "subscription" in text


@pytest.mark.checkout
def test_pitfall_29_nothing_hangs_on_the_end_of_a_session():
    hooks = json.loads((ROOT / "hooks" / "hooks.json").read_text())["hooks"]
    assert not {"SessionEnd", "Stop"} & set(hooks)


@pytest.mark.checkout
def test_pitfall_31_the_plugin_needs_no_configuration_of_the_client():
    manifest = json.loads((ROOT / ".claude-plugin" / "plugin.json").read_text())
    assert not {"userConfig", "settings"} & set(manifest)


def test_pitfall_33_what_changes_is_in_no_key():
    """What attribution writes anew must be neither in the sorting key nor in the TTL, or a row's new copy is another row."""
    folder = resources.path("telemetry-server/clickhouse")
    written = re.search(r"REPLACE\s*\((.*?)\n    \)", (folder / "maintenance" / "reattribute.sql").read_text(), re.DOTALL)[1]
    changed = set(re.findall(r"\bAS (\w+)\s*(?:,|$)", written, re.MULTILINE))
    assert {"feature", "chapter_context", "branch", "version"} <= changed
    schema = (folder / "schema" / "0003_telemetry_events.sql").read_text()
    [events] = [each for each in statements(schema) if "TABLE IF NOT EXISTS telemetry.telemetry_events" in each]
    keys = re.search(r"PARTITION BY .*?(?=SETTINGS)", events, re.DOTALL)[0]
    assert not changed & set(re.findall(r"\w+", keys))

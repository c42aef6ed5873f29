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
def test_pitfall_a15_every_row_has_tests_that_exist():
    """Each link is of a test to the file that has it, and of each row one test at least has the row's number in its name."""
    text = (ROOT / "docs" / "pitfalls.md").read_text()
    rows = re.findall(r"^\| (A?\d+) \|([^|]*)\|([^|]*)\|([^|]*)\|$", text, re.MULTILINE)
    assert [number for number, *_ in rows] == [f"A{number}" for number in range(1, 16)] + [str(number) for number in range(1, 35)]
    linked = {}
    for number, wrong, tests, said in rows:
        named = re.findall(r"\[(\w+)\]\(\.\./([\w/.]+\.py)\)", tests)
        assert wrong.strip() and said.strip(), number
        assert " ".join(f"[{test}](../{file})" for test, file in named) == tests.strip(), number
        for test, file in named:
            assert test in _tests_of(ROOT / file), (number, file, test)
        linked[f"a{int(number[1:]):02}" if number[0] == "A" else f"{int(number):02}"] = {test for test, _ in named}
    called = {name for file in (ROOT / "tests").rglob("test_*.py") for name in _tests_of(file) if name.startswith("test_pitfall_")}
    for row, named in linked.items():
        ours = {name for name in called if name.startswith(f"test_pitfall_{row}_")}
        assert ours and ours <= named, (row, ours - named)
        called -= ours
    assert not called, "of no row"


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


def test_pitfall_a06_images_have_versions():
    template = resources.path("telemetry-server/.env.template").read_text()
    images = re.findall(r"^\w+_IMAGE=(.+)$", template, re.MULTILINE)
    assert len(images) == 2 and all(re.fullmatch(r"[\w/.-]+:\d+(\.\d+)+", image) for image in images), images
    compose = resources.path("telemetry-server/docker-compose.yml").read_text()
    used = set(re.findall(r"^    image: (?:&\w+ )?(\S+?)(?::\?|$)", compose, re.MULTILINE))
    assert used == {"${CLICKHOUSE_IMAGE", "*clickhouse", "${COLLECTOR_IMAGE"}


def test_pitfall_a07_nothing_is_run_in_an_image_that_has_nothing_to_run():
    """The collector's image has no shell and no wget: another service asks it. tests/e2e/test_compose.py has all healthy in Docker."""
    compose = resources.path("telemetry-server/docker-compose.yml").read_text()
    services = dict(re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", compose.partition("\nservices:\n")[2], re.MULTILINE))
    asked = {name: found[1] for name, text in services.items() if (found := re.search(r"healthcheck:\n +test: (.*)", text))}
    assert asked == {
        "clickhouse": '[CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8123/ping"]',
        "probe": '[CMD, wget, -q, -O, /dev/null, "http://collector:13133/"]',
    }
    assert "image: *clickhouse" in services["probe"] and "COLLECTOR_IMAGE" in services["collector"]


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

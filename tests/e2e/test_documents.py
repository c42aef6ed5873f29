"""The documents' commands run as printed, and print what the documents show."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client import VERSIONS, ClaudeCode, executable
from tests.client.install import ClientUnavailable
from tests.conftest import ROOT, require

pytestmark = pytest.mark.checkout

README = (ROOT / "README.md").read_text()
FREE_PORTS = {f"SP_TELEMETRY_{name}_PORT": "0" for name in ("OTLP_HTTP", "OTLP_GRPC", "CLICKHOUSE", "HEALTH", "METRICS")}
#: run by tests of their own (the plugin's below), or by the very run that this test is part of
ELSEWHERE = ("scripts/test", "claude plugin ")


def console_blocks(text: str) -> list[str]:
    return re.findall(r"```console\n(.*?)```", text, re.DOTALL)


def commands(block: str) -> list[str]:
    """The lines behind `$ `, with continued lines joined and comments left out."""
    joined = block.replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory):
    """An empty home with `sp-telemetry` on the PATH, as the README assumes it."""
    home = tmp_path_factory.mktemp("empty home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SP_TELEMETRY_", "PYTHON", "XDG_"))}
    environment |= {"HOME": str(home), "PATH": f"{ROOT / 'scripts'}{os.pathsep}{os.environ['PATH']}", **FREE_PORTS, "TZ": "UTC"}
    yield environment
    subprocess.run(["sp-telemetry", "down"], env=environment, cwd=ROOT, capture_output=True, timeout=120)


def run(command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_demo_prints_what_the_readme_shows_and_leaves_nothing(environment: dict[str, str]) -> None:
    block = console_blocks(README)[0]
    command, *shown = block.rstrip("\n").split("\n")
    assert shown.pop() == "…"
    done = run(command.removeprefix("$ "), environment)
    assert done.returncode == 0, done.stderr
    assert "\n".join(shown) in done.stdout
    assert list(Path(environment["HOME"]).iterdir()) == []
    scratch = re.search(r"server in (\S+)", done.stderr)[1]
    assert not Path(scratch).exists()


def test_every_command_of_the_readme_runs(environment: dict[str, str]) -> None:
    require(shutil.which("curl"), "curl is not installed")
    port = None
    for block in console_blocks(README)[1:]:
        for command in commands(block):
            if command.startswith(ELSEWHERE):
                continue
            if port:  # the tests' server took free ports; the documents name the usual ones
                command = command.replace("localhost:8123", f"localhost:{port}")
            done = run(command, environment)
            answered = done.returncode == 0 or "Nothing" in done.stderr + done.stdout  # a report over an empty store says so
            assert answered, f"$ {command}\n{done.stdout}{done.stderr}"
            if command.startswith("sp-telemetry up"):
                port = re.search(r"ClickHouse HTTP on :(\d+)", done.stdout)[1]
            if command.startswith("sp-telemetry down"):
                port = re.search(r"ClickHouse HTTP on :(\d+)", run("sp-telemetry up", environment).stdout)[1]


@pytest.mark.needs("node", "npm", "git")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_plugin_is_installed_as_the_readme_says(tmp_path: Path, version: str) -> None:
    try:
        client = ClaudeCode(executable(version), tmp_path, "http://127.0.0.1:1")
    except ClientUnavailable as reason:
        require(False, str(reason))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "claude").symlink_to(client.executable)
    environment = client.environment(PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    typed = [command for block in console_blocks(README) for command in commands(block) if command.startswith("claude plugin ")]
    assert len(typed) == 2
    for command in typed:
        done = run(command, environment)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"


def test_every_command_has_help_with_examples(environment: dict[str, str]) -> None:
    listed = run("sp-telemetry --help", environment).stdout
    assert "example" in listed
    names = re.findall(r"^    (\w+) ", listed, re.MULTILINE)
    assert {"demo", "report", "context", "up", "down", "status", "logs", "serve", "sql"} <= set(names)
    for name in names:
        done = run(f"sp-telemetry {shlex.quote(name)} --help", environment)
        assert done.returncode == 0, done.stderr
        assert "example" in done.stdout, name


def test_every_link_of_the_documents_leads_somewhere() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "telemetry-server").rglob("*.md")]
    missing = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert missing == []

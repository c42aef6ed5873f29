"""The command line where there is neither fcntl nor the engine: what works does, and the rest says in a sentence what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Importing a module that stands in sys.modules as None fails as one that is not there.
LACKING = """
import sys
sys.modules.update(dict.fromkeys(("fcntl", "pwd", "grp", "resource", "termios", "chdb", "_chdb")))
from sp_telemetry.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
NO_ENGINE = "The embedded server does not run here: the database engine has no build for Windows."


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: os.environ[name] for name in ("PATH", "PYTHONPATH")}
    ports = {f"SP_TELEMETRY_{name}_PORT": "1" for name in ("OTLP_HTTP", "CLICKHOUSE")}
    environ |= {"HOME": str(folder), "USER": "ada", "SP_TELEMETRY_HOME": str(folder / "sp")} | ports
    command = [sys.executable, "-c", LACKING, *arguments]
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("command", [["up"], ["restart"], ["serve"], ["demo"]])
def test_what_needs_the_engine_says_so(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command)
    assert done.returncode == 2 and NO_ENGINE in done.stderr and "WSL" in done.stderr


def test_set_up_changes_nothing_and_says_why(tmp_path: Path) -> None:
    dry = json.loads(run(tmp_path, "setup", "--dry-run", "--json").stdout)
    assert not dry["ok"] and NO_ENGINE in [check["what"] for check in dry["checks"] if check["level"] == "error"]
    refused = run(tmp_path, "setup", "--yes", "--json", "--force")
    assert refused.returncode == 1 and json.loads(refused.stdout)["error"] == NO_ENGINE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["--help"], 0), (["env", "--shell", "powershell"], 0), (["report"], 0), (["report", "cost"], 3), (["sql", "SELECT 1"], 3),
        (["status"], 3), (["doctor", "--json"], 2), (["down"], 0), (["logs"], 0), (["uninstall", "--json"], 0), (["context", "--json"], 0),
    ],
)  # fmt: skip
def test_what_a_server_elsewhere_answers_works(tmp_path: Path, command: list[str], code: int) -> None:
    assert run(tmp_path, *command).returncode == code

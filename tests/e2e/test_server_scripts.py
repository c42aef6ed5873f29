"""telemetry-server/scripts/verify-setup.sh and test-connection.sh on a real server: what they find, and how all of them are asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, require
from tests.e2e.shell import SCRIPTS, running

__all__ = ["running"]  # a fixture
pytestmark = [pytest.mark.checkout, pytest.mark.needs("curl")]
NAMES = ("verify-setup.sh", "test-connection.sh", "backup-data.sh", "restore-data.sh")


def states(found: dict) -> dict[str, str]:
    return {check["name"]: check["state"] for check in found["checks"]}


def test_shellcheck_finds_nothing() -> None:
    require(shutil.which("shellcheck"), "shellcheck not found")
    scripts = sorted(map(str, SCRIPTS.parent.rglob("*.sh")))
    done = subprocess.run(["shellcheck", "--external-sources", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "" and done.returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_help_has_examples_and_wrong_usage_is_told(name: str) -> None:
    helped = subprocess.run([SCRIPTS / name, "--help"], capture_output=True, text=True)
    assert (
        helped.returncode == 0
        and f"usage: {name}" in helped.stdout
        and "\nexamples:\n  " in helped.stdout
        and "exit codes: 0" in helped.stdout
    )
    for arguments in (["--none-such"], ["--backend", "cloud"], ["--home"]):
        wrong = subprocess.run([SCRIPTS / name, *arguments], capture_output=True, text=True)
        assert wrong.returncode == 2 and wrong.stdout == "" and wrong.stderr.startswith(f"{name}: "), (arguments, wrong)


# ---- verify-setup.sh


def test_a_set_up_machine_is_well(running) -> None:
    started, shell = running
    found = shell.json("verify-setup.sh")
    assert states(found) == dict.fromkeys(states(found), "ok") and found["well"] is True
    ports = {f"port_{name}" for name in started.ports}
    assert set(states(found)) == {"curl", "python", "home", "telemetry_user", "telemetry_reader", "disk", "memory"} | ports
    plain = shell("verify-setup.sh")
    assert plain.returncode == 0 and plain.stdout.endswith("\nAll is well.\n")
    assert f"ok       Port {started.ports['clickhouse']} (clickhouse) is held by our server\n" in plain.stdout


def test_what_is_in_the_way_is_named(running, tmp_path: Path) -> None:
    _, shell = running
    home = tmp_path / "another"
    (home / "secrets").mkdir(parents=True)
    home.chmod(0o755)
    (home / "secrets/telemetry_user").write_text("made up here\n")
    (home / "secrets/telemetry_user").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = shell("verify-setup.sh", "--home", home, SP_TELEMETRY_CLICKHOUSE_PORT=port)
    assert done.returncode == 1
    holder = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
    assert f"error    Port {port} (clickhouse) is held by {holder}\n         -> End that program, or take another port" in done.stdout
    assert f"warning  {home}/secrets/telemetry_user may be read by others\n         -> chmod go-rwx" in done.stdout
    assert f"error    {home}/secrets/telemetry_reader is not there" in done.stdout
    assert f"warning  {home} may be read by others" in done.stdout
    assert "made up here" not in done.stdout + done.stderr


def test_docker_that_does_not_answer_is_told(running, tmp_path: Path) -> None:
    _, shell = running
    done = shell("verify-setup.sh", "--backend", "compose", "--home", tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 1
    assert re.search(r"^error    (Docker does not answer|There is no docker on PATH)$", done.stdout, re.M)
    assert re.search(r"^error    (Not there: .*docker-compose\.yml|.*/\.env is not there)", done.stdout, re.M)


# ---- test-connection.sh


def test_the_whole_way_is_tried_and_no_password_is_on_a_command_line(running, tmp_path: Path) -> None:
    started, shell = running
    curl, log = shutil.which("curl"), tmp_path / "calls"
    (tmp_path / "curl").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{log}"\nenv >>"{log}"\nexec "{curl}" "$@"\n')
    (tmp_path / "curl").chmod(0o755)
    noted = {"PATH": f"{tmp_path}{os.pathsep}{shell.environ['PATH']}"}
    before = started.query("SELECT count() FROM telemetry.telemetry_events WHERE event_type = 'sp_telemetry.setup_check'")[0][0]
    done = shell("test-connection.sh", "--json", **noted)
    found = json.loads(done.stdout)
    names = ["ping", "telemetry_reader", "telemetry_user", "password", "database", "reader", "otlp_http", "otlp_grpc", "health", "metrics"]
    assert states(found) == dict.fromkeys([*names, "event"], "ok") and done.returncode == 0
    after = started.query("SELECT count() FROM telemetry.telemetry_events WHERE event_type = 'sp_telemetry.setup_check'")[0][0]
    assert after == before + 1
    assert shell("backup-data.sh", "--to", tmp_path / "b", **noted).returncode == 0
    told = log.read_text()
    assert "BACKUP DATABASE telemetry" in told and "--config" in told
    for name in ("telemetry_user", "telemetry_reader"):
        assert started.home.secret(name) not in told


def test_a_server_that_is_down_or_another_ones_is_told(running, tmp_path: Path) -> None:
    _, shell = running
    down = shell("test-connection.sh", "--url", "http://127.0.0.1:9")
    assert down.returncode == 1 and down.stdout.startswith("error    Nobody answers at http://127.0.0.1:9 as ClickHouse does\n         -> ")
    for name in ("telemetry_user", "telemetry_reader"):
        (tmp_path / name).write_text('made "up" \\here\n')
    other = states(shell.json("test-connection.sh", "--secrets", tmp_path))
    assert {name: other[name] for name in ("ping", "telemetry_reader", "telemetry_user", "password", "event")} == {
        "ping": "ok", "telemetry_reader": "error", "telemetry_user": "error", "password": "ok", "event": "error",
    }  # fmt: skip

"""telemetry-server/README.md, and the scripts on the Compose stack: its commands run in their order on a real Docker Engine, with the
stand-in for ClickHouse's image, and print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, require
from tests.docker import images
from tests.docker.engine import EngineUnavailable, running
from tests.docker.stack import PORTS, Stack
from tests.server import as_json, log_request, wait_for

pytestmark = [pytest.mark.checkout, pytest.mark.needs("curl"), pytest.mark.timeout(1500)]
DOCUMENT = (ROOT / "telemetry-server/README.md").read_text()
TEMPLATE = (ROOT / "telemetry-server/.env.template").read_text()
#: run by test_compose.py on such a stack
ELSEWHERE = ("sp-telemetry down", "sp-telemetry up", "sp-telemetry down --volumes --yes")
USUAL = dict(re.findall(r"^(\w+)_PORT=(\d+)$", TEMPLATE, re.M))


def test_ports_and_variables_are_those_of_the_template() -> None:
    named = dict(re.findall(r"^\| (\d+) \| `(\w+)_PORT` \|", DOCUMENT, re.M))
    assert {name: port for port, name in named.items()} == USUAL and set(USUAL) == set(PORTS)
    table = DOCUMENT.partition("## .env\n")[2].partition("\n## ")[0]
    variables = {name for row in re.findall(r"^\| (`[^|]*) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
    shipped = set(re.findall(r"^([A-Z_]+)=", TEMPLATE, re.M)) - {f"{name}_PORT" for name in PORTS}
    assert variables == shipped - {"TELEMETRY_BIND", "CLICKHOUSE_CONFIGURATION", "COLLECTOR_CONFIGURATION"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    try:
        with running() as engine:
            images.make(engine)
            made = Stack(engine, tmp_path_factory.mktemp("documented"))
            made.home = made.user / ".local/share/sp-telemetry"
            programs = made.folder / "bin"
            programs.mkdir()
            (programs / "sp-telemetry").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sp_telemetry.cli.main "$@"\n')
            (programs / "sp-telemetry").chmod(0o755)
            made.environ |= {"SP_TELEMETRY_HOME": str(made.home), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "TZ": "UTC"}
            yield made
    except EngineUnavailable as reason:
        require(False, str(reason))


def request(stack: Stack) -> None:
    event = {"name": "api_request", "time_ns": time.time_ns(), "session.id": str(uuid.uuid4()), "event.sequence": 1, "cost_usd": 1.0}
    body = as_json(log_request([event]))
    url = f"http://127.0.0.1:{stack.ports['OTLP_HTTP']}/v1/logs"
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=10) as answer:
        assert answer.status == 200
    assert wait_for(lambda: stack.sql("SELECT sum(cost_usd) FROM telemetry_events FINAL") == [["1"]], 60, 1)


def alike(text: str) -> str:
    """`text` without what differs from machine to machine: versions and numbers."""
    return re.sub(r"\d+", "0", re.sub(r"(curl|Engine|Compose) \d\S*", r"\1 0", text))


def test_each_command_runs_and_prints_what_is_shown(stack: Stack, tmp_path: Path) -> None:
    blocks = "".join(re.findall(r"```console\n(.*?)```", DOCUMENT, re.DOTALL))
    shown = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)
    assert len(shown) == 14
    before = 0
    for command, expected in shown:
        if command in ELSEWHERE:
            continue
        if command.endswith("--keep 7"):  # something that counts, so that --replace has something to keep
            request(stack)
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=stack.environ, capture_output=True, text=True, timeout=300)
        said = f"$ {command}\n{done.stdout}{done.stderr}"
        # an empty report says so, and the doctor warns that no client has sent anything yet
        answered = done.returncode == 0 or "Nothing" in done.stderr or (command == "sp-telemetry doctor" and "✗" not in done.stdout)
        assert answered, said
        if expected:
            printed = done.stdout.replace(str(stack.home), "/home/ada/.local/share/sp-telemetry")
            assert alike(printed) == alike(expected), said
        if command.endswith("--keep 7"):
            before = int(stack.sql("SELECT count() FROM telemetry_events FINAL")[0][0])
            made = [entry for entry in (stack.home / "backups").iterdir() if entry.name.startswith("telemetry-")]
            assert len(made) == 2 and all(file.stat().st_mode & 0o077 == 0 for one in made for file in [one, *one.rglob("*")])
            assert stack.engine.docker("exec", "sp-telemetry-clickhouse-1", "ls", "-A", "/backups").stdout == ""
        if command.endswith("--replace"):
            assert int(stack.sql("SELECT count() FROM telemetry_events FINAL")[0][0]) == before > 1
            assert [entry for entry in (stack.home / "backups").iterdir() if entry.name.startswith("before-restore-")]
            again = subprocess.run(
                [ROOT / "telemetry-server/scripts/test-connection.sh"], env=stack.environ, capture_output=True, text=True
            )
            assert again.returncode == 0, again.stdout


def test_a_backup_with_another_salt_than_the_collectors_replaces_nothing(stack: Stack) -> None:
    secret, stored = stack.home / "secrets/telemetry_salt", "SELECT count(), sum(cost_usd) FROM telemetry_events FINAL"
    own, before = secret.read_text(), stack.sql(stored)
    backup = next((stack.home / "backups").glob("telemetry-*.sha256")).stem
    secret.write_text("of another installation\n")
    script = [ROOT / "telemetry-server/scripts/restore-data.sh", backup, "--replace"]
    refused = subprocess.run(script, env=stack.environ, capture_output=True, text=True, timeout=120)
    secret.write_text(own)
    assert refused.returncode == 1 and "hashes with another salt than the collector, so nothing was replaced." in refused.stderr, refused
    assert own.strip() not in refused.stdout + refused.stderr
    assert stack.sql(stored) == before and len(before[0]) == 2
    assert stack.sql("SELECT count() FROM system.databases WHERE name = 'telemetry_restored'") == [["0"]]


def test_a_store_that_is_away_looks_as_troubleshooting_shows(stack: Stack) -> None:
    troubles = (ROOT / "telemetry-server/docs/troubleshooting.md").read_text()
    shown = re.search(r"### The store is away\n\n```console\n(.*?)```", troubles, re.DOTALL)[1]
    stack.engine.docker("stop", "sp-telemetry-clickhouse-1")
    said = stack.command("doctor", code=2)
    assert all(line in said.splitlines() for line in shown.splitlines()), said

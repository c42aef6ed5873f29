"""Set-up by hand in a terminal, from inside a session, killed in the middle, twice at once."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sp_telemetry.home import Home
from sp_telemetry.setup import claude_settings
from tests.client import VERSIONS, Reply, Script, ToolUse
from tests.e2e.test_setup import ORIGINAL, PORTS, free_ports, machine_in


class Bare:
    """A home directory without a client, and ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "sp")
        self.settings = folder / "home" / ".claude" / "settings.json"
        self.settings.parent.mkdir(parents=True)
        self.settings.write_bytes(ORIGINAL)
        ports = {f"SP_TELEMETRY_{name.upper()}_PORT": str(port) for name, port in zip(PORTS, free_ports(5), strict=True)}
        self.environ = {
            "HOME": str(folder / "home"),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ["PYTHONPATH"],
            "SP_TELEMETRY_HOME": str(self.home.path),
            "USER": "ada",
            **ports,
        }

    def start(self, *arguments: str, **more: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sp_telemetry.cli.main", *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        return subprocess.Popen(command, env=self.environ, cwd=self.settings.parents[1], text=True, **pipes)

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=90)
        return process.returncode, out + err


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    made = Bare(tmp_path)
    yield made
    made.run("down")


def test_killed_at_any_moment_it_can_be_run_again(bare: Bare) -> None:
    for delay in (0.05, 0.15, 0.25, 0.4, 0.8, 1.6, 2.4, 3.2):
        process = bare.start("setup", "--yes", "--person", "Ada")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        json.loads(bare.settings.read_bytes())  # whole, old or new
    code, told = bare.run("setup", "--yes", "--json", "--person", "Ada")
    assert code == 0 and json.loads(told)["verified"]["person"] == "Ada"
    assert bare.run("uninstall")[0] == 0
    assert bare.settings.read_bytes() == ORIGINAL
    assert sorted(path.name for path in bare.settings.parent.iterdir()) == ["settings.json"]


def test_twice_at_once(bare: Bare) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: bare.run("setup", "--yes", "--person", "Ada"), range(3)))
    assert {code for code, _ in results} <= {0, 4} and any(code == 0 for code, _ in results)
    assert all("Another set-up" in told for code, told in results if code == 4)
    assert bare.run("setup", "--yes")[0] == 0
    assert bare.run("uninstall")[0] == 0 and bare.settings.read_bytes() == ORIGINAL


@pytest.mark.parametrize(
    ("typed", "person", "backfill"), [("\n\n\n", "ada", False), ("Ada Lovelace\ny\ny\n", "Ada Lovelace", True), ("\n\nn\n", None, False)]
)
def test_in_a_terminal_it_asks(bare: Bare, typed: str, person: str | None, backfill: bool) -> None:
    ours, theirs = pty.openpty()
    process = bare.start("setup", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    screen = shown.decode()
    assert process.wait(timeout=60) == 0, screen
    assert "Name to report under [ada]" in screen and "fill in what is missing?" in screen and "Go on? [Y/n]" in screen
    if person is None:
        assert "Nothing was changed." in screen and bare.settings.read_bytes() == ORIGINAL and not bare.home.path.exists()
    else:
        assert f"read back under the name {person}" in screen
        assert bare.home.settings().backfill is backfill  # only after a clear yes
        assert claude_settings.read(bare.settings).env["OTEL_RESOURCE_ATTRIBUTES"].endswith("=" + person.replace(" ", "%20"))


def test_ctrl_d_leaves_a_question(bare: Bare) -> None:
    ours, theirs = pty.openpty()
    process = bare.start("setup", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, b"\x04")
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    assert process.wait(timeout=60) == 130 and b"Traceback" not in shown and shown.endswith(b"\r\n"), shown.decode()
    assert bare.settings.read_bytes() == ORIGINAL and not bare.home.path.exists()


def test_nobody_to_ask(bare: Bare) -> None:
    code, told = bare.run("setup")
    assert code == 2 and "nobody to ask" in told and not bare.home.path.exists()
    code, told = bare.run("setup", "--json")
    assert code == 2 and "--json asks nothing" in told


@pytest.mark.needs("node", "npm", "git")
@pytest.mark.parametrize("version", VERSIONS)
def test_from_inside_a_session(tmp_path: Path, version: str) -> None:
    """What /sp.telemetry-setup has Claude run: the server outlives the session, and the next one is stored."""
    script = Script()
    with machine_in(tmp_path, version, script) as machine:
        ports = " ".join(f"--port {name}={port}" for name, port in machine.ports.items())
        variables = f"SP_TELEMETRY_HOME='{machine.home.path}' PYTHONPATH='{os.environ['PYTHONPATH']}'"
        command = f"{variables} '{sys.executable}' -m sp_telemetry.cli.main"
        script.on(
            "set it up",
            Reply("1", ToolUse("Bash", command=f"{command} setup --json --dry-run {ports}")),
            Reply("2", ToolUse("Bash", command=f"{command} setup --json --yes --person 'Ada O'\\''Neill' {ports}")),
            Reply("restart Claude Code"),
        )
        first = machine.session("set it up")
        assert first.result["result"] == "restart Claude Code"
        assert machine.home.server() and machine.events(first.session_id) == []  # it had started before
        second = machine.session()
        assert {event["user_id"] for event in machine.events(second.session_id, least=3)} == {"Ada O'Neill"}

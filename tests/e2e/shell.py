"""telemetry-server/scripts as a person runs them, on a server that has had a day of sessions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_telemetry.setup.replay import Recording, replay
from tests.conftest import ROOT
from tests.server import Server, server

SCRIPTS = ROOT / "telemetry-server/scripts"
RECORDED = ROOT / "tests/recordings/book-2.1.330-http-protobuf"


class Shell:
    """The scripts as a person runs them for one installation, with `sp-telemetry` on the PATH."""

    def __init__(self, of: Server, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        program = folder / "sp-telemetry"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sp_telemetry.cli.main "$@"\n')
        program.chmod(0o755)
        self.environ = {**of.environ, "SP_TELEMETRY_HOME": str(of.home.path), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}

    def start(self, name: str, *arguments: str, **environ: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(SCRIPTS / name), *map(str, arguments)],
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, name: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
        process = self.start(name, *arguments, **environ)
        out, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(name, process.returncode, out, errors)

    def json(self, name: str, *arguments: str) -> dict:
        done = self(name, *arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Shell]]:
    """A server that has had a day of a book's sessions, and their transcripts."""
    folder = tmp_path_factory.mktemp("scripts")
    configuration = folder / "claude"
    configuration.mkdir()
    (configuration / "projects").symlink_to(RECORDED / "transcripts")
    with server(folder / "the home", CLAUDE_CONFIG_DIR=str(configuration), HOME=str(folder)) as started:
        replay(Recording(RECORDED), "127.0.0.1", started.ports)
        started.command("audit")
        yield started, Shell(started, folder / "bin")

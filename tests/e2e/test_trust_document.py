"""telemetry-server/docs/trust.md: its commands print what it shows, on the transcripts of the recordings."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.server import server

pytestmark = pytest.mark.checkout
DOCUMENT = (ROOT / "telemetry-server/docs/trust.md").read_text()


def test_the_commands_print_what_the_document_shows(tmp_path: Path) -> None:
    blocks = "".join(re.findall(r"```console\n(.*?)```", DOCUMENT, re.DOTALL))
    shown = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)
    assert len(shown) == 7
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    (configuration / "projects").symlink_to(ROOT / "tests/recordings/book-2.1.330-http-protobuf/transcripts")
    with server(tmp_path / "sp", CLAUDE_CONFIG_DIR=str(configuration), HOME=str(tmp_path), TZ="UTC") as store:
        environment = store.environ | {
            "SP_TELEMETRY_HOME": str(store.home.path),
            "PATH": f"{ROOT / 'scripts'}{os.pathsep}{os.environ['PATH']}",
        }
        for command, expected in shown:
            done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            printed = done.stdout.replace("\r\n", "\n")
            assert printed.startswith(expected) if " report " in command else printed == expected, f"{command}\n{printed}"

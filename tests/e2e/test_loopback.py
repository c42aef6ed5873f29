"""No connection leaves loopback: the whole product in a network namespace that has nothing but `lo`, with each connect(2) recorded, so that
what was tried and failed is seen too. Claude Code's own calls are not ours, and not in it.
"""

# ruff: noqa: E501 - a command line is one line
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sp_telemetry.settings import SETTINGS as KNOWN
from tests.conftest import require
from tests.server import SETTINGS

pytestmark = [pytest.mark.needs("unshare", "ip", "strace", "sh"), pytest.mark.timeout(300)]
COMMANDS = (
    "up", "status --json", "setup --yes --json --person Ada --autostart", "doctor", "doctor --bundle -", "report cost", "report errors --format json",
    "privacy show", "privacy apply --level standard", "privacy apply --to-stored --check", "context", "sql 'SELECT 1'", "logs", "restart", "demo", "down",
)  # fmt: skip


def test_nothing_of_ours_reaches_out(tmp_path: Path) -> None:
    """serve, set-up, doctor, reports, demo: in a closed namespace each connect is to loopback or to a socket in the file system."""
    enter = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "enter"]
    possible = subprocess.run([*enter, "true"], capture_output=True, text=True)
    require(possible.returncode == 0, f"no network namespace here: {possible.stderr.strip()}")
    trace = tmp_path / "trace"
    command = f'"{sys.executable}" -m sp_telemetry.cli.main'
    lines = [f"{command} {one} >>'{tmp_path}/out' 2>&1; echo '{one.split()[0]}' $? >>'{tmp_path}/codes'" for one in COMMANDS]
    traced = [
        "strace",
        "-f",
        "--seccomp-bpf",  # stops at these calls alone, and not at every one
        "-qq",
        "-e",
        "trace=connect,sendto,sendmsg",
        "-e",
        "signal=none",
        "-o",
        str(trace),
        "sh",
        "-c",
        "\n".join(lines),
    ]
    ports = {name: number for name, number in SETTINGS.items() if "PORT" not in name}
    assert {setting.name for setting in KNOWN if setting.name.endswith("_port")}
    environ = {
        **os.environ,
        **ports,
        "SP_TELEMETRY_HOME": str(tmp_path / "home"),
        "HOME": str(tmp_path),
        "CLAUDE_CONFIG_DIR": str(tmp_path / "c"),
    }
    subprocess.run([*enter, *traced], env=environ, timeout=280, check=True)
    codes = dict(line.split() for line in (tmp_path / "codes").read_text().splitlines())
    assert (
        codes["up"] == codes["status"] == codes["setup"] == codes["privacy"] == codes["restart"] == codes["demo"] == codes["down"] == "0"
    ), codes
    text = trace.read_text(errors="replace")
    addresses = re.findall(r'sa_family=AF_INET6?,.*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")', text)
    reached = {one or other for one, other in addresses}
    assert "127.0.0.1" in reached, "nothing was recorded"
    assert {address for address in reached if not re.fullmatch(r"127\..*|::1|::ffff:127\..*|::|0\.0\.0\.0", address)} == set()

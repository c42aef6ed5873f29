"""No connection leaves loopback: the whole product in a network namespace that has nothing but `lo`, with each connect(2) recorded, so that
what was tried and failed is seen too. Claude Code's own calls are not ours, and not in it.
"""

# ruff: noqa: E501 - a command line is one line
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from shlex import join, quote

import pytest

from sp_telemetry.settings import SETTINGS as KNOWN
from tests.conftest import require
from tests.server import SETTINGS
from tests.transcripts import Configuration, answer, identifier, prompt
from tests.unit.test_hooks import book, command_of

pytestmark = [pytest.mark.checkout, pytest.mark.needs("unshare", "ip", "strace", "sh", "git"), pytest.mark.timeout(600)]
SESSION = identifier("loopback")
# A command and its exit code, or what a hook is called with. Each takes a second and more: nothing stands here without need.
DONE: tuple[tuple[int, str] | tuple[str, dict], ...] = (
    (3, "report cost"), (0, "env --shell bash"), (0, "env --shell fish --off"),
    (0, "up"), (0, "status --json"), (0, "setup --yes --json --person Ada --autostart --backfill"), (1, "doctor"), (1, "doctor --bundle -"),
    (6, "report cost"), (6, "report errors --format json"),
    (1, "audit"), (0, "backfill --dry-run"), (0, "backfill"), (0, "audit --json"), (0, "report cost --cost both"), (6, "report cost-differences"),
    (0, "privacy show"), (0, "privacy check"), (0, "privacy render"), (0, "privacy apply --level standard"), (0, "privacy apply --to-stored --check"),
    (0, "context"), (2, "migrate"), (0, "sql 'SELECT 1'"), (0, "logs"), (0, "restart"), (0, "demo"), (0, "down"), (3, "sql 'SELECT 1'"),
    ("session", {"source": "startup"}), (0, "up"),  # the hook starts the server and fills gaps in, and waits for neither
    ("prompt", {"prompt": "write the chapter"}), ("edit", {"tool_name": "Edit", "tool_input": {"file_path": "BOOK/manuscript/05-part/33-agents/text.md"}}),
    ("bash", {"tool_name": "Bash", "tool_input": {"command": "git switch 018-x"}}), ("cwd", {}),
    ("report", {"command_name": "sp-telemetry:telemetry-report", "command_args": "cost", "prompt": "/telemetry-report cost"}),
    (0, f"sql \"SELECT count() > 0 FROM telemetry.session_context WHERE session_id = '{SESSION}'\""),  # what is late here waits for the next hook
    (0, "uninstall --dry-run"), (0, "uninstall --purge --yes"), (3, "status"),
)  # fmt: skip


def test_nothing_of_ours_reaches_out(tmp_path: Path) -> None:
    """Every command, and the hooks as hooks.json calls them: in a closed namespace each connect is to loopback or to a socket in the file
    system, and each ends as it should."""
    enter = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "enter"]
    possible = subprocess.run([*enter, "true"], capture_output=True, text=True)
    require(possible.returncode == 0, f"no network namespace here: {possible.stderr.strip()}")
    trace, out, cli, where = tmp_path / "trace", tmp_path / "out", tmp_path / "cli", book(tmp_path / "book")
    out.mkdir()
    cli.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sp_telemetry.cli.main "$@"\n')
    cli.chmod(0o755)
    at = time.time() - 3600
    Configuration(tmp_path / "c").session(SESSION, [prompt(SESSION, "p", at), answer(SESSION, "a", at + 1)])
    lines = [f"cd {quote(str(where))}"]
    for number, (one, what) in enumerate(DONE):
        if isinstance(one, str):
            call = json.dumps({"session_id": SESSION, "cwd": str(where), "hook_event_name": one, **what}).replace("BOOK", str(where))
            command = f"printf %s {quote(call)} | {join(command_of(one))}"
        else:
            command = f"{cli} {what}"
        lines.append(f"{command} >{out}/{number} 2>&1; echo $? >>{tmp_path}/codes")
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
        "CLAUDE_PLUGIN_DATA": str(tmp_path / "data"),
        "CLAUDE_CODE_SESSION_ID": SESSION,
        "SP_TELEMETRY_CLI": str(cli),  # as the hooks call it; the checkout's own would make its environment
        "SP_TELEMETRY_HOOKS": "wait",
        "SP_TELEMETRY_HOOK_PATIENCE": "20",
    }
    subprocess.run([*enter, *traced], env=environ, timeout=560, check=True)
    said = [f"{one} {what}: {(out / str(number)).read_text()[-600:]}" for number, (one, what) in enumerate(DONE)]
    codes = list(map(int, (tmp_path / "codes").read_text().split()))
    wanted = [one if isinstance(one, int) else 0 for one, _ in DONE]
    assert codes == wanted, [text for text, code, right in zip(said, codes, wanted, strict=True) if code != right]
    assert (out / str(len(DONE) - 4)).read_text().endswith("\n1\n"), said
    text = trace.read_text(errors="replace")
    addresses = re.findall(r'sa_family=AF_INET6?,.*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")', text)
    reached = {one or other for one, other in addresses}
    assert "127.0.0.1" in reached, "nothing was recorded"
    assert {address for address in reached if not re.fullmatch(r"127\..*|::1|::ffff:127\..*|::|0\.0\.0\.0", address)} == set()
